//! Whether an applied object fits its schema, which is asked before it is merged (sigs.k8s.io/structured-merge-diff, typed/validate.go, whose words these are).

use std::collections::HashSet;

use serde_json::Value;

use super::element;
use super::shape::{Entries, Node, Shape, set_item};
use crate::schema::Type;

/// What does not fit, joined as upstream joins it; `None` when everything does.
pub(super) fn check(node: Node<'_>, object: &Value) -> Option<String> {
    let mut errors = Vec::new();
    visit(node, object, "", &mut errors);
    match errors.len() {
        0 => None,
        1 => errors.pop(),
        _ => Some(format!("errors:\n  {}", errors.join("\n  "))),
    }
}

fn visit(node: Node<'_>, value: &Value, path: &str, errors: &mut Vec<String>) {
    if value.is_null() {
        return;
    }
    let mut fail = |why: String| errors.push(if path.is_empty() { why } else { format!("{path}: {why}") });
    match node.type_() {
        Type::String | Type::Bytes if !value.is_string() => fail(format!("expected string, got {}", go_syntax(value))),
        Type::Bool if !value.is_boolean() => fail(format!("expected boolean, got &{{{}}}", go(value))),
        Type::Int32 | Type::Int64 | Type::Float if !value.is_number() => {
            fail(format!("expected numeric (int or float), got {}", go_type(value)));
        }
        Type::Time | Type::MicroTime | Type::Quantity | Type::IntOrString if value.is_object() || value.is_array() => {
            fail(format!("expected any scalar, got &{{{}}}", go(value)));
        }
        Type::List(_) if !value.is_array() => fail(format!("expected list, got &{{{}}}", go(value))),
        Type::Struct(_) | Type::Map(_) if !value.is_object() => fail(format!("expected map, got &{{{}}}", go(value))),
        Type::Struct(_) | Type::Map(_) | Type::List(_) | Type::Raw | Type::SchemaOr(..) => {
            below(node, value, path, errors)
        }
        Type::String
        | Type::Bytes
        | Type::Bool
        | Type::Int32
        | Type::Int64
        | Type::Float
        | Type::Time
        | Type::MicroTime
        | Type::Quantity
        | Type::IntOrString => {}
    }
}

fn below(node: Node<'_>, value: &Value, path: &str, errors: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let Some(entries) = node.entries() else { return };
            for (key, value) in fields {
                let path = format!("{path}.{key}");
                match (entries, entries.get(key)) {
                    (Entries::Struct(_, of), (_, false)) if of.rest.is_none() => {
                        errors.push(format!("{path}: field not declared in schema"))
                    }
                    (_, (node, _)) => visit(node, value, &path, errors),
                }
            }
        }
        Value::Array(items) => {
            let shape = node.shape(value);
            let mut seen = HashSet::new();
            for (at, item) in items.iter().enumerate() {
                let (node, element) = match shape {
                    Shape::Keyed(keys, node) => (node, node.key_of(keys, item)),
                    Shape::Set(node) => (node, set_item(item)),
                    _ => (node.descend(""), Ok(format!("i:{at}"))),
                };
                let element = match element {
                    Ok(element) => element,
                    Err(why) => {
                        errors.push(prefixed(path, &format!("element {at}: {why}")));
                        return;
                    }
                };
                let shown = element::display(&element);
                if !seen.insert(element) {
                    errors.push(prefixed(path, &format!("duplicate entries for key {shown}")));
                }
                visit(node, item, &format!("{path}{shown}"), errors);
            }
        }
        _ => {}
    }
}

fn prefixed(path: &str, why: &str) -> String {
    if path.is_empty() { why.to_owned() } else { format!("{path}: {why}") }
}

/// `%v`
fn go(value: &Value) -> String {
    crate::patch::go_value(value)
}

/// `%T`
fn go_type(value: &Value) -> &'static str {
    crate::patch::go_type_of(value)
}

/// `%#v` of upstream's wrapper of a value.
fn go_syntax(value: &Value) -> String {
    let inner = match value {
        Value::String(text) => format!("{text:?}"),
        other => go(other),
    };
    format!("&value.valueUnstructured{{Value:{inner}}}")
}
