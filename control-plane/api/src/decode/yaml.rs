//! YAML → JSON text (sigs.k8s.io/yaml): the first document, keys made text, whole numbers without a fraction, keys that stand twice noticed.
//!
//! Aliases can't blow up: the parser refuses documents that repeat too much, and every value here is counted.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Duplicate keys named at most; each costs one more reading.
const DUPLICATES: usize = 10;
/// Values that one document may come to, aliases included.
const VALUES: usize = 3 * 1024 * 1024;

/// A document as JSON.
pub(super) struct Converted {
    pub(super) json: Vec<u8>,
    /// The strict error about keys that stand twice, if any.
    pub(super) duplicates: Option<String>,
}

/// Converts the first document.
///
/// # Errors
/// What does not parse, in the parser's words.
pub(super) fn to_json(body: &[u8]) -> Result<Converted, String> {
    let first = read(body, usize::MAX);
    let value = first.value.map_err(|error| format!("yaml: {error}"))?;
    let mut lines = Vec::new();
    for (at, key) in first.duplicates.iter().take(DUPLICATES).enumerate() {
        // Only an error knows the line: read again up to that key.
        if let Err(error) = read(body, at).value {
            let line = error.location().map_or(0, |location| location.line());
            lines.push(format!("\n  line {line}: key {key:?} already set in map"));
        }
    }
    let duplicates = (!lines.is_empty()).then(|| format!("yaml: unmarshal errors:{}", lines.concat()));
    let json = serde_json::to_vec(&value).map_err(|error| format!("yaml: {error}"))?;
    Ok(Converted { json, duplicates })
}

/// Reads the first document without a schema, and the strict error about keys that stand twice. JSON is read as JSON: it is YAML as well, but quicker.
///
/// # Errors
/// What does not parse, in the parser's words.
pub(super) fn read_untyped(body: &[u8]) -> Result<(Value, Option<String>), String> {
    let context = Context { duplicates: RefCell::default(), fail_at: usize::MAX, values: Cell::new(0) };
    let mut json = serde_json::Deserializer::from_slice(body);
    if let Ok(value) = Node(&context).deserialize(&mut json).and_then(|value| json.end().map(|()| value))
        && context.duplicates.borrow().is_empty()
    {
        return Ok((value, None));
    }
    let converted = to_json(body)?;
    let value = serde_json::from_slice(&converted.json).map_err(|error| format!("yaml: {error}"))?;
    Ok((value, converted.duplicates))
}

struct Reading {
    value: Result<Value, serde_yaml::Error>,
    duplicates: Vec<String>,
}

/// Reads the first document; the duplicate key of that number is an error.
fn read(body: &[u8], fail_at: usize) -> Reading {
    let context = Context { duplicates: RefCell::default(), fail_at, values: Cell::new(0) };
    let value = match serde_yaml::Deserializer::from_slice(body).next() {
        Some(document) => Node(&context).deserialize(document),
        None => Ok(Value::Null),
    };
    Reading { value, duplicates: context.duplicates.into_inner() }
}

struct Context {
    duplicates: RefCell<Vec<String>>,
    fail_at: usize,
    values: Cell<usize>,
}

#[derive(Clone, Copy)]
struct Node<'a>(&'a Context);

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.values.set(self.0.values.get() + 1);
        if self.0.values.get() > VALUES {
            return Err(D::Error::custom("document contains excessive aliasing"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        // Go writes a float without a fraction as a whole number.
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if value.fract() == 0.0 && value.abs() <= EXACT {
            return Ok(Value::from(value as i64));
        }
        let number = Number::from_f64(value).ok_or_else(|| E::custom(format!("unsupported value: {value}")))?;
        Ok(Value::Number(number))
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            out.push(item);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = entries.next_key_seed(Key { context: self.0, there: &out })? {
            let value = entries.next_value_seed(self)?;
            out.insert(key, value);
        }
        Ok(Value::Object(out))
    }
}

/// A key, made text, and whether it stands there already.
struct Key<'a> {
    context: &'a Context,
    there: &'a Map<String, Value>,
}

impl Key<'_> {
    fn text<E: serde::de::Error>(self, key: String) -> Result<String, E> {
        if self.there.contains_key(&key) {
            let mut duplicates = self.context.duplicates.borrow_mut();
            if duplicates.len() == self.context.fail_at {
                return Err(E::custom("already set in map"));
            }
            if duplicates.len() < DUPLICATES {
                duplicates.push(key.clone());
            }
        }
        Ok(key)
    }
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key that is text, a number or a boolean")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<String, E> {
        self.text(key.to_owned())
    }

    fn visit_bool<E: serde::de::Error>(self, key: bool) -> Result<String, E> {
        self.text(key.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, key: i64) -> Result<String, E> {
        self.text(key.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, key: u64) -> Result<String, E> {
        self.text(key.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, key: f64) -> Result<String, E> {
        self.text(key.to_string())
    }
}
