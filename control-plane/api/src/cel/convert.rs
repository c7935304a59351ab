//! Between trees of JSON and values of CEL.

use std::collections::HashMap;
use std::sync::Arc;

use cel::Value;
use cel::objects::{Key, Map};
use serde_json::Value as Json;

/// A tree as a value: whole numbers are ints, as in a schema of Kubernetes, all others are doubles.
#[must_use]
pub fn from_json(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(flag) => Value::Bool(*flag),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Int(number),
            None => number.as_u64().map_or_else(|| Value::Float(number.as_f64().unwrap_or_default()), Value::UInt),
        },
        Json::String(text) => Value::String(Arc::new(text.clone())),
        Json::Array(items) => Value::List(Arc::new(items.iter().map(from_json).collect())),
        Json::Object(entries) => map(entries.iter().map(|(key, value)| (key.clone(), from_json(value)))),
    }
}

/// A map with text keys.
pub(super) fn map(entries: impl IntoIterator<Item = (String, Value)>) -> Value {
    let map: HashMap<Key, Value> =
        entries.into_iter().map(|(key, value)| (Key::String(Arc::new(key)), value)).collect();
    Value::Map(Map { map: Arc::new(map) })
}

/// A value as a tree; `None` for what JSON has no form for.
#[must_use]
pub fn to_json(value: &Value) -> Option<Json> {
    match value {
        Value::Null => Some(Json::Null),
        Value::Bool(flag) => Some(Json::Bool(*flag)),
        Value::Int(number) => Some(Json::from(*number)),
        Value::UInt(number) => Some(Json::from(*number)),
        Value::Float(number) => serde_json::Number::from_f64(*number).map(Json::Number),
        Value::String(text) => Some(Json::String(text.to_string())),
        Value::List(items) => items.iter().map(to_json).collect::<Option<Vec<_>>>().map(Json::Array),
        Value::Map(map) => {
            let mut entries = serde_json::Map::new();
            for (key, value) in map.map.iter() {
                let Key::String(key) = key else { return None };
                entries.insert(key.to_string(), to_json(value)?);
            }
            Some(Json::Object(entries))
        }
        _ => None,
    }
}
