//! NodePorts: a port of a node goes to one pod.

use super::Refusal;
use crate::core::{HostPort, NodeIndex, Pod, Snapshot};

pub(crate) struct NodePorts<'a> {
    wanted: &'a [HostPort],
}

impl<'a> NodePorts<'a> {
    pub(crate) fn prepare(pod: &'a Pod) -> Self {
        Self { wanted: &pod.host_ports }
    }

    pub(crate) fn filter(&self, snapshot: &Snapshot, node: NodeIndex) -> Option<Refusal> {
        let taken = |wanted: &HostPort| snapshot.ports(node).iter().any(|port| port.conflicts(wanted));
        self.wanted.iter().any(taken).then_some(Refusal::Ports)
    }
}
