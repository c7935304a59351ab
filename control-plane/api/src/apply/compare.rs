//! What differs between two objects, by field (sigs.k8s.io/structured-merge-diff, typed/compare.go).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element;
use super::fields::{Fields, put};
use super::shape::{Entries, Node, Shape, equal, set_item};

type Tree = Map<String, Value>;

/// Which of two objects are as Go's structs show them: with every struct that is not behind a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// Both, as in an update: zero values that `omitempty` leaves out are not there either.
    Both,
    /// The first, and the second as far as it was merged from it.
    Merged,
    /// Neither: both are as they are written.
    Plain,
}

/// The fields that differ. No field is in two of the sets.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Comparison {
    pub(super) added: Fields,
    pub(super) modified: Fields,
    pub(super) removed: Fields,
}

impl Comparison {
    pub(super) fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Forgets fields, and what is below them.
    pub(super) fn ignore(&mut self, fields: &Fields) {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.subtract_recursively(fields);
        }
    }
}

/// Compares two objects of a type.
pub(super) fn compare(node: Node<'_>, old: &Value, new: &Value, view: View) -> Comparison {
    let found = Walk { view }.compare(node, Some(old), Some(new));
    Comparison {
        added: Fields::from_tree(found.added.below),
        modified: Fields::from_tree(found.modified.below),
        removed: Fields::from_tree(found.removed.below),
    }
}

/// What a set has at one element.
#[derive(Default)]
struct Part {
    member: bool,
    below: Tree,
}

#[derive(Default)]
struct Found {
    added: Part,
    modified: Part,
    removed: Part,
}

impl Found {
    /// Takes in what was found below an element.
    fn put(&mut self, element: &str, found: Self) {
        for (into, part) in
            [(&mut self.added, found.added), (&mut self.modified, found.modified), (&mut self.removed, found.removed)]
        {
            if part.member || !part.below.is_empty() {
                put(&mut into.below, element.to_owned(), part.member, part.below);
            }
        }
    }
}

/// How an object is shown that has nothing to be compared with: all of it comes, or goes.
#[derive(Clone, Copy)]
struct Shown {
    /// Structs that are always there are, even if they are not written.
    always: bool,
    /// What `omitempty` leaves out is not there, even if it is written.
    omitted: bool,
}

impl Shown {
    /// Everything below a value that is a member itself.
    fn all(self, node: Node<'_>, value: &Value) -> Tree {
        let mut out = Tree::new();
        match node.shape(value) {
            Shape::Map(entries) => {
                let Some(fields) = value.as_object().filter(|fields| !fields.is_empty()) else { return out };
                for (key, value) in fields {
                    let slot = entries.slot(key);
                    if !self.omitted || slot.shown(Some(value)).is_some() {
                        put(&mut out, element::field(key), true, self.all(slot.node, value));
                    }
                }
                if self.always {
                    for name in entries.structs().filter(|name| !fields.contains_key(*name)) {
                        put(&mut out, element::field(name), true, Tree::new());
                    }
                }
            }
            Shape::Keyed(keys, item) => self.items(item, value, &|value| item.key_of(keys, value), &mut out),
            Shape::Set(item) => self.items(item, value, &set_item, &mut out),
            Shape::Scalar | Shape::AtomicMap | Shape::AtomicList => {}
        }
        out
    }

    fn items(self, node: Node<'_>, list: &Value, element: &dyn Fn(&Value) -> Result<String, String>, out: &mut Tree) {
        for (element, items) in index(list, element) {
            let below = if let [only] = items.as_slice() { self.all(node, only) } else { Tree::new() };
            put(out, element, true, below);
        }
    }
}

struct Walk {
    view: View,
}

impl Walk {
    fn compare(&self, node: Node<'_>, old: Option<&Value>, new: Option<&Value>) -> Found {
        let mut found = Found::default();
        match (old, new) {
            (None, None) => {}
            (None, Some(value)) => {
                let shown = Shown { always: self.view == View::Both, omitted: self.view == View::Both };
                found.added = Part { member: true, below: shown.all(node, value) };
            }
            (Some(value), None) => {
                let shown = Shown { always: self.view != View::Plain, omitted: self.view == View::Both };
                found.removed = Part { member: true, below: shown.all(node, value) };
            }
            (Some(before), Some(after)) => {
                let (old_shape, new_shape) = (node.shape(before), node.shape(after));
                // A value of another type than before, where anything goes, is compared as both.
                if std::mem::discriminant(&old_shape) != std::mem::discriminant(&new_shape) {
                    self.at(old_shape, before, after, &mut found);
                }
                self.at(new_shape, before, after, &mut found);
            }
        }
        found
    }

    /// Compares what is in here.
    fn at(&self, shape: Shape<'_>, old: &Value, new: &Value, found: &mut Found) {
        let no_items = |value: &Value| value.as_array().is_none_or(Vec::is_empty);
        let no_entries = |value: &Value| value.as_object().is_none_or(Map::is_empty);
        match shape {
            Shape::Map(entries) if !(no_entries(old) && no_entries(new)) => {
                self.entries(entries, old.as_object(), new.as_object(), found);
            }
            Shape::Keyed(keys, item) if !(no_items(old) && no_items(new)) => {
                if old != new {
                    self.items(item, old, new, &|value| item.key_of(keys, value), found);
                }
            }
            Shape::Set(item) if !(no_items(old) && no_items(new)) => {
                if old != new {
                    self.items(item, old, new, &set_item, found);
                }
            }
            Shape::Scalar | Shape::AtomicMap | Shape::AtomicList | Shape::Map(_) | Shape::Keyed(..) | Shape::Set(_) => {
                found.modified.member |= !equal(old, new)
            }
        }
    }

    fn entries(&self, entries: Entries<'_>, old: Option<&Tree>, new: Option<&Tree>, found: &mut Found) {
        let empty = Tree::new();
        let (before, after) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
        let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
        for key in keys {
            let slot = entries.slot(key);
            let (raw_old, raw_new) = (before.get(key), after.get(key));
            // Most of an object is as it was, and its parts are large: to tell so at once is cheaper than to walk through them.
            if raw_old == raw_new {
                continue;
            }
            let (l, r) = match self.view {
                View::Plain => (raw_old, raw_new),
                View::Both => (old.and_then(|_| slot.shown(raw_old)), new.and_then(|_| slot.shown(raw_new))),
                // What the merge took over of the first is as it is there.
                View::Merged => (
                    raw_old.or_else(|| old.and_then(|_| slot.always())),
                    raw_new.or_else(|| old.and(new).and_then(|_| slot.always())),
                ),
            };
            let below = self.compare(slot.node, l, r);
            found.put(&element::field(key), below);
        }
    }

    fn items(
        &self,
        node: Node<'_>,
        old: &Value,
        new: &Value,
        element: &dyn Fn(&Value) -> Result<String, String>,
        found: &mut Found,
    ) {
        let (before, after) = (index(old, element), index(new, element));
        for element in before.keys().chain(after.keys().filter(|element| !before.contains_key(*element))) {
            let count = |index: &BTreeMap<String, Vec<&Value>>| index.get(element).map_or(0, Vec::len);
            let mut at = Found::default();
            match (count(&before), count(&after)) {
                (0 | 1, 0 | 1) => at = self.compare(node, first_of(&before, element), first_of(&after, element)),
                // Items of one key are compared as if they were one.
                (2.., 2..) => at.modified.member = before.get(element) != after.get(element),
                (2.., _) => {
                    if let Some(item) = first_of(&after, element) {
                        at = self.compare(node, None, Some(item));
                    }
                    at.removed.member = true;
                }
                (_, 2..) => {
                    if let Some(item) = first_of(&before, element) {
                        at = self.compare(node, Some(item), None);
                    }
                    at.added.member = true;
                }
            }
            found.put(element, at);
        }
    }
}

/// The items of a list by their elements; an item that has none is left out, as nobody can own it.
fn index<'a>(list: &'a Value, element: &dyn Fn(&Value) -> Result<String, String>) -> BTreeMap<String, Vec<&'a Value>> {
    let mut out: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for item in list.as_array().into_iter().flatten() {
        if let Ok(element) = element(item) {
            out.entry(element).or_default().push(item);
        }
    }
    out
}

fn first_of<'a>(index: &BTreeMap<String, Vec<&'a Value>>, element: &str) -> Option<&'a Value> {
    index.get(element).and_then(|items| items.first().copied())
}
