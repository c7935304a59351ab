//! The order of a merged list: what the patch names in the patch's order, what only the server has in the server's, the two woven together by where
//! things stood before (`normalizeElementOrder`).

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{MAP, Refusal};

/// Splits merged items into those that a list names and the others.
pub(super) fn partition(
    merged: Vec<Value>,
    named: &[Value],
    key: Option<&str>,
) -> Result<(Vec<Value>, Vec<Value>), Refusal> {
    let names: HashSet<&Value> = named.iter().filter_map(|item| id(item, key)).collect();
    if let (Some(_), false) = (key, merged.is_empty())
        && let Some(at) = named.iter().position(|item| !item.is_object())
    {
        return Err(Refusal::Other(format!("value for key {at} is not a map")));
    }
    for item in &merged {
        checked(item, key)?;
    }
    Ok(merged.into_iter().partition(|item| id(item, key).is_some_and(|id| names.contains(id))))
}

/// Sorts the named items by `order`, the others as they stood `before`, and inserts these among those where they stood.
pub(super) fn arrange(
    mut named: Vec<Value>,
    mut others: Vec<Value>,
    order: &[Value],
    before: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, Refusal> {
    for item in order.iter().chain(before) {
        checked(item, key)?;
    }
    let ordered = places(order, key);
    let stood = places(before, key);
    let place = |places: &HashMap<&Value, usize>, item: &Value| id(item, key).and_then(|id| places.get(id).copied());
    named.sort_by_key(|item| place(&ordered, item).unwrap_or(usize::MAX));
    others.sort_by_key(|item| place(&stood, item).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let at = place(&stood, &item);
        // `mergeSortedSlice`: one goes first only if both stood there, and it stood before.
        while let Some(other) = others.peek()
            && let (Some(other), Some(at)) = (place(&stood, other), at)
            && other < at
        {
            out.extend(others.next());
        }
        out.push(item);
    }
    out.extend(others);
    Ok(out)
}

fn id<'a>(item: &'a Value, key: Option<&str>) -> Option<&'a Value> {
    match key {
        None => Some(item),
        Some(key) => item.get(key),
    }
}

fn places<'a>(items: &'a [Value], key: Option<&str>) -> HashMap<&'a Value, usize> {
    let mut out = HashMap::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        if let Some(id) = id(item, key) {
            out.entry(id).or_insert(at);
        }
    }
    out
}

/// `validateMergeKeyInLists`
fn checked(item: &Value, key: Option<&str>) -> Result<(), Refusal> {
    let Some(key) = key else { return Ok(()) };
    let Value::Object(fields) = item else { return Err(Refusal::bad_type(MAP, item)) };
    if fields.contains_key(key) { Ok(()) } else { Err(Refusal::no_merge_key(fields, key)) }
}
