//! NodeUnschedulable: a cordoned node takes only pods that bear the taint of cordoned nodes.

use k8s_openapi::api::core::v1::Toleration;

use super::Refusal;
use super::taint_toleration::tolerates;
use crate::core::snapshot::TaintKey;
use crate::core::{NodeIndex, Pod, Snapshot};

pub(crate) struct NodeUnschedulable {
    tolerated: bool,
}

impl NodeUnschedulable {
    pub(crate) fn prepare(pod: &Pod) -> Self {
        let taint = TaintKey {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            value: String::new(),
            effect: "NoSchedule".to_owned(),
        };
        Self { tolerated: pod.tolerations.iter().any(|toleration: &Toleration| tolerates(toleration, &taint)) }
    }

    pub(crate) fn filter(&self, snapshot: &Snapshot, node: NodeIndex) -> Option<Refusal> {
        (!self.tolerated && snapshot.is_unschedulable(node)).then_some(Refusal::Unschedulable)
    }
}
