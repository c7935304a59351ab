//! Fits a set of fields to a schema that has changed since: what is atomic now is owned whole (sigs.k8s.io/structured-merge-diff, typed/reconcile_schema.go).

use serde_json::{Map, Value};

use super::fields::{Fields, entries, has_children, is_member, put};
use super::shape::{Node, Shape};
use crate::schema::Type;

type Tree = Map<String, Value>;

/// The set as the schema has it now; `None` where it fits already.
pub(super) fn reconcile(node: Node<'_>, fields: &Fields) -> Option<Fields> {
    let mut changed = false;
    let tree = below(node, fields.tree(), &mut changed);
    changed.then(|| Fields::from_tree(tree))
}

fn below(node: Node<'_>, tree: &Tree, changed: &mut bool) -> Tree {
    let mut out = Tree::new();
    for (element, children) in entries(tree) {
        let node = node.descend(element);
        if has_children(children) && is_atomic(node) {
            *changed = true;
            put(&mut out, element.clone(), true, Tree::new());
            continue;
        }
        put(&mut out, element.clone(), is_member(children), below(node, children, changed));
    }
    out
}

/// Whether the graph says that what is here is one leaf. Of what it does not know it says nothing.
fn is_atomic(node: Node<'_>) -> bool {
    let sample = match node.type_() {
        Type::List(_) => Value::Array(Vec::new()),
        Type::Struct(_) | Type::Map(_) => Value::Object(Map::new()),
        _ => return false,
    };
    matches!(node.shape(&sample), Shape::AtomicList | Shape::AtomicMap)
}
