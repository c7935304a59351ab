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
    /// A leaf, or something that is compared as one.
    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        match (old, new) {
            (None, _) => self.added.member = true,
            (_, None) => self.removed.member = true,
            (Some(old), Some(new)) => self.modified.member |= !equal(old, new),
        }
    }

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

struct Walk {
    view: View,
}

impl Walk {
    fn compare(&self, node: Node<'_>, old: Option<&Value>, new: Option<&Value>) -> Found {
        let mut found = Found::default();
        let in_leaf = match (old, new) {
            (None, None) => return found,
            (Some(value), None) | (None, Some(value)) => self.at(node.shape(value), old, new, &mut found),
            (Some(before), Some(after)) => {
                let (old_shape, new_shape) = (node.shape(before), node.shape(after));
                if std::mem::discriminant(&old_shape) == std::mem::discriminant(&new_shape) {
                    self.at(new_shape, old, new, &mut found)
                } else {
                    // A value of another type than before, where anything goes: it is compared as both.
                    self.at(old_shape, old, new, &mut found);
                    self.at(new_shape, old, new, &mut found)
                }
            }
        };
        if !in_leaf {
            found.added.member |= old.is_none();
            found.removed.member |= new.is_none();
        }
        found
    }

    /// Compares what is in here; `true` if it is one leaf.
    fn at(&self, shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>, found: &mut Found) -> bool {
        let no_items = |value: Option<&Value>| value.and_then(Value::as_array).is_none_or(Vec::is_empty);
        let no_entries = |value: Option<&Value>| value.and_then(Value::as_object).is_none_or(Map::is_empty);
        match shape {
            Shape::Map(entries) if !(no_entries(old) && no_entries(new)) => {
                self.entries(entries, old.and_then(Value::as_object), new.and_then(Value::as_object), found);
                false
            }
            Shape::Keyed(keys, item) if !(no_items(old) && no_items(new)) => {
                if old != new {
                    self.items(item, old, new, &|value| item.key_of(keys, value), found);
                }
                false
            }
            Shape::Set(item) if !(no_items(old) && no_items(new)) => {
                if old != new {
                    self.items(item, old, new, &set_item, found);
                }
                false
            }
            Shape::Scalar | Shape::AtomicMap | Shape::AtomicList | Shape::Map(_) | Shape::Keyed(..) | Shape::Set(_) => {
                found.leaf(old, new);
                true
            }
        }
    }

    fn entries(&self, entries: Entries<'_>, old: Option<&Tree>, new: Option<&Tree>, found: &mut Found) {
        let empty = Tree::new();
        let (before, after) = (old.unwrap_or(&empty), new.unwrap_or(&empty));
        let keys = before.keys().chain(after.keys().filter(|key| !before.contains_key(*key)));
        for key in keys {
            let (node, _) = entries.get(key);
            let (l, r) = match self.view {
                View::Plain => (before.get(key), after.get(key)),
                View::Both => {
                    (old.and_then(|old| entries.shown(old, key)), new.and_then(|new| entries.shown(new, key)))
                }
                // What the merge took over of the first is as it is there.
                View::Merged => (
                    before.get(key).or_else(|| old.and_then(|_| entries.always(key))),
                    after.get(key).or_else(|| old.and(new).and_then(|_| entries.always(key))),
                ),
            };
            let below = self.compare(node, l, r);
            found.put(&element::field(key), below);
        }
        // Of a struct that comes or goes, those within it that are always there do as well.
        let only = match (old, new) {
            (Some(only), None) if self.view != View::Plain => only,
            (None, Some(only)) if self.view == View::Both => only,
            _ => return,
        };
        for key in entries.all_always().filter(|key| !only.contains_key(*key)) {
            let empty = entries.always(key);
            let below = self.compare(entries.get(key).0, old.and(empty), new.and(empty));
            found.put(&element::field(key), below);
        }
    }

    fn items(
        &self,
        node: Node<'_>,
        old: Option<&Value>,
        new: Option<&Value>,
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
fn index<'a>(
    list: Option<&'a Value>,
    element: &dyn Fn(&Value) -> Result<String, String>,
) -> BTreeMap<String, Vec<&'a Value>> {
    let mut out: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for item in list.and_then(Value::as_array).into_iter().flatten() {
        if let Ok(element) = element(item) {
            out.entry(element).or_default().push(item);
        }
    }
    out
}

fn first_of<'a>(index: &BTreeMap<String, Vec<&'a Value>>, element: &str) -> Option<&'a Value> {
    index.get(element).and_then(|items| items.first().copied())
}
