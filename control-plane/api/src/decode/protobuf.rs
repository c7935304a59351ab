//! `application/vnd.kubernetes.protobuf` → the same tree that JSON gives: Kubernetes' envelope (k8s.io/apimachinery/pkg/runtime/serializer/protobuf), then
//! the wire format with the schema in hand. Fields that the schema does not know are skipped, as protocol buffers demand; they can't be named.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Failure;
use crate::schema::{Field, Instead, Schemas, StructId, Type};

const MAGIC: &[u8] = b"k8s\0";
/// Messages in messages; the deepest of Kubernetes' types are JSON schemas, which are far below this.
const DEPTH: usize = 128;

/// What the envelope holds: `runtime.Unknown`.
pub(super) struct Envelope<'a> {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) raw: &'a [u8],
}

/// Opens the envelope.
pub(super) fn open(body: &[u8]) -> Result<Envelope<'_>, Failure> {
    let broken = |why: &str| Failure::Syntax(format!("provided data does not appear to be a protobuf message: {why}"));
    let unknown = body.strip_prefix(MAGIC).ok_or_else(|| broken("expected prefix [107 56 115 0]"))?;
    let mut envelope = Envelope { api_version: String::new(), kind: String::new(), raw: &[] };
    for field in fields(unknown) {
        match field.map_err(|why| broken(&why))? {
            (1, Wire::Bytes(type_meta)) => {
                for field in fields(type_meta) {
                    match field.map_err(|why| broken(&why))? {
                        (1, Wire::Bytes(text)) => envelope.api_version = String::from_utf8_lossy(text).into_owned(),
                        (2, Wire::Bytes(text)) => envelope.kind = String::from_utf8_lossy(text).into_owned(),
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(raw)) => envelope.raw = raw,
            _ => {}
        }
    }
    Ok(envelope)
}

/// Reads a message of a struct type.
pub(super) fn read(schemas: &Schemas, id: StructId, raw: &[u8]) -> Result<Map<String, Value>, Failure> {
    message(schemas, id, raw, 0).map_err(|why| Failure::Type(format!("proto: {why}")))
}

fn message(schemas: &Schemas, id: StructId, raw: &[u8], depth: usize) -> Result<Map<String, Value>, String> {
    let mut out = Map::new();
    let known: Vec<(&[u32], &Field)> = schemas[id]
        .fields
        .iter()
        .filter(|field| !field.protobuf.is_empty())
        .map(|field| (&field.protobuf[..], field))
        .collect();
    level(schemas, &known, raw, depth, &mut out)?;
    Ok(out)
}

/// Reads one level of a message; fields of embedded structs are found below the embedding's number.
fn level(
    schemas: &Schemas,
    known: &[(&[u32], &Field)],
    raw: &[u8],
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<(), String> {
    if depth > DEPTH {
        return Err("message is nested too deeply".to_owned());
    }
    for field in fields(raw) {
        let (number, wire) = field?;
        let mut embedded: Vec<(&[u32], &Field)> = Vec::new();
        for (path, field) in known.iter().filter(|(path, _)| path.first() == Some(&number)) {
            if path.len() > 1 {
                embedded.push((&path[1..], field));
            } else {
                add(schemas, field, wire, depth, out)?;
            }
        }
        if !embedded.is_empty() {
            let Wire::Bytes(inner) = wire else { return Err("wrong wireType for an embedded message".to_owned()) };
            level(schemas, &embedded, inner, depth + 1, out)?;
        }
    }
    Ok(())
}

fn add(
    schemas: &Schemas,
    field: &Field,
    wire: Wire<'_>,
    depth: usize,
    out: &mut Map<String, Value>,
) -> Result<(), String> {
    let wrong = |why: String| format!("field {}: {why}", field.name);
    match &field.type_ {
        Type::List(item) => {
            let items = value(schemas, item, wire, depth).map_err(wrong)?;
            match out.get_mut(&field.name) {
                Some(Value::Array(there)) => there.push(items),
                _ => drop(out.insert(field.name.clone(), Value::Array(vec![items]))),
            }
        }
        Type::Map(of) => {
            let Wire::Bytes(entry) = wire else { return Err(wrong("wrong wireType".to_owned())) };
            let (key, item) = map_entry(schemas, of, entry, depth).map_err(wrong)?;
            match out.get_mut(&field.name) {
                Some(Value::Object(there)) => drop(there.insert(key, item)),
                _ => drop(out.insert(field.name.clone(), Value::Object(Map::from_iter([(key, item)])))),
            }
        }
        type_ => {
            let read = value(schemas, type_, wire, depth).map_err(wrong)?;
            // Go writes what it does not hold by a pointer even when there is nothing in it.
            if field.pointer || !is_zero(type_, &read) {
                out.insert(field.name.clone(), read);
            }
        }
    }
    Ok(())
}

fn is_zero(type_: &Type, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0) && !matches!(type_, Type::IntOrString),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty() && matches!(type_, Type::Struct(_)),
    }
}

fn map_entry(schemas: &Schemas, of: &Type, entry: &[u8], depth: usize) -> Result<(String, Value), String> {
    let mut key = String::new();
    let mut item = value(schemas, of, empty(of), depth)?;
    for field in fields(entry) {
        match field? {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, wire) => item = value(schemas, of, wire, depth)?,
            _ => {}
        }
    }
    Ok((key, item))
}

/// What an absent value of a map's entry is.
fn empty(type_: &Type) -> Wire<'static> {
    match type_ {
        Type::Bool | Type::Int32 | Type::Int64 => Wire::Varint(0),
        Type::Float => Wire::Fixed64(0),
        _ => Wire::Bytes(&[]),
    }
}

fn value(schemas: &Schemas, type_: &Type, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    Ok(match (type_, wire) {
        (Type::String, Wire::Bytes(text)) => Value::String(utf8(text)?),
        (Type::Bytes, Wire::Bytes(bytes)) => Value::String(STANDARD.encode(bytes)),
        (Type::Bool, Wire::Varint(number)) => Value::Bool(number != 0),
        (Type::Int32, Wire::Varint(number)) => Value::from(number as i32),
        (Type::Int64, Wire::Varint(number)) => Value::from(number as i64),
        (Type::Float, Wire::Fixed64(bits)) => Value::from(f64::from_bits(bits)),
        (Type::Time, Wire::Bytes(time)) => timestamp(time, false)?,
        (Type::MicroTime, Wire::Bytes(time)) => timestamp(time, true)?,
        (Type::Quantity, Wire::Bytes(quantity)) => match field_of(quantity, 1)? {
            Some(Wire::Bytes(text)) => {
                let text = utf8(text)?;
                let parsed: crate::quantity::Quantity = text.parse().map_err(|error| format!("{error}"))?;
                Value::String(parsed.to_string())
            }
            _ => Value::String("0".to_owned()),
        },
        (Type::IntOrString, Wire::Bytes(either)) => match field_of(either, 1)? {
            Some(Wire::Varint(1)) => match field_of(either, 3)? {
                Some(Wire::Bytes(text)) => Value::String(utf8(text)?),
                _ => Value::String(String::new()),
            },
            _ => match field_of(either, 2)? {
                Some(Wire::Varint(number)) => Value::from(number as i32),
                _ => Value::from(0),
            },
        },
        // runtime.RawExtension and metav1.FieldsV1: JSON in bytes.
        (Type::Raw, Wire::Bytes(raw)) => match field_of(raw, 1)? {
            Some(Wire::Bytes(json)) => serde_json::from_slice(json).map_err(|error| error.to_string())?,
            _ => Value::Null,
        },
        (Type::Struct(id), Wire::Bytes(inner)) => Value::Object(message(schemas, *id, inner, depth + 1)?),
        (Type::SchemaOr(id, instead), Wire::Bytes(inner)) => schema_or(schemas, *id, *instead, inner, depth)?,
        // A list in a map (`extra` of a user) is a message with the items as its first field.
        (Type::List(item), Wire::Bytes(inner)) => {
            let mut items = Vec::new();
            for field in fields(inner) {
                if let (1, wire) = field? {
                    items.push(value(schemas, item, wire, depth + 1)?);
                }
            }
            Value::Array(items)
        }
        (type_, _) => return Err(format!("wrong wireType for {type_:?}")),
    })
}

/// A JSON schema, or what stands in its place. Each of the three messages has its own numbers.
fn schema_or(schemas: &Schemas, id: StructId, instead: Instead, raw: &[u8], depth: usize) -> Result<Value, String> {
    let (mut schema, mut many, mut allowed) = (None, Vec::new(), false);
    for field in fields(raw) {
        match (field?, instead) {
            ((1, Wire::Varint(flag)), Instead::Bool) => allowed = flag != 0,
            ((2, Wire::Bytes(inner)), Instead::Bool) | ((1, Wire::Bytes(inner)), Instead::Schemas | Instead::Names) => {
                schema = Some(message(schemas, id, inner, depth + 1)?);
            }
            ((2, Wire::Bytes(inner)), Instead::Schemas) => {
                many.push(Value::Object(message(schemas, id, inner, depth + 1)?));
            }
            ((2, Wire::Bytes(name)), Instead::Names) => many.push(Value::String(utf8(name)?)),
            _ => {}
        }
    }
    Ok(match (schema, instead) {
        (Some(schema), _) => Value::Object(schema),
        (None, Instead::Bool) => Value::Bool(allowed),
        (None, Instead::Schemas | Instead::Names) => Value::Array(many),
    })
}

fn timestamp(raw: &[u8], micro: bool) -> Result<Value, String> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut any = false;
    for field in fields(raw) {
        any = true;
        match field? {
            (1, Wire::Varint(number)) => seconds = number as i64,
            (2, Wire::Varint(number)) => nanos = number as i32,
            _ => {}
        }
    }
    // An empty message is Go's zero time: none.
    if !any {
        return Ok(Value::Null);
    }
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|error| error.to_string())?;
    let format = if micro { "%Y-%m-%dT%H:%M:%S%.6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Ok(Value::String(time.strftime(format).to_string()))
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "string field contains invalid UTF-8".to_owned())
}

/// The last occurrence of a field.
fn field_of(raw: &[u8], wanted: u32) -> Result<Option<Wire<'_>>, String> {
    let mut found = None;
    for field in fields(raw) {
        let (number, wire) = field?;
        if number == wanted {
            found = Some(wire);
        }
    }
    Ok(found)
}

/// A value on the wire.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

fn fields(raw: &[u8]) -> impl Iterator<Item = Result<(u32, Wire<'_>), String>> {
    let mut reader = Reader(raw);
    std::iter::from_fn(move || {
        if reader.0.is_empty() {
            return None;
        }
        let next = reader.field();
        if next.is_err() {
            reader.0 = &[];
        }
        Some(next)
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<(u32, Wire<'a>), String> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0).ok_or("illegal tag 0")?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().map_err(|_| "unexpected EOF")?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| "negative length")?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            other => return Err(format!("illegal wireType {other}")),
        };
        Ok((number, wire))
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut out = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or("unexpected EOF")?;
            self.0 = rest;
            out |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(out);
            }
        }
        Err("integer overflow".to_owned())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (head, tail) = self.0.split_at_checked(length).ok_or("unexpected EOF")?;
        self.0 = tail;
        Ok(head)
    }
}
