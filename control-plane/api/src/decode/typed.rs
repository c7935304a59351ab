//! One pass over JSON with the schema in hand.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Failure;
use crate::quantity::Quantity;
use crate::schema::{Schemas, StructId, Type};

/// What was read.
pub(super) struct Read {
    pub(super) object: Map<String, Value>,
    /// Unknown and duplicate fields, in the order found.
    pub(super) strict: Vec<String>,
}

/// Strict errors named at most; a body can hold a million of them.
const STRICT_LIMIT: usize = 100;

/// Reads an object of a struct type.
pub(super) fn read(schemas: &Schemas, id: StructId, body: &[u8]) -> Result<Read, Failure> {
    let context = Context {
        schemas,
        path: RefCell::new(Vec::new()),
        strict: RefCell::new(Vec::new()),
        failure: RefCell::new(None),
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    let type_ = Type::Struct(id);
    let seed = Seed { context: &context, type_: &type_, owner: None };
    let value = seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    if let Some(why) = context.failure.into_inner() {
        return Err(Failure::Type(why));
    }
    match value {
        Ok(Value::Object(object)) => Ok(Read { object, strict: context.strict.into_inner() }),
        Ok(_) => Err(Failure::Syntax("the body is not an object".to_owned())),
        Err(error) => Err(Failure::Syntax(error.to_string())),
    }
}

enum Segment {
    Field(String),
    Index(usize),
}

struct Context<'a> {
    schemas: &'a Schemas,
    path: RefCell<Vec<Segment>>,
    strict: RefCell<Vec<String>>,
    /// The first value that does not fit: Go goes on and reports that one.
    failure: RefCell<Option<String>>,
}

impl Context<'_> {
    /// `spec.template.spec.containers[0].image`
    fn path(&self) -> String {
        let mut out = String::new();
        for segment in self.path.borrow().iter() {
            match segment {
                Segment::Field(name) if out.is_empty() => out.push_str(name),
                Segment::Field(name) => {
                    out.push('.');
                    out.push_str(name);
                }
                Segment::Index(index) => out.push_str(&format!("[{index}]")),
            }
        }
        out
    }

    /// The path in errors of Go's decoder, which has no indexes.
    fn go_path(&self) -> String {
        let path = self.path.borrow();
        let names = path.iter().filter_map(|segment| match segment {
            Segment::Field(name) => Some(name.as_str()),
            Segment::Index(_) => None,
        });
        names.collect::<Vec<_>>().join(".")
    }

    fn strict(&self, what: &str) {
        let mut strict = self.strict.borrow_mut();
        if strict.len() < STRICT_LIMIT {
            strict.push(format!("{what} field \"{}\"", self.path()));
        }
    }

    fn fail(&self, why: String) {
        self.failure.borrow_mut().get_or_insert(why);
    }
}

/// Reads a value of a type. The owner is the struct whose field it is (in), for errors.
#[derive(Clone, Copy)]
struct Seed<'a> {
    context: &'a Context<'a>,
    type_: &'a Type,
    owner: Option<StructId>,
}

impl Seed<'_> {
    fn mismatch(&self, given: &str) -> Value {
        let expected = self.go_type();
        let why = match self.owner {
            Some(owner) => format!(
                "json: cannot unmarshal {given} into Go struct field {}.{} of type {expected}",
                self.context.schemas[owner].go_name(),
                self.context.go_path()
            ),
            None => format!("json: cannot unmarshal {given} into Go value of type {expected}"),
        };
        self.context.fail(why);
        Value::Null
    }

    fn go_type(&self) -> String {
        go_type(self.context.schemas, self.type_)
    }

    /// What Go leaves where `null` stands in a list or a map: the zero value.
    fn zero(&self) -> Value {
        match self.type_ {
            Type::String | Type::Bytes => Value::String(String::new()),
            Type::Bool => Value::Bool(false),
            Type::Int32 | Type::Int64 | Type::Float | Type::IntOrString => Value::from(0),
            Type::Quantity => Value::String("0".to_owned()),
            Type::Time | Type::MicroTime | Type::Raw => Value::Null,
            Type::Struct(_) | Type::Map(_) => Value::Object(Map::new()),
            Type::List(_) => Value::Array(Vec::new()),
        }
    }

    fn text(&self, text: &str) -> Value {
        match self.type_ {
            Type::String | Type::Raw | Type::IntOrString => Value::String(text.to_owned()),
            Type::Bytes => match check_base64(text) {
                Ok(()) => Value::String(text.to_owned()),
                Err(at) => {
                    self.context.fail(format!("illegal base64 data at input byte {at}"));
                    Value::Null
                }
            },
            Type::Time => self.time(text, false),
            Type::MicroTime => self.time(text, true),
            Type::Quantity => self.quantity(text),
            Type::Bool | Type::Int32 | Type::Int64 | Type::Float | Type::Struct(_) | Type::List(_) | Type::Map(_) => {
                self.mismatch("string")
            }
        }
    }

    fn quantity(&self, text: &str) -> Value {
        match text.parse::<Quantity>() {
            Ok(quantity) => Value::String(quantity.to_string()),
            Err(error) => {
                self.context.fail(error.to_string());
                Value::Null
            }
        }
    }

    fn time(&self, text: &str, micro: bool) -> Value {
        match text.parse::<jiff::Timestamp>() {
            Ok(time) => {
                let format = if micro { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
                Value::String(time.strftime(format).to_string())
            }
            Err(_) => {
                let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
                self.context.fail(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""));
                Value::Null
            }
        }
    }

    fn number(&self, number: Number) -> Value {
        match self.type_ {
            Type::Int32 | Type::IntOrString => match number.as_i64().filter(|n| i32::try_from(*n).is_ok()) {
                Some(n) => Value::from(n),
                None => self.mismatch(&format!("number {number}")),
            },
            Type::Int64 => match number.as_i64() {
                Some(n) => Value::from(n),
                None => self.mismatch(&format!("number {number}")),
            },
            Type::Float | Type::Raw => Value::Number(number),
            Type::Quantity => self.quantity(&number.to_string()),
            Type::String | Type::Bool | Type::Bytes | Type::Struct(_) | Type::List(_) | Type::Map(_) => {
                self.mismatch("number")
            }
            Type::Time | Type::MicroTime => self.mismatch("number"),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.go_type())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(match self.type_ {
            Type::Bool | Type::Raw => Value::Bool(value),
            _ => self.mismatch("bool"),
        })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // 3.0 is an integer to Go's decoder of Kubernetes as well: it keeps numbers that have no fraction.
        let whole = value.fract() == 0.0 && value.abs() < 9e15;
        let integer = matches!(self.type_, Type::Int32 | Type::Int64) && whole;
        let number = if integer { Some(Number::from(value as i64)) } else { Number::from_f64(value) };
        Ok(number.map_or(Value::Null, |number| self.number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(self.text(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let raw = Type::Raw;
        let item = match self.type_ {
            Type::List(item) => item,
            Type::Raw => &raw,
            _ => {
                let _ = self.mismatch("array");
                while items.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(Value::Null);
            }
        };
        let seed = Seed { type_: item, ..self };
        let mut out = Vec::new();
        loop {
            self.context.path.borrow_mut().push(Segment::Index(out.len()));
            let next = items.next_element_seed(seed);
            self.context.path.borrow_mut().pop();
            match next? {
                None => return Ok(Value::Array(out)),
                Some(Value::Null) if !matches!(item, Type::Raw) => out.push(seed.zero()),
                Some(value) => out.push(value),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let schemas = self.context.schemas;
        let mut out = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let raw = Type::Raw;
            let (type_, owner) = match self.type_ {
                Type::Struct(id) => match schemas[*id].field(&key) {
                    Some(field) => (&field.type_, Some(*id)),
                    None => {
                        self.context.path.borrow_mut().push(Segment::Field(key));
                        self.context.strict("unknown");
                        self.context.path.borrow_mut().pop();
                        entries.next_value::<IgnoredAny>()?;
                        continue;
                    }
                },
                Type::Map(value) => (&**value, self.owner),
                Type::Raw => (&raw, self.owner),
                _ => {
                    let _ = self.mismatch("object");
                    entries.next_value::<IgnoredAny>()?;
                    while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                    return Ok(Value::Null);
                }
            };
            self.context.path.borrow_mut().push(Segment::Field(key.clone()));
            let seed = Seed { context: self.context, type_, owner };
            let value = entries.next_value_seed(seed);
            if out.contains_key(&key) {
                self.context.strict("duplicate");
            }
            self.context.path.borrow_mut().pop();
            match value? {
                // Go leaves a field alone that is null, and gives a map's key its zero value.
                Value::Null if matches!(self.type_, Type::Struct(_)) => {}
                Value::Null if matches!(self.type_, Type::Map(_)) => {
                    out.insert(key, seed.zero());
                }
                value => {
                    out.insert(key, value);
                }
            }
        }
        Ok(Value::Object(out))
    }
}

fn go_type(schemas: &Schemas, type_: &Type) -> String {
    match type_ {
        Type::String => "string".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Float => "float64".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Time => "string".to_owned(),
        Type::MicroTime => "string".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Raw => "interface {}".to_owned(),
        Type::Struct(id) => schemas[*id].qualified_go_name(),
        Type::List(item) => format!("[]{}", go_type(schemas, item)),
        Type::Map(value) => format!("map[string]{}", go_type(schemas, value)),
    }
}

/// Whether text is standard base64; the error is the offset of the first byte that is not.
fn check_base64(text: &str) -> Result<(), usize> {
    use base64::DecodeError;
    use base64::Engine as _;
    match base64::engine::general_purpose::STANDARD.decode(text) {
        Ok(_) => Ok(()),
        Err(DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _)) => Err(at),
        Err(DecodeError::InvalidLength(length)) => Err(length),
        Err(DecodeError::InvalidPadding) => Err(text.len()),
    }
}
