//! Puts an applied object over a live one (sigs.k8s.io/structured-merge-diff, typed/merge.go).
//!
//! Nothing is taken away here. Items of a list are in the applied order, with those that only the live list has kept where they were between them.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::{Map, Value};

use super::shape::{Entries, Node, Shape, set_item};

/// The live object with what the applied one says; `None` where both are empty.
///
/// # Errors
/// Items of the applied list that can't be told apart, in upstream's words.
pub fn merge(node: Node<'_>, live: Option<&Value>, applied: Option<&Value>) -> Result<Option<Value>, String> {
    let shape = match (live, applied) {
        (None, None) => return Ok(None),
        (Some(value), None) | (None, Some(value)) => node.shape(value),
        // The applied value decides what the outcome is.
        (Some(_), Some(applied)) => node.shape(applied),
    };
    let no_items = |value: Option<&Value>| value.and_then(Value::as_array).is_none_or(Vec::is_empty);
    let no_entries = |value: Option<&Value>| value.and_then(Value::as_object).is_none_or(Map::is_empty);
    match shape {
        Shape::Map(entries) if !(no_entries(live) && no_entries(applied)) => {
            maps(entries, live.and_then(Value::as_object), applied.and_then(Value::as_object))
        }
        Shape::Keyed(keys, item) if !(no_items(live) && no_items(applied)) => {
            lists(item, live, applied, &|value| item.key_of(keys, value))
        }
        Shape::Set(item) if !(no_items(live) && no_items(applied)) => lists(item, live, applied, &set_item),
        Shape::Scalar | Shape::AtomicMap | Shape::AtomicList | Shape::Map(_) | Shape::Keyed(..) | Shape::Set(_) => {
            Ok(applied.or(live).cloned())
        }
    }
}

fn maps(
    entries: Entries<'_>,
    live: Option<&Map<String, Value>>,
    applied: Option<&Map<String, Value>>,
) -> Result<Option<Value>, String> {
    let empty = Map::new();
    let (live, applied) = (live.unwrap_or(&empty), applied.unwrap_or(&empty));
    let mut out = Map::new();
    for key in live.keys().chain(applied.keys().filter(|key| !live.contains_key(*key))) {
        let merged = match (live.get(key), applied.get(key)) {
            // What only the live object has stays as it is, to the last null.
            (Some(value), None) => Some(value.clone()),
            (live, applied) => merge(entries.get(key).0, live, applied)?,
        };
        if let Some(value) = merged {
            out.insert(key.clone(), value);
        }
    }
    Ok((!out.is_empty()).then_some(Value::Object(out)))
}

fn lists(
    node: Node<'_>,
    live: Option<&Value>,
    applied: Option<&Value>,
    element: &dyn Fn(&Value) -> Result<String, String>,
) -> Result<Option<Value>, String> {
    let items = |list: Option<&Value>| list.and_then(Value::as_array).cloned().unwrap_or_default();
    let (left, right) = (items(live), items(applied));
    let elements = |items: &[Value]| -> Result<Vec<String>, String> {
        items.iter().enumerate().map(|(at, item)| element(item).map_err(|why| format!("element {at}: {why}"))).collect()
    };
    let (left_elements, right_elements) = (elements(&left)?, elements(&right)?);
    let mut applied_items: HashMap<&str, &Value> = HashMap::new();
    for (element, item) in right_elements.iter().zip(&right) {
        if applied_items.insert(element, item).is_some() {
            return Err(format!("duplicate entries for key {}", super::element::display(element)));
        }
    }
    // Live items of one key are not merged with an applied one: it takes the place of all of them.
    let mut live_items: HashMap<&str, Option<&Value>> = HashMap::new();
    for (element, item) in left_elements.iter().zip(&left) {
        live_items.entry(element).and_modify(|found| *found = None).or_insert(Some(item));
    }
    let mut shared: VecDeque<&str> =
        right_elements.iter().map(String::as_str).filter(|element| live_items.contains_key(element)).collect();
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    let mut done: HashSet<&str> = HashSet::new();
    let combine = |out: &mut Vec<Value>, element: &str| -> Result<(), String> {
        let applied = applied_items.get(element).copied();
        out.extend(merge(node, live_items.get(element).copied().flatten(), applied)?);
        Ok(())
    };
    let (mut l, mut r) = (0, 0);
    while l < left.len() || r < right.len() {
        if l < left.len() && r < right.len() {
            let element = left_elements[l].as_str();
            if element == right_elements[r] {
                combine(&mut out, element)?;
                done.insert(element);
                shared.pop_front();
                (l, r) = (l + 1, r + 1);
                continue;
            }
            if applied_items.contains_key(element) && shared.front().is_some_and(|next| *next != element) {
                // It comes later in the applied order.
                l += 1;
                continue;
            }
        }
        if l < left.len() {
            let element = left_elements[l].as_str();
            if !applied_items.contains_key(element) {
                out.push(left[l].clone());
                l += 1;
                continue;
            }
            if done.contains(element) {
                l += 1;
            }
        }
        if r < right.len() {
            let element = right_elements[r].as_str();
            combine(&mut out, element)?;
            done.insert(element);
            r += 1;
            if shared.front() == Some(&element) {
                shared.pop_front();
            }
        }
    }
    Ok((!out.is_empty()).then_some(Value::Array(out)))
}
