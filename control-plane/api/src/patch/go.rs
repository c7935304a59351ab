//! Values as Go's formatting verbs print them, for messages that clients compare with upstream's.

use serde_json::{Map, Value};

use crate::schema::Type;

/// `%v` of a `map[string]interface{}`: keys in order.
pub(super) fn map(fields: &Map<String, Value>) -> String {
    let mut keys: Vec<&String> = fields.keys().collect();
    keys.sort();
    let entries: Vec<String> = keys.into_iter().map(|key| format!("{key}:{}", value(&fields[key]))).collect();
    format!("map[{}]", entries.join(" "))
}

/// `%v` of a `[]interface{}`.
pub(super) fn list(items: &[Value]) -> String {
    let items: Vec<String> = items.iter().map(value).collect();
    format!("[{}]", items.join(" "))
}

/// `%v`
pub(crate) fn value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) => list(items),
        Value::Object(fields) => map(fields),
    }
}

/// `%s`, which marks what is no text.
pub(super) fn text_verb(given: &Value) -> String {
    match given {
        Value::String(text) => text.clone(),
        Value::Null => "%!s(<nil>)".to_owned(),
        Value::Array(items) => format!("[{}]", items.iter().map(text_verb).collect::<Vec<_>>().join(" ")),
        other => format!("%!s({}={})", type_of(other), value(other)),
    }
}

/// `reflect.TypeOf` a value that Kubernetes' JSON decoder made.
pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A JSON value's kind in the decoder's errors.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `reflect.Kind` of a type.
pub(super) fn reflect_kind(type_: &Type) -> &'static str {
    match type_ {
        Type::String => "string",
        Type::Bool => "bool",
        Type::Int32 => "int32",
        Type::Int64 => "int64",
        Type::Float => "float64",
        Type::Bytes | Type::List(_) => "slice",
        Type::Map(_) => "map",
        Type::Time
        | Type::MicroTime
        | Type::Quantity
        | Type::IntOrString
        | Type::Raw
        | Type::Struct(_)
        | Type::SchemaOr(..) => "struct",
    }
}
