//! The latest values: an ordered map whose copies are free.
//!
//! A B+ tree with shared nodes: cloning a [`Tree`] clones one pointer, and a change copies only the nodes on its path that another copy still
//! holds. So the writer changes its own copy while readers page through theirs without a lock, and a page of a list is the same however late it
//! is asked for. Inner nodes count what is below them, so "how many follow after this page" costs the height of the tree.
//!
//! Invariant: no I/O, no locks. Keys below the i-th child are at or above its `first` (but for the leftmost path) and below the next one's.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

/// Slots of a node. Wide enough for a low tree (four levels at a million keys), narrow enough that copying a path stays below 2 µs.
const WIDTH: usize = 32;
const NARROW: usize = WIDTH / 4;

/// A value of a key, and the write that made it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) revision: u64,
    /// Milliseconds since 1970 at which the key goes away; 0 for never.
    pub(crate) expires: u64,
}

/// An ordered map from keys to their [`Version`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    root: Option<Arc<Node>>,
    len: usize,
}

#[derive(Debug)]
enum Node {
    Leaf(Vec<Arc<Version>>),
    Inner(Vec<Child>),
}

#[derive(Clone, Debug)]
struct Child {
    first: Bytes,
    len: usize,
    node: Arc<Node>,
}

impl Tree {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Arc<Version>> {
        let mut node = self.root.as_deref()?;
        loop {
            match node {
                Node::Inner(children) => node = &children[child_of(children, key)].node,
                Node::Leaf(slots) => return slot_of(slots, key).ok().map(|at| &slots[at]),
            }
        }
    }

    /// Sets a key's version; returns the one before.
    pub(crate) fn insert(&mut self, version: Arc<Version>) -> Option<Arc<Version>> {
        let Some(root) = &mut self.root else {
            self.root = Some(Arc::new(Node::Leaf(vec![version])));
            self.len = 1;
            return None;
        };
        let (old, split) = insert(root, version);
        if old.is_none() {
            self.len += 1;
        }
        if let Some(right) = split {
            let left = Child { first: Bytes::new(), len: self.len - right.len, node: root.clone() };
            self.root = Some(Arc::new(Node::Inner(vec![left, right])));
        }
        old
    }

    /// Takes a key out; returns its version.
    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Arc<Version>> {
        // Looking first spares a copied path when there is nothing to take out.
        self.get(key)?;
        let root = self.root.as_mut()?;
        let old = remove(root, key);
        self.len -= 1;
        loop {
            let lower = match &**root {
                Node::Leaf(slots) if slots.is_empty() => None,
                Node::Inner(children) if children.is_empty() => None,
                Node::Inner(children) if children.len() == 1 => Some(children[0].node.clone()),
                Node::Leaf(_) | Node::Inner(_) => break,
            };
            match lower {
                Some(lower) => *root = lower,
                None => {
                    self.root = None;
                    break;
                }
            }
        }
        old
    }

    /// Up to `limit` versions (0: all) from `start`, below `end` (empty: no end), in key order.
    pub(crate) fn page(&self, start: Bound<&[u8]>, end: &[u8], limit: usize) -> Vec<Arc<Version>> {
        let mut page = Vec::new();
        if let Some(root) = &self.root {
            collect(root, start, end, if limit == 0 { usize::MAX } else { limit }, &mut page);
        }
        page
    }

    /// How many keys are below `key`.
    pub(crate) fn rank(&self, key: &[u8]) -> usize {
        let mut rank = 0;
        let Some(mut node) = self.root.as_deref() else { return 0 };
        loop {
            match node {
                Node::Inner(children) => {
                    let at = child_of(children, key);
                    rank += children[..at].iter().map(|child| child.len).sum::<usize>();
                    node = &children[at].node;
                }
                Node::Leaf(slots) => return rank + slot_of(slots, key).unwrap_or_else(|at| at),
            }
        }
    }
}

fn child_of(children: &[Child], key: &[u8]) -> usize {
    children.partition_point(|child| child.first[..] <= *key).saturating_sub(1)
}

fn slot_of(slots: &[Arc<Version>], key: &[u8]) -> Result<usize, usize> {
    slots.binary_search_by(|slot| slot.key[..].cmp(key))
}

fn insert(node: &mut Arc<Node>, version: Arc<Version>) -> (Option<Arc<Version>>, Option<Child>) {
    match Arc::make_mut(node) {
        Node::Leaf(slots) => match slot_of(slots, &version.key) {
            Ok(at) => (Some(std::mem::replace(&mut slots[at], version)), None),
            Err(at) => {
                let appended = at == slots.len();
                slots.insert(at, version);
                if slots.len() <= WIDTH {
                    return (None, None);
                }
                // Keys that come in order leave full nodes behind.
                let right = slots.split_off(if appended { WIDTH } else { WIDTH / 2 });
                let split = Child { first: right[0].key.clone(), len: right.len(), node: Arc::new(Node::Leaf(right)) };
                (None, Some(split))
            }
        },
        Node::Inner(children) => {
            let at = child_of(children, &version.key);
            let (old, split) = insert(&mut children[at].node, version);
            if old.is_none() {
                children[at].len += 1;
            }
            let Some(split) = split else { return (old, None) };
            children[at].len -= split.len;
            let appended = at + 1 == children.len();
            children.insert(at + 1, split);
            if children.len() <= WIDTH {
                return (old, None);
            }
            let right = children.split_off(if appended { WIDTH } else { WIDTH / 2 });
            let len = right.iter().map(|child| child.len).sum();
            (old, Some(Child { first: right[0].first.clone(), len, node: Arc::new(Node::Inner(right)) }))
        }
    }
}

fn remove(node: &mut Arc<Node>, key: &[u8]) -> Option<Arc<Version>> {
    match Arc::make_mut(node) {
        Node::Leaf(slots) => slot_of(slots, key).ok().map(|at| slots.remove(at)),
        Node::Inner(children) => {
            let at = child_of(children, key);
            let old = remove(&mut children[at].node, key)?;
            children[at].len -= 1;
            if children[at].len == 0 {
                children.remove(at);
            } else if children[at].node.slots() < NARROW {
                merge(children, at);
            }
            Some(old)
        }
    }
}

/// Joins a narrow child with a neighbour, if both fit in one node.
fn merge(children: &mut Vec<Child>, at: usize) {
    let width = children[at].node.slots();
    let left = if at + 1 < children.len() && children[at + 1].node.slots() + width <= WIDTH {
        at
    } else if at > 0 && children[at - 1].node.slots() + width <= WIDTH {
        at - 1
    } else {
        return;
    };
    let right = children.remove(left + 1);
    let child = &mut children[left];
    child.len += right.len;
    match (Arc::make_mut(&mut child.node), &*right.node) {
        (Node::Leaf(slots), Node::Leaf(more)) => slots.extend(more.iter().cloned()),
        (Node::Inner(slots), Node::Inner(more)) => {
            let joint = slots.len();
            slots.extend(more.iter().cloned());
            // On the leftmost path the first child's bound is not kept: inside a node it is the joint's.
            slots[joint].first = right.first;
        }
        (Node::Leaf(_), Node::Inner(_)) | (Node::Inner(_), Node::Leaf(_)) => {
            unreachable!("neighbours are on one level")
        }
    }
}

/// Collects in order; `false` once the end or the limit was reached.
fn collect(node: &Node, start: Bound<&[u8]>, end: &[u8], limit: usize, page: &mut Vec<Arc<Version>>) -> bool {
    match node {
        Node::Leaf(slots) => {
            let from = match start {
                Bound::Included(key) => slots.partition_point(|slot| slot.key[..] < *key),
                Bound::Excluded(key) => slots.partition_point(|slot| slot.key[..] <= *key),
                Bound::Unbounded => 0,
            };
            for slot in &slots[from..] {
                if page.len() == limit || (!end.is_empty() && slot.key[..] >= *end) {
                    return false;
                }
                page.push(slot.clone());
            }
            true
        }
        Node::Inner(children) => {
            let from = match start {
                Bound::Included(key) | Bound::Excluded(key) => child_of(children, key),
                Bound::Unbounded => 0,
            };
            let mut start = start;
            for child in &children[from..] {
                if !collect(&child.node, start, end, limit, page) {
                    return false;
                }
                start = Bound::Unbounded;
            }
            true
        }
    }
}

impl Node {
    fn slots(&self) -> usize {
        match self {
            Self::Leaf(slots) => slots.len(),
            Self::Inner(children) => children.len(),
        }
    }
}

impl Clone for Node {
    /// With room for the change that the copy is made for.
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(slots) => Self::Leaf(roomy(slots)),
            Self::Inner(children) => Self::Inner(roomy(children)),
        }
    }
}

fn roomy<T: Clone>(slots: &[T]) -> Vec<T> {
    let mut copy = Vec::with_capacity(slots.len() + 1);
    copy.extend_from_slice(slots);
    copy
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn version(key: u16, revision: u64) -> Arc<Version> {
        let key = Bytes::from(format!("{key:05}"));
        Arc::new(Version { key, value: Bytes::new(), revision, expires: 0 })
    }

    fn keys_and_revisions(tree: &Tree) -> Vec<(Bytes, u64)> {
        tree.page(Bound::Unbounded, b"", 0).iter().map(|v| (v.key.clone(), v.revision)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn behaves_like_a_btreemap(changes in prop::collection::vec((any::<bool>(), 0u16..900), 0..3000), probe in 0u16..900, limit in 0usize..50) {
            let mut tree = Tree::default();
            let mut model = BTreeMap::new();
            for (at, (insert, key)) in changes.into_iter().enumerate() {
                let revision = at as u64 + 1;
                let version = version(key, revision);
                let name = version.key.clone();
                let (old, expected) = if insert {
                    (tree.insert(version), model.insert(name, revision))
                } else {
                    (tree.remove(&name), model.remove(&name))
                };
                prop_assert_eq!(old.map(|v| v.revision), expected);
                prop_assert_eq!(tree.len(), model.len());
            }
            prop_assert_eq!(keys_and_revisions(&tree), model.clone().into_iter().collect::<Vec<_>>());
            let probe = version(probe, 0).key.clone();
            prop_assert_eq!(tree.get(&probe).map(|v| v.revision), model.get(&probe).copied());
            prop_assert_eq!(tree.rank(&probe), model.range(..probe.clone()).count());
            let page = tree.page(Bound::Excluded(&probe), b"00800", limit);
            let end = Bytes::from_static(b"00800");
            let expected = model.iter().filter(|(key, _)| **key > probe && **key < end);
            let expected: Vec<u64> = expected.map(|(_, revision)| *revision).take(if limit == 0 { usize::MAX } else { limit }).collect();
            prop_assert_eq!(page.iter().map(|v| v.revision).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_copy_does_not_see_later_changes() {
        let mut tree = Tree::default();
        for key in 0..2000 {
            tree.insert(version(key, 1));
        }
        let copy = tree.clone();
        let before = keys_and_revisions(&copy);
        for key in 0..2000 {
            if key % 3 == 0 {
                tree.remove(&version(key, 0).key);
            } else {
                tree.insert(version(key, 2));
            }
        }
        assert_eq!(keys_and_revisions(&copy), before);
        assert_eq!(copy.len(), 2000);
    }

    #[test]
    fn removing_everything_leaves_an_empty_tree() {
        let mut tree = Tree::default();
        for key in 0..5000 {
            tree.insert(version(key, 1));
        }
        for key in (0..5000).rev() {
            assert!(tree.remove(&version(key, 0).key).is_some());
        }
        assert_eq!((tree.len(), tree.root.is_none()), (0, true));
    }
}
