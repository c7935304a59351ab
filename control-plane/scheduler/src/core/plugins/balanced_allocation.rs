//! NodeResourcesBalancedAllocation: nodes score higher where the pod evens out how full CPU and memory are.

use crate::core::{MAX_NODE_SCORE, NodeIndex, Requests, Snapshot};

/// The resources that are compared.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

pub(crate) struct Balance {
    /// Column and requested amount of each; no column where no node has such a resource.
    amounts: [(Option<u32>, i64); 2],
}

impl Balance {
    /// None for a pod that requests neither, which upstream leaves out.
    pub(crate) fn prepare(snapshot: &Snapshot, requests: &Requests) -> Option<Self> {
        let amounts = RESOURCES.map(|name| (snapshot.resource_id(name), requests.amount(name)));
        amounts.iter().any(|(_, amount)| *amount > 0).then_some(Self { amounts })
    }

    /// 50 and half of what the pod improves the balance by, in 0..=100 (`balancedResourceScorer`).
    pub(crate) fn score(&self, snapshot: &Snapshot, node: NodeIndex) -> i64 {
        let fractions = self.amounts.map(|(resource, amount)| {
            let id = resource?;
            let capacity = snapshot.allocatable(id, node);
            if capacity == 0 {
                return None;
            }
            let requested = snapshot.requested(id, node);
            Some((fraction(requested, capacity), fraction(requested + i128::from(amount), capacity)))
        });
        // A single resource is always even.
        let [Some(cpu), Some(memory)] = fractions else { return MAX_NODE_SCORE / 2 + MAX_NODE_SCORE / 4 };
        let half = MAX_NODE_SCORE / 2;
        half + (half + evenness(cpu.1, memory.1) - evenness(cpu.0, memory.0)) / 2
    }
}

#[allow(clippy::cast_precision_loss, reason = "a ratio in floating point, as upstream computes it")]
fn fraction(requested: i128, capacity: i64) -> f64 {
    (requested as f64 / capacity as f64).min(1.0)
}

/// 100 less the standard deviation of two fractions, as a percentage rounded down.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "between 0 and 100")]
fn evenness(cpu: f64, memory: f64) -> i64 {
    ((1.0 - ((cpu - memory) / 2.0).abs()) * MAX_NODE_SCORE as f64) as i64
}
