//! Which fields an object names: what an applier owns (sigs.k8s.io/structured-merge-diff, typed/tofieldset.go).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element;
use super::fields::{Fields, put};
use super::shape::{Node, Shape, set_item};

type Tree = Map<String, Value>;

/// Every leaf and every item that an object names.
pub(super) fn fields_of(node: Node<'_>, object: &Value) -> Fields {
    Fields::from_tree(of(node, object).1)
}

/// Whether a value's own path is a member, and what is below it.
fn of(node: Node<'_>, value: &Value) -> (bool, Tree) {
    match node.shape(value) {
        Shape::Scalar | Shape::AtomicMap | Shape::AtomicList => (true, Tree::new()),
        Shape::Map(entries) => {
            let mut out = Tree::new();
            for (key, value) in value.as_object().into_iter().flatten() {
                let (node, declared) = entries.get(key);
                let (member, below) = of(node, value);
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                put(&mut out, element::field(key), member || empty || !declared, below);
            }
            (false, out)
        }
        Shape::Set(item) => (false, items(item, value, &set_item)),
        Shape::Keyed(keys, item) => (false, items(item, value, &|value| item.key_of(keys, value))),
    }
}

fn items(node: Node<'_>, list: &Value, element: &dyn Fn(&Value) -> Result<String, String>) -> Tree {
    let mut found: BTreeMap<String, &Value> = BTreeMap::new();
    let mut doubled = BTreeSet::new();
    for item in list.as_array().into_iter().flatten() {
        let Ok(element) = element(item) else { continue };
        if found.insert(element.clone(), item).is_some() {
            doubled.insert(element);
        }
    }
    let mut out = Tree::new();
    for (element, item) in found {
        // Of items with one key, none can be told from the other: what is in them is nobody's.
        let below = if doubled.contains(&element) { Tree::new() } else { of(node, item).1 };
        put(&mut out, element, true, below);
    }
    out
}

/// Adds every declared field that has something below it: what is needed to take a field away once nothing is left in it.
pub(super) fn with_named_fields(node: Node<'_>, fields: &Fields) -> Fields {
    Fields::from_tree(named(node, fields.tree()))
}

fn named(node: Node<'_>, tree: &Tree) -> Tree {
    let mut out = Tree::new();
    for (element, below) in super::fields::entries(tree) {
        let member = super::fields::is_member(below) || node.declares(element);
        put(&mut out, element.clone(), member, named(node.descend(element), below));
    }
    out
}
