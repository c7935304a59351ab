//! Who owns whom, and what follows from it. Pure: observations come in, keys to look at and decisions go out.
//!
//! Invariant: nothing is deleted on the graph's word alone. An owner that the graph does not hold at the place that the
//! reference names is [`Owner::Unknown`], and the caller asks the API server before it decides with [`decide_by_owners`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::discovery::Resource;

/// The finalizer of an owner that waits for its blocking dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner whose dependents are to stay.
pub(super) const ORPHAN: &str = "orphan";

/// A uid: what the graph and the queue are keyed by.
pub(super) type Uid = Box<str>;

/// What the graph keeps of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) resource: Arc<Resource>,
    /// Empty for cluster-scoped objects.
    pub(super) namespace: Box<str>,
    pub(super) name: Box<str>,
    pub(super) owners: Vec<OwnerReference>,
    deleting: bool,
    foreground: bool,
    orphan: bool,
}

impl Node {
    /// The node of an object; `None` if it has no uid.
    pub(super) fn new(resource: &Arc<Resource>, meta: &ObjectMeta) -> Option<(Uid, Self)> {
        let uid = meta.uid.as_deref()?;
        let has = |finalizer: &str| meta.finalizers.iter().flatten().any(|own| own == finalizer);
        let node = Self {
            resource: Arc::clone(resource),
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            foreground: has(FOREGROUND),
            orphan: has(ORPHAN),
        };
        Some((uid.into(), node))
    }

    fn waits_for_dependents(&self) -> bool {
        self.deleting && self.foreground
    }

    fn is_orphaning(&self) -> bool {
        self.deleting && self.orphan
    }

    /// Whether `reference`, found in an object of `namespace`, names this object.
    fn is_named_by(&self, reference: &OwnerReference, namespace: &str) -> bool {
        let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
        *self.name == *reference.name
            && self.resource.api.kind == reference.kind
            && self.resource.api.group == group
            && (!self.resource.namespaced || *self.namespace == *namespace)
    }
}

/// What is known of an object's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// It is there.
    Solid,
    /// It is there, and waits for its dependents to go.
    Waiting,
    /// The API server says that it is not there.
    Absent,
    /// The graph does not hold it.
    Unknown,
}

/// What to do about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing.
    Keep,
    /// Its blocking dependents are gone: take the finalizer `foregroundDeletion` off.
    FinishForeground,
    /// Take its references out of these dependents, then the finalizer `orphan` off it.
    Orphan(Vec<Uid>),
    /// Find out what is unknown of its owners, then [`decide_by_owners`].
    Judge(Vec<Owner>),
}

/// What an object's owners mean for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays as it is.
    Keep,
    /// An owner is left: drop the references at these places.
    DropReferences(Vec<usize>),
    /// No owner is left: delete it as its own finalizers say.
    Delete,
    /// Its owner waits for it, and it has dependents of its own: they go before it. With `unblock` it is in a circle, and its
    /// references must stop blocking first.
    DeleteForeground {
        /// Whether its owner references must stop blocking.
        unblock: bool,
    },
}

/// All objects that were seen, and their dependents.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<Uid, Node>,
    dependents: HashMap<Uid, HashSet<Uid>>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// Takes in the state of an object and says whom to look at because of it.
    pub(super) fn observe(&mut self, uid: &Uid, node: Node) -> Vec<Uid> {
        let old = self.nodes.get(uid);
        if old == Some(&node) {
            return Vec::new();
        }
        let old_owners = old.map(|old| old.owners.clone()).unwrap_or_default();
        let began_waiting = node.waits_for_dependents() && !old.is_some_and(Node::waits_for_dependents);
        for owner in &old_owners {
            self.unlink(&owner.uid, uid);
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.as_str().into()).or_default().insert(uid.clone());
        }
        // An owner that waited for this object may not need to any more.
        let mut keys: Vec<Uid> = self.waiting(&old_owners).collect();
        if began_waiting {
            keys.extend(self.dependents_of(uid).cloned());
        }
        if node.waits_for_dependents() || node.is_orphaning() || !node.owners.is_empty() {
            keys.push(uid.clone());
        }
        self.nodes.insert(uid.clone(), node);
        keys
    }

    /// The object is gone: its dependents and the owners that wait for it are to be looked at.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Uid> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        for owner in &node.owners {
            self.unlink(&owner.uid, uid);
        }
        self.dependents_of(uid).cloned().chain(self.waiting(&node.owners)).collect()
    }

    /// What to do about the object of that uid.
    pub(super) fn decide(&self, uid: &str) -> Action {
        let Some(node) = self.nodes.get(uid) else { return Action::Keep };
        if node.is_orphaning() {
            return Action::Orphan(self.dependents_of(uid).cloned().collect());
        }
        if node.waits_for_dependents() {
            return if self.blocking(uid).next().is_none() { Action::FinishForeground } else { Action::Keep };
        }
        if node.deleting || node.owners.is_empty() {
            return Action::Keep;
        }
        Action::Judge(node.owners.iter().map(|owner| self.owner(owner, &node.namespace)).collect())
    }

    /// What an object's owners mean for it, with nothing unknown left.
    pub(super) fn decide_by_owners(&self, uid: &str, owners: &[Owner]) -> Verdict {
        if owners.is_empty() || owners.contains(&Owner::Unknown) {
            return Verdict::Keep;
        }
        if owners.contains(&Owner::Solid) {
            let places = |(place, owner): (usize, &Owner)| (*owner != Owner::Solid).then_some(place);
            let gone: Vec<usize> = owners.iter().enumerate().filter_map(places).collect();
            return if gone.is_empty() { Verdict::Keep } else { Verdict::DropReferences(gone) };
        }
        if owners.contains(&Owner::Waiting) && self.dependents_of(uid).next().is_some() {
            let waits = |dependent: &Uid| self.nodes.get(dependent).is_some_and(Node::waits_for_dependents);
            return Verdict::DeleteForeground { unblock: self.dependents_of(uid).any(waits) };
        }
        Verdict::Delete
    }

    fn owner(&self, reference: &OwnerReference, namespace: &str) -> Owner {
        match self.nodes.get(reference.uid.as_str()) {
            Some(node) if !node.is_named_by(reference, namespace) => Owner::Unknown,
            Some(node) if node.waits_for_dependents() => Owner::Waiting,
            Some(_) => Owner::Solid,
            None => Owner::Unknown,
        }
    }

    fn dependents_of(&self, uid: &str) -> impl Iterator<Item = &Uid> {
        self.dependents.get(uid).into_iter().flatten()
    }

    fn blocking(&self, uid: &str) -> impl Iterator<Item = &Uid> {
        let blocks = move |owner: &OwnerReference| owner.uid == uid && owner.block_owner_deletion == Some(true);
        self.dependents_of(uid)
            .filter(move |dependent| self.nodes.get(*dependent).is_some_and(|node| node.owners.iter().any(blocks)))
    }

    fn waiting(&self, owners: &[OwnerReference]) -> impl Iterator<Item = Uid> {
        owners
            .iter()
            .map(|owner| Uid::from(owner.uid.as_str()))
            .filter(|uid| self.nodes.get(uid).is_some_and(Node::waits_for_dependents))
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(dependents) = self.dependents.get_mut(owner) {
            dependents.remove(dependent);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}
