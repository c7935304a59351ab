//! TaintToleration: hard taints keep pods away that don't bear them; soft ones (`PreferNoSchedule`) cost score.
//!
//! Each distinct taint of the cluster is judged once a pod; a node is then a look at its few numbers.

use k8s_openapi::api::core::v1::Toleration;

use super::Refusal;
use crate::core::snapshot::TaintKey;
use crate::core::{NodeIndex, Pod, Snapshot};

/// What a taint does to the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Tolerated,
    Refuses,
    Deters,
}

pub(crate) struct TaintToleration {
    effects: Vec<Effect>,
}

impl TaintToleration {
    pub(crate) fn prepare(snapshot: &Snapshot, pod: &Pod) -> Self {
        let effect = |taint: &TaintKey| {
            if pod.tolerations.iter().any(|toleration| tolerates(toleration, taint)) {
                return Effect::Tolerated;
            }
            match taint.effect.as_str() {
                "NoSchedule" | "NoExecute" => Effect::Refuses,
                "PreferNoSchedule" => Effect::Deters,
                _ => Effect::Tolerated,
            }
        };
        Self { effects: snapshot.taint_table().iter().map(effect).collect() }
    }

    pub(crate) fn filter(&self, snapshot: &Snapshot, node: NodeIndex) -> Option<Refusal> {
        let refuses = snapshot.taints(node).iter().any(|taint| self.effects[*taint as usize] == Effect::Refuses);
        refuses.then_some(Refusal::Taint)
    }

    /// How many soft taints the pod doesn't bear; fewer are better.
    pub(crate) fn score(&self, snapshot: &Snapshot, node: NodeIndex) -> i64 {
        let taints = snapshot.taints(node).iter();
        taints.map(|taint| i64::from(self.effects[*taint as usize] == Effect::Deters)).sum()
    }
}

/// Whether a toleration bears a taint (`Toleration.ToleratesTaint`; the numeric operators are an alpha feature there, off).
pub(super) fn tolerates(toleration: &Toleration, taint: &TaintKey) -> bool {
    let matches = |own: &Option<String>, other: &str| own.as_deref().is_none_or(|own| own.is_empty() || own == other);
    if !matches(&toleration.effect, &taint.effect) || !matches(&toleration.key, &taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => toleration.value.as_deref().unwrap_or_default() == taint.value,
        "Exists" => true,
        _ => false,
    }
}
