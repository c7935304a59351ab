//! Takes fields out of an object (sigs.k8s.io/structured-merge-diff, typed/remove.go).

use serde_json::{Map, Value};

use super::element;
use super::fields::{Fields, below, has_children, is_member};
use super::shape::{Node, Shape, set_item};

/// The object without those fields. What is atomic goes whole, or not at all.
pub(super) fn remove(node: Node<'_>, object: &Value, fields: &Fields) -> Value {
    if fields.is_empty() { object.clone() } else { without(node, object, fields.tree()) }
}

fn without(node: Node<'_>, value: &Value, fields: &Map<String, Value>) -> Value {
    match node.shape(value) {
        Shape::Scalar => value.clone(),
        // Something of it was owned apart from the rest once, and is no longer.
        Shape::AtomicMap | Shape::AtomicList => Value::Null,
        Shape::Map(entries) => {
            let kept: Map<String, Value> = value
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(key, value)| {
                    let Some(below) = below(fields, &element::field(key)) else {
                        return Some((key.clone(), value.clone()));
                    };
                    if is_member(below) {
                        return None;
                    }
                    Some((key.clone(), without(entries.get(key).0, value, below)))
                })
                .collect();
            if kept.is_empty() { Value::Null } else { Value::Object(kept) }
        }
        Shape::Set(item) => items(item, value, fields, &set_item),
        Shape::Keyed(keys, item) => items(item, value, fields, &|value| item.key_of(keys, value)),
    }
}

fn items(
    node: Node<'_>,
    list: &Value,
    fields: &Map<String, Value>,
    element: &dyn Fn(&Value) -> Result<String, String>,
) -> Value {
    let mut kept = Vec::new();
    for item in list.as_array().into_iter().flatten() {
        match element(item).ok().and_then(|element| below(fields, &element)) {
            Some(below) if is_member(below) => {}
            Some(below) if has_children(below) => kept.push(without(node, item, below)),
            _ => kept.push(item.clone()),
        }
    }
    if kept.is_empty() { Value::Null } else { Value::Array(kept) }
}
