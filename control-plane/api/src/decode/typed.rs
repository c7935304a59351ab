//! One pass over JSON with the schema in hand.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::Failure;
use crate::quantity::Quantity;
use crate::schema::{Field, Instead, Schemas, StructId, Type};

/// What was read.
pub(crate) struct Read {
    pub(crate) object: Map<String, Value>,
    /// Unknown and duplicate fields, in the order found.
    pub(crate) strict: Vec<String>,
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
        // `null` is an object without fields to Go.
        Ok(_) => Ok(Read { object: Map::new(), strict: context.strict.into_inner() }),
        Err(error) => Err(Failure::Syntax(super::header::syntax(body, &error))),
    }
}

enum Segment {
    Field(String),
    /// A field that Go has in a struct embedded in the owner, by whose name too its errors call it.
    Embedded(&'static str, String),
    /// A key of a map, which Go's errors leave out of paths.
    Key(String),
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
                Segment::Field(name) | Segment::Embedded(_, name) | Segment::Key(name) => {
                    if out.is_empty() {
                        out.push_str(name);
                        continue;
                    }
                    out.push('.');
                    out.push_str(name);
                }
                Segment::Index(index) => out.push_str(&format!("[{index}]")),
            }
        }
        out
    }

    /// The path in errors of Go's decoder, which has neither indexes nor keys.
    fn go_path(&self) -> String {
        let path = self.path.borrow();
        let mut names = Vec::with_capacity(path.len());
        for segment in path.iter() {
            match segment {
                Segment::Field(name) => names.push(name.as_str()),
                Segment::Embedded(outer, name) => names.extend([outer, name.as_str()]),
                Segment::Key(_) | Segment::Index(_) => {}
            }
        }
        names.join(".")
    }

    fn strict(&self, what: &str) {
        let mut strict = self.strict.borrow_mut();
        if strict.len() < STRICT_LIMIT {
            let error = format!("{what} field {:?}", self.path());
            if !strict.contains(&error) {
                strict.push(error);
            }
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
    /// Whether a field that is null is left out: declared ones are, and what a custom object has besides is kept as it is.
    fn drops_null(&self, key: &str) -> bool {
        let Type::Struct(id) = self.type_ else { return false };
        let of = &self.context.schemas[*id];
        of.rest.is_none() || of.field(key).is_some()
    }

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

    /// A value that has not even the JSON type of what is wanted.
    fn unfit(&self, given: &str) -> Value {
        if *self.type_ == Type::Quantity { self.quantity(given) } else { self.mismatch(given) }
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
            Type::Time | Type::MicroTime | Type::Raw | Type::SchemaOr(..) => Value::Null,
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
            Type::Bool
            | Type::Int32
            | Type::Int64
            | Type::Float
            | Type::Struct(_)
            | Type::List(_)
            | Type::Map(_)
            | Type::SchemaOr(..) => self.mismatch("string"),
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
        let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
        let time = rfc3339(text, micro).and_then(|()| text.parse::<jiff::Timestamp>().map_err(|_| (text, "2006")));
        match time {
            Ok(time) => {
                let format = if micro { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
                Value::String(time.strftime(format).to_string())
            }
            Err((rest, part)) => {
                self.context.fail(format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {part:?}"));
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
            Type::String
            | Type::Bool
            | Type::Bytes
            | Type::Struct(_)
            | Type::List(_)
            | Type::Map(_)
            | Type::SchemaOr(..) => self.mismatch("number"),
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
            Type::Bool | Type::Raw | Type::SchemaOr(_, Instead::Bool) => Value::Bool(value),
            _ => self.unfit("bool"),
        })
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(self.number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        // A whole number with a fraction or an exponent is none to Go, but `-0` comes here as well.
        let zero = value == 0.0 && matches!(self.type_, Type::Int32 | Type::Int64 | Type::IntOrString);
        let number = if zero { Some(Number::from(0)) } else { Number::from_f64(value) };
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
        let instead;
        let item = match self.type_ {
            Type::List(item) => item,
            Type::SchemaOr(id, Instead::Schemas) => {
                instead = Type::Struct(*id);
                &instead
            }
            Type::SchemaOr(_, Instead::Names) => &Type::String,
            Type::Raw => &raw,
            // Go reads a list of numbers into bytes as well; of those only the empty one is taken here.
            Type::Bytes if items.next_element::<IgnoredAny>()?.is_none() => return Ok(Value::String(String::new())),
            _ => {
                let _ = self.unfit("array");
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
        if let Type::SchemaOr(id, _) = self.type_ {
            return Seed { type_: &Type::Struct(*id), ..self }.visit_map(entries);
        }
        if !matches!(self.type_, Type::Struct(_) | Type::Map(_) | Type::Raw) {
            let _ = self.unfit("object");
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Value::Null);
        }
        let mut out = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let raw = Type::Raw;
            let (type_, owner) = match self.type_ {
                Type::Struct(id) => match (schemas[*id].field(&key), &schemas[*id].rest) {
                    (Some(field), _) => (&field.type_, Some(*id)),
                    (None, Some(rest)) => (rest, Some(*id)),
                    (None, None) => {
                        self.context.path.borrow_mut().push(Segment::Field(key));
                        self.context.strict("unknown");
                        self.context.path.borrow_mut().pop();
                        entries.next_value::<IgnoredAny>()?;
                        continue;
                    }
                },
                Type::Map(value) => (&**value, self.owner),
                _ => (&raw, self.owner),
            };
            let segment = match self.type_ {
                Type::Struct(id) => match embedded(&schemas[*id].name, &key, schemas[*id].field(&key)) {
                    Some(outer) => Segment::Embedded(outer, key.clone()),
                    None => Segment::Field(key.clone()),
                },
                _ => Segment::Key(key.clone()),
            };
            self.context.path.borrow_mut().push(segment);
            let seed = Seed { context: self.context, type_, owner };
            let value = entries.next_value_seed(seed);
            if out.contains_key(&key) {
                self.context.strict("duplicate");
            }
            self.context.path.borrow_mut().pop();
            match value? {
                // Go leaves a field alone that is null, and gives a map's key its zero value.
                Value::Null if self.drops_null(&key) => {}
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

/// The struct that Go embeds in another and that has the field. Such fields are known by their protobuf numbers, which go down through it.
fn embedded(owner: &str, name: &str, field: Option<&Field>) -> Option<&'static str> {
    if field?.protobuf.len() < 2 {
        return None;
    }
    let owner = owner.strip_prefix("io.k8s.api.")?;
    Some(match owner {
        "admissionregistration.v1.NamedRuleWithOperations" if name == "operations" => "RuleWithOperations",
        "admissionregistration.v1.NamedRuleWithOperations" => "RuleWithOperations.Rule",
        "admissionregistration.v1.RuleWithOperations" => "Rule",
        "core.v1.EphemeralContainer" => "EphemeralContainerCommon",
        "core.v1.PersistentVolumeSpec" => "PersistentVolumeSource",
        "core.v1.Probe" => "ProbeHandler",
        "core.v1.Volume" => "VolumeSource",
        "networking.v1.IngressRule" => "IngressRuleValue",
        _ if name == "name" => "LocalObjectReference",
        _ => return None,
    })
}

fn go_type(schemas: &Schemas, type_: &Type) -> String {
    match type_ {
        Type::String => "string".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Float => "float64".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Time | Type::MicroTime => "string".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        // What its own decoder reads when it sees no text.
        Type::IntOrString => "int32".to_owned(),
        Type::Raw => "interface {}".to_owned(),
        Type::Struct(id) => schemas[*id].qualified_go_name(),
        Type::List(item) => format!("[]{}", go_type(schemas, item)),
        Type::SchemaOr(id, _) => schemas[*id].qualified_go_name(),
        Type::Map(value) if **value == Type::Quantity => "v1.ResourceList".to_owned(),
        Type::Map(value) => format!("map[string]{}", go_type(schemas, value)),
    }
}

/// Whether text has Go's RFC 3339 form, with exactly six digits of a fraction where microseconds are told; else what does not fit, and as what.
fn rfc3339(text: &str, micro: bool) -> Result<(), (&str, &'static str)> {
    const PARTS: [(usize, &str); 6] = [(4, "2006"), (2, "01"), (2, "02"), (2, "15"), (2, "04"), (2, "05")];
    const SEPARATORS: [&str; 5] = ["-", "-", "T", ":", ":"];
    let digits = |text: &str, count: usize| text.get(..count).is_some_and(|d| d.bytes().all(|b| b.is_ascii_digit()));
    let mut rest = text;
    for (at, (count, part)) in PARTS.into_iter().enumerate() {
        if !digits(rest, count) {
            return Err((rest, part));
        }
        rest = &rest[count..];
        if let Some(separator) = SEPARATORS.get(at) {
            rest = rest.strip_prefix(separator).ok_or((rest, *separator))?;
        }
    }
    if micro {
        let fraction = rest.strip_prefix('.').filter(|fraction| digits(fraction, 6)).ok_or((rest, ".000000"))?;
        rest = &fraction[6..];
    } else if let Some(fraction) = rest.strip_prefix('.').filter(|fraction| digits(fraction, 1)) {
        rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    let offset = rest.strip_prefix(['+', '-']);
    let is_offset =
        offset.is_some_and(|o| o.len() == 5 && digits(o, 2) && o.as_bytes()[2] == b':' && digits(&o[3..], 2));
    if rest == "Z" || is_offset { Ok(()) } else { Err((rest, "Z07:00")) }
}

/// Whether text is standard base64, line breaks aside; the error is the offset of the first byte that is not.
fn check_base64(text: &str) -> Result<(), usize> {
    use base64::DecodeError;
    use base64::Engine as _;
    let unbroken = text.replace(['\r', '\n'], "");
    match base64::engine::general_purpose::STANDARD.decode(&unbroken) {
        Ok(_) => Ok(()),
        Err(DecodeError::InvalidByte(at, _)) => Err(at),
        // A last quantum that is not whole is told of by where it begins.
        Err(DecodeError::InvalidLastSymbol(..) | DecodeError::InvalidLength(_) | DecodeError::InvalidPadding) => {
            Err(unbroken.len().saturating_sub(1) / 4 * 4)
        }
    }
}
