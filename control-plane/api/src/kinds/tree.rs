//! Reading and filling trees of values as Go's typed objects behave: what is absent, `null` or of another type reads as the zero value.

use serde_json::{Map, Value};

use crate::field::{Error, ErrorList, Path};

/// A string; empty where there is none.
pub(in crate::kinds) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// An integer; 0 where there is none.
pub(in crate::kinds) fn integer(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

/// A boolean; false where there is none.
pub(in crate::kinds) fn flag(value: &Value) -> bool {
    value.as_bool().unwrap_or_default()
}

/// The items of a list; none where there is no list.
pub(in crate::kinds) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The items of a list below `parent`, to change them.
pub(in crate::kinds) fn items_mut<'a>(parent: &'a mut Value, field: &str) -> &'a mut [Value] {
    parent.get_mut(field).and_then(Value::as_array_mut).map_or(&mut [], Vec::as_mut_slice)
}

/// The entries of a map, by key; none where there is no map.
pub(in crate::kinds) fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// How many items or entries there are.
pub(in crate::kinds) fn length(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(entries) => entries.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Whether Go would leave the value out: absent, or the zero value of its type. A pointer to a zero value is not told apart.
pub(in crate::kinds) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
    }
}

/// Equality that takes an empty list, map or string for an absent one, as upstream's `equality.Semantic.DeepEqual` does.
pub(in crate::kinds) fn semantically_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let all_in = |from: &Map<String, Value>, other: &Map<String, Value>| {
                from.iter().all(|(key, value)| semantically_equal(value, other.get(key).unwrap_or(&Value::Null)))
            };
            all_in(x, y) && all_in(y, x)
        }
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(a, b)| semantically_equal(a, b))
        }
        (Value::Null, Value::Object(_)) | (Value::Object(_), Value::Null) => {
            let empty = Value::Object(Map::new());
            if a.is_null() { semantically_equal(&empty, b) } else { semantically_equal(a, &empty) }
        }
        (Value::Null, other) | (other, Value::Null) => {
            other.is_null() || matches!(other, Value::String(_) | Value::Array(_)) && is_empty(other)
        }
        _ => a == b,
    }
}

/// The map that is here, made if there is none.
pub(in crate::kinds) fn map_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("just made an object")
}

/// Sets a field that is absent.
pub(in crate::kinds) fn fill(parent: &mut Value, field: &str, value: impl Into<Value>) {
    let map = map_mut(parent);
    if map.get(field).is_none_or(Value::is_null) {
        map.insert(field.to_owned(), value.into());
    }
}

/// Sets a field that is absent or an empty string.
pub(in crate::kinds) fn fill_text(parent: &mut Value, field: &str, value: &str) {
    let map = map_mut(parent);
    if map.get(field).is_none_or(|value| text(value).is_empty()) {
        map.insert(field.to_owned(), value.into());
    }
}

/// Drops a field.
pub(in crate::kinds) fn remove(parent: &mut Value, field: &str) {
    if let Some(map) = parent.as_object_mut() {
        map.remove(field);
    }
}

/// Makes a field what it is in `old`, absent if it is absent there.
pub(in crate::kinds) fn carry_over(object: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => {
            map_mut(object).insert(field.to_owned(), value.clone());
        }
        None => remove(object, field),
    }
}

/// Upstream's `ValidateImmutableField`.
pub(in crate::kinds) fn immutable(new: &Value, old: &Value, path: &Path) -> ErrorList {
    if semantically_equal(new, old) { ErrorList::new() } else { vec![Error::invalid(path, new.clone(), IMMUTABLE)] }
}

/// What is said of a change to a field that can't change.
pub(in crate::kinds) const IMMUTABLE: &str = "field is immutable";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_empty_collection_equals_an_absent_one() {
        assert!(semantically_equal(&json!({"a": [], "b": {"c": {}}, "d": ""}), &json!({})));
        assert!(semantically_equal(&json!({"a": [{"b": null}]}), &json!({"a": [{}]})));
        assert!(!semantically_equal(&json!({"a": 0}), &json!({})), "a pointer to zero is not nil");
        assert!(!semantically_equal(&json!({"a": [1]}), &json!({"a": [2]})));
        assert!(!semantically_equal(&json!({"a": {"b": 1}}), &json!({})));
    }

    #[test]
    fn filling_leaves_what_is_there() {
        let mut value = json!({"spec": {"a": 1, "b": null, "c": ""}});
        fill(&mut value["spec"], "a", 2);
        fill(&mut value["spec"], "b", 2);
        fill_text(&mut value["spec"], "c", "x");
        fill(&mut value["status"], "d", false);
        assert_eq!(value, json!({"spec": {"a": 1, "b": 2, "c": "x"}, "status": {"d": false}}));
    }
}
