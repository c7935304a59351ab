//! NodeName: a pod that names a node goes to no other.

use super::Refusal;
use crate::core::{NodeIndex, Pod, Snapshot};

pub(crate) struct NodeNameFilter<'a> {
    name: Option<&'a str>,
}

impl<'a> NodeNameFilter<'a> {
    pub(crate) fn prepare(pod: &'a Pod) -> Self {
        Self { name: pod.node_name.as_deref() }
    }

    pub(crate) fn filter(&self, snapshot: &Snapshot, node: NodeIndex) -> Option<Refusal> {
        let other = self.name.is_some_and(|name| name != snapshot.node_name(node));
        other.then_some(Refusal::OtherName)
    }
}
