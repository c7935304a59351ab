//! Which pods this node has: how their workers are reached, and what was last seen of each.
//!
//! Invariant: a worker is the only writer of its own view; everything else reads.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::RwLock;
use tokio::sync::{Notify, watch};

use crate::pod::observation::PodObservation;
use crate::pod::resize::Decision;
use crate::pod::resolve::resources::ResourceAmounts;

/// What the API says of a pod.
#[derive(Debug, Clone)]
pub(super) struct Desired {
    /// Its latest object.
    pub(super) pod: Arc<Pod>,
    /// The object is no longer there: what runs of it must end.
    pub(super) gone: bool,
}

/// What a pod's worker last saw.
#[derive(Debug, Clone)]
pub(super) struct View {
    /// The pod with the status that this node reports.
    pub(super) pod: Arc<Pod>,
    /// What was seen.
    pub(super) seen: PodObservation,
}

/// How a worker is reached.
#[derive(Debug)]
pub(super) struct Handle {
    /// Tells it of the pod's new object.
    pub(super) desired: watch::Sender<Desired>,
    /// Makes it look again at what runs.
    pub(super) wake: Arc<Notify>,
}

/// The pods of this node by UID.
#[derive(Debug, Default)]
pub(super) struct Registry {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    handles: HashMap<String, Handle>,
    views: HashMap<String, Arc<View>>,
    /// By containerd's id, the pod that a container belongs to.
    owners: HashMap<String, String>,
    /// What each pod has been granted of the node.
    granted: HashMap<String, ResourceAmounts>,
    /// Pods that wait for others to need less.
    deferred: HashSet<String>,
}

impl Registry {
    /// Adds a worker.
    pub(super) fn insert(&self, uid: &str, handle: Handle) {
        self.inner.write().handles.insert(uid.to_owned(), handle);
    }

    /// Forgets a pod and its containers.
    pub(super) fn remove(&self, uid: &str) {
        let mut inner = self.inner.write();
        inner.handles.remove(uid);
        inner.views.remove(uid);
        inner.owners.retain(|_, owner| owner != uid);
        inner.deferred.remove(uid);
        drop(inner);
        self.grant(uid, ResourceAmounts::new());
    }

    /// Notes what a pod has of the node; what it gives back may be what others wait for.
    pub(super) fn grant(&self, uid: &str, amounts: ResourceAmounts) {
        let mut inner = self.inner.write();
        let before = if amounts.is_empty() {
            inner.granted.remove(uid)
        } else {
            inner.granted.insert(uid.to_owned(), amounts.clone())
        };
        if before.is_some_and(|before| before != amounts) {
            let waiting = inner.deferred.iter().filter_map(|uid| inner.handles.get(uid));
            waiting.for_each(|handle| handle.wake.notify_one());
        }
    }

    /// Asks `decide` with what all other pods have been granted, no other grant coming in between, and notes its answer:
    /// `amounts` are the pod's from now on, or it waits for others to need less.
    pub(super) fn decide(
        &self,
        uid: &str,
        amounts: &ResourceAmounts,
        decide: impl FnOnce(&ResourceAmounts) -> Decision,
    ) -> Decision {
        let mut inner = self.inner.write();
        let mut used = ResourceAmounts::new();
        for (name, amount) in inner.granted.iter().filter(|(other, _)| *other != uid).flat_map(|(_, list)| list) {
            *used.entry(name.clone()).or_default() += *amount;
        }
        let decision = decide(&used);
        if decision == Decision::Granted {
            inner.granted.insert(uid.to_owned(), amounts.clone());
            inner.deferred.remove(uid);
        } else {
            inner.deferred.insert(uid.to_owned());
        }
        decision
    }

    /// Whether the pod has a worker.
    pub(super) fn contains(&self, uid: &str) -> bool {
        self.inner.read().handles.contains_key(uid)
    }

    /// The UIDs of all pods that have a worker.
    pub(super) fn uids(&self) -> Vec<String> {
        self.inner.read().handles.keys().cloned().collect()
    }

    /// Tells a pod's worker of its new object; false when it has none.
    pub(super) fn update(&self, uid: &str, pod: Arc<Pod>) -> bool {
        let inner = self.inner.read();
        let Some(handle) = inner.handles.get(uid) else { return false };
        handle.desired.send_replace(Desired { pod, gone: false });
        true
    }

    /// Tells a pod's worker that its object is gone.
    pub(super) fn gone(&self, uid: &str) {
        if let Some(handle) = self.inner.read().handles.get(uid) {
            handle.desired.send_modify(|desired| desired.gone = true);
        }
    }

    /// Notes whose container this is.
    pub(super) fn own(&self, container: &str, uid: &str) {
        self.inner.write().owners.insert(container.to_owned(), uid.to_owned());
    }

    /// Wakes the worker of the pod that has this container.
    pub(super) fn wake_owner(&self, container: &str) {
        let inner = self.inner.read();
        if let Some(handle) = inner.owners.get(container).and_then(|uid| inner.handles.get(uid)) {
            handle.wake.notify_one();
        }
    }

    /// Wakes a pod's worker.
    pub(super) fn wake(&self, uid: &str) {
        if let Some(handle) = self.inner.read().handles.get(uid) {
            handle.wake.notify_one();
        }
    }

    /// Wakes every worker.
    pub(super) fn wake_all(&self) {
        self.inner.read().handles.values().for_each(|handle| handle.wake.notify_one());
    }

    /// Sets what is seen of a pod.
    pub(super) fn show(&self, uid: &str, view: View) {
        let mut inner = self.inner.write();
        // A worker's last words must not come back after it was forgotten.
        if inner.handles.contains_key(uid) {
            inner.views.insert(uid.to_owned(), Arc::new(view));
        }
    }

    /// Everything that is seen.
    pub(super) fn views(&self) -> Vec<Arc<View>> {
        self.inner.read().views.values().cloned().collect()
    }

    /// A pod by name; of several with one name, the one that is not being deleted.
    pub(super) fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<View>> {
        let inner = self.inner.read();
        let matches = |view: &&Arc<View>| {
            let meta = &view.pod.metadata;
            meta.namespace.as_deref() == Some(namespace)
                && meta.name.as_deref() == Some(name)
                && uid.is_none_or(|uid| meta.uid.as_deref() == Some(uid))
        };
        let found = inner.views.values().filter(matches);
        found.min_by_key(|view| view.pod.metadata.deletion_timestamp.is_some()).cloned()
    }
}
