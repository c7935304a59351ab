//! Sets of fields in the form in which `managedFields` holds them (FieldsV1, sigs.k8s.io/structured-merge-diff fieldpath/set.go), and their algebra.
//!
//! The set is the JSON: an entry is a path element, its value what is below it, and `.` says that the element itself is a member as well. So what is stored
//! needs no parsing, a write that touches nothing of a manager's leaves its entry as it is, and printing is free. JSON objects are in order of their keys
//! here, which is upstream's order but for numbers in list keys.
//! Invariant: an empty object is a member; an element that is no member has something below it. Elements are in canonical form (`element`).

use serde_json::{Map, Value};

use super::element;

type Tree = Map<String, Value>;
const SELF: &str = ".";

/// A set of fields of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(Tree);

impl Fields {
    /// Reads what a client sent as `fieldsV1`.
    ///
    /// # Errors
    /// What is no set of fields, told in a sentence.
    pub fn parse(given: &Value) -> Result<Self, String> {
        match given {
            Value::Null => Ok(Self::default()),
            Value::Object(tree) => {
                // An empty set says nothing, and a `.` at the root names the whole object, which is nobody's.
                let mut read = parse(tree)?;
                read.remove(SELF);
                Ok(Self(read))
            }
            other => Err(format!("expected an object of fields, got {}", crate::patch::json_kind(other))),
        }
    }

    /// Takes what this server stored: it is canonical already.
    #[must_use]
    pub fn stored(value: Value) -> Self {
        match value {
            Value::Object(tree) => Self(tree),
            _ => Self::default(),
        }
    }

    /// A set of paths of named fields.
    #[must_use]
    pub fn named(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let mut at = &mut set.0;
            let mut fresh = false;
            for (depth, name) in path.iter().enumerate() {
                let entry = at.entry(element::field(name)).or_insert_with(|| {
                    fresh = true;
                    Value::Object(Tree::new())
                });
                let below = entry.as_object_mut().expect("only objects are put into sets");
                let last = depth + 1 == path.len();
                if !fresh && last != below.is_empty() {
                    below.insert(SELF.to_owned(), Value::Object(Tree::new()));
                }
                at = below;
            }
        }
        set
    }

    pub(super) fn from_tree(tree: Tree) -> Self {
        Self(tree)
    }

    pub(super) fn tree(&self) -> &Tree {
        &self.0
    }

    /// The `fieldsV1` of an entry.
    #[must_use]
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a path of elements is in it.
    #[must_use]
    pub fn contains(&self, path: &[&str]) -> bool {
        let mut at = &self.0;
        for element in path {
            match below(at, element) {
                Some(tree) => at = tree,
                None => return false,
            }
        }
        !path.is_empty() && is_member(at)
    }

    /// Adds everything of another set.
    pub fn add(&mut self, other: &Self) {
        add(&mut self.0, &other.0);
    }

    /// Takes out what is in another set; what is below a member of it stays.
    pub fn subtract(&mut self, other: &Self) {
        if !other.is_empty() {
            subtract(&mut self.0, &other.0);
        }
    }

    /// Takes out what is in another set, with everything below it.
    pub fn subtract_recursively(&mut self, other: &Self) {
        if !other.is_empty() {
            subtract_recursively(&mut self.0, &other.0);
        }
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(intersection(&self.0, &other.0))
    }

    /// Only what has nothing below it.
    #[must_use]
    pub fn leaves(&self) -> Self {
        Self(leaves(&self.0))
    }

    /// Every member's path as people read it, in upstream's order: members before what is below them.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        paths(&self.0, "", &mut out);
        out
    }
}

/// What is below an element.
pub(super) fn below<'a>(tree: &'a Tree, element: &str) -> Option<&'a Tree> {
    if element == SELF { None } else { tree.get(element).and_then(Value::as_object) }
}

/// The elements of a set with what is below each.
pub(super) fn entries(tree: &Tree) -> impl Iterator<Item = (&String, &Tree)> {
    tree.iter()
        .filter(|(element, _)| *element != SELF)
        .filter_map(|(element, value)| Some((element, value.as_object()?)))
}

/// Whether an element is a member, by what is below it.
pub(super) fn is_member(below: &Tree) -> bool {
    below.is_empty() || below.contains_key(SELF)
}

/// Whether anything is below an element.
pub(super) fn has_children(below: &Tree) -> bool {
    below.len() > usize::from(below.contains_key(SELF))
}

/// Puts an element, unless it is neither a member nor has anything below it.
pub(super) fn put(tree: &mut Tree, element: String, member: bool, mut children: Tree) {
    if children.is_empty() {
        if member {
            tree.insert(element, Value::Object(children));
        }
        return;
    }
    if member {
        children.insert(SELF.to_owned(), Value::Object(Tree::new()));
    }
    tree.insert(element, Value::Object(children));
}

fn parse(given: &Tree) -> Result<Tree, String> {
    let mut out = Tree::new();
    for (text, value) in given {
        if text == SELF {
            out.insert(SELF.to_owned(), Value::Object(Tree::new()));
            continue;
        }
        let Some(element) = element::normalize(text)? else { continue };
        let Value::Object(tree) = value else {
            return Err(format!("expected an object below {text:?}, got {}", crate::patch::json_kind(value)));
        };
        let mut children = parse(tree)?;
        let member = is_member(&children);
        children.remove(SELF);
        // Two spellings of one element are one.
        let mut single = Tree::new();
        put(&mut single, element, member, children);
        add(&mut out, &single);
    }
    Ok(out)
}

fn add(to: &mut Tree, from: &Tree) {
    for (element, theirs) in entries(from) {
        let Some(ours) = to.get_mut(element).and_then(Value::as_object_mut) else {
            to.insert(element.clone(), Value::Object(theirs.clone()));
            continue;
        };
        let member = is_member(ours) || is_member(theirs);
        ours.remove(SELF);
        add(ours, theirs);
        if member && !ours.is_empty() {
            ours.insert(SELF.to_owned(), Value::Object(Tree::new()));
        }
    }
}

fn subtract(from: &mut Tree, what: &Tree) {
    from.retain(|element, value| {
        let (Some(theirs), Some(ours)) = (below(what, element), value.as_object_mut()) else { return true };
        let member = is_member(ours) && !is_member(theirs);
        ours.remove(SELF);
        subtract(ours, theirs);
        if ours.is_empty() {
            return member;
        }
        if member {
            ours.insert(SELF.to_owned(), Value::Object(Tree::new()));
        }
        true
    });
}

fn subtract_recursively(from: &mut Tree, what: &Tree) {
    from.retain(|element, value| {
        let (Some(theirs), Some(ours)) = (below(what, element), value.as_object_mut()) else { return true };
        if is_member(theirs) {
            return false;
        }
        let member = is_member(ours);
        ours.remove(SELF);
        subtract_recursively(ours, theirs);
        if ours.is_empty() {
            return member;
        }
        if member {
            ours.insert(SELF.to_owned(), Value::Object(Tree::new()));
        }
        true
    });
}

fn intersection(a: &Tree, b: &Tree) -> Tree {
    let mut out = Tree::new();
    for (element, ours) in entries(a) {
        let Some(theirs) = below(b, element) else { continue };
        put(&mut out, element.clone(), is_member(ours) && is_member(theirs), intersection(ours, theirs));
    }
    out
}

fn leaves(tree: &Tree) -> Tree {
    let mut out = Tree::new();
    for (element, below) in entries(tree) {
        put(&mut out, element.clone(), !has_children(below), leaves(below));
    }
    out
}

fn paths(tree: &Tree, prefix: &str, out: &mut Vec<String>) {
    for (element, below) in entries(tree) {
        if is_member(below) {
            out.push(format!("{prefix}{}", element::display(element)));
        }
    }
    for (element, below) in entries(tree) {
        if has_children(below) {
            paths(below, &format!("{prefix}{}", element::display(element)), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn set(value: Value) -> Fields {
        Fields::parse(&value).unwrap()
    }

    /// Sets of up to three levels.
    fn any_set() -> impl Strategy<Value = Fields> {
        let element = prop_oneof![
            "[a-c]".prop_map(|name| element::field(&name)),
            "[a-c]".prop_map(|name| element::key(&[("name", &json!(name))])),
            (0..3i64).prop_map(|n| element::value(&json!(n))),
        ];
        let path = prop::collection::vec(element, 1..4);
        prop::collection::vec(path, 0..8).prop_map(|paths| {
            let mut set = Fields::default();
            for path in paths {
                let mut tree = Tree::new();
                for (depth, element) in path.into_iter().rev().enumerate() {
                    let mut outer = Tree::new();
                    put(&mut outer, element, depth == 0, tree);
                    tree = outer;
                }
                set.add(&Fields(tree));
            }
            set
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(a in any_set()) {
            prop_assert_eq!(Fields::parse(&a.clone().into_value()).unwrap(), a);
        }

        #[test]
        fn union_and_difference_are_those_of_sets_of_paths(a in any_set(), b in any_set()) {
            let paths = |set: &Fields| set.paths().into_iter().collect::<std::collections::BTreeSet<_>>();
            let mut union = a.clone();
            union.add(&b);
            prop_assert_eq!(paths(&union), &paths(&a) | &paths(&b));
            let mut difference = a.clone();
            difference.subtract(&b);
            prop_assert_eq!(paths(&difference), &paths(&a) - &paths(&b));
            prop_assert_eq!(paths(&a.intersection(&b)), &paths(&a) & &paths(&b));
            // And they keep the form: what they make can be read as itself.
            for made in [union, difference, a.intersection(&b), a.leaves()] {
                prop_assert_eq!(Fields::parse(&made.clone().into_value()).unwrap(), made);
            }
        }

        #[test]
        fn a_recursive_difference_leaves_nothing_below_what_it_took(a in any_set(), b in any_set()) {
            let mut rest = a.clone();
            rest.subtract_recursively(&b);
            let taken = b.paths();
            for path in rest.paths() {
                prop_assert!(taken.iter().all(|taken| !path.starts_with(taken.as_str())), "{path}");
            }
        }
    }

    #[test]
    fn a_member_that_loses_what_is_below_it_stays() {
        let mut a = set(json!({"f:labels": {".": {}, "f:a": {}}}));
        a.subtract(&set(json!({"f:labels": {"f:a": {}}})));
        assert_eq!(a, set(json!({"f:labels": {}})));
        a.subtract(&set(json!({"f:labels": {}})));
        assert!(a.is_empty());
    }

    #[test]
    fn taking_a_member_leaves_what_is_below_it() {
        let mut a = set(json!({"f:labels": {".": {}, "f:a": {}}}));
        a.subtract(&set(json!({"f:labels": {}})));
        assert_eq!(a.paths(), [".labels.a"]);
    }

    #[test]
    fn named_paths_make_members_and_only_those() {
        let set = Fields::named(&[&["metadata", "name"], &["metadata"], &["spec"], &["spec", "a"]]);
        assert_eq!(set.paths(), [".metadata", ".spec", ".metadata.name", ".spec.a"]);
        assert!(set.contains(&["f:spec", "f:a"]) && !set.contains(&["f:spec", "f:b"]) && !set.contains(&[]));
    }

    #[test]
    fn spellings_of_one_element_are_one_and_nonsense_is_refused() {
        let read =
            set(json!({"k:{\"a\":1,\"b\":2}": {"f:x": {}}, "k:{\"b\":2,\"a\":1}": {".": {}, "f:y": {}}, "q:1": {}}));
        assert_eq!(read.paths(), ["[a=1,b=2]", "[a=1,b=2].x", "[a=1,b=2].y"]);
        for bad in [json!({"a": {}}), json!({"f:a": 1}), json!([]), json!({"k:1": {}})] {
            assert!(Fields::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn leaves_have_nothing_below_them() {
        assert_eq!(set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}})).leaves().paths(), [".c", ".a.b"]);
    }
}
