//! Which pods are bound to which node, kept from the pods' informer.
//!
//! Invariant: it follows the pods before any other handler does, so a handler that asks for a node's pods finds the one that
//! it is called for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;
use skep_client::slim::SlimPod;

use super::{Change, Informer, ObjectKey};

/// The index. Cheap to clone; all clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct PodsByNode {
    nodes: Arc<RwLock<HashMap<Box<str>, HashSet<ObjectKey>>>>,
}

impl PodsByNode {
    /// Follows an informer from now on; what it has already is taken too.
    pub fn follow(&self, pods: &Informer<SlimPod>) {
        let index = self.clone();
        pods.on_change(move |change| {
            let key = ObjectKey::of(&**change.object());
            // A pod's node is set once; a pod of the same name that follows it is reported as deleted and added.
            let node = change.object().spec.node_name.as_deref().filter(|node| !node.is_empty());
            let Some(node) = node else { return };
            match change {
                Change::Deleted(_) => index.remove(node, &key),
                Change::Added(_) | Change::Updated { .. } => index.insert(node, key),
            }
        });
    }

    /// The pods of a node.
    #[must_use]
    pub fn on(&self, node: &str) -> Vec<ObjectKey> {
        self.nodes.read().get(node).into_iter().flatten().cloned().collect()
    }

    /// The nodes that have pods, whether they exist or not.
    #[must_use]
    pub fn nodes(&self) -> Vec<Box<str>> {
        self.nodes.read().keys().cloned().collect()
    }

    fn insert(&self, node: &str, key: ObjectKey) {
        let mut nodes = self.nodes.write();
        match nodes.get_mut(node) {
            Some(pods) => {
                pods.insert(key);
            }
            None => {
                nodes.insert(node.into(), HashSet::from([key]));
            }
        }
    }

    fn remove(&self, node: &str, key: &ObjectKey) {
        let mut nodes = self.nodes.write();
        if let Some(pods) = nodes.get_mut(node) {
            pods.remove(key);
            if pods.is_empty() {
                nodes.remove(node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::watcher::Event;

    fn pod(node: Option<&str>) -> SlimPod {
        let pod = serde_json::json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u"}, "spec": {"nodeName": node},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn a_pod_is_on_its_node_from_its_binding_to_its_end() {
        let (pods, index) = (Informer::<SlimPod>::default(), PodsByNode::default());
        index.follow(&pods);
        pods.apply(Event::Apply(pod(None)));
        assert!(index.nodes().is_empty());
        pods.apply(Event::Apply(pod(Some("n1"))));
        assert_eq!(index.on("n1"), [ObjectKey::new("n", "a")]);
        pods.apply(Event::Delete(pod(Some("n1"))));
        assert!(index.nodes().is_empty());
    }
}
