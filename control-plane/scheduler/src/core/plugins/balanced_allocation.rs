//! NodeResourcesBalancedAllocation: nodes score higher where the pod evens out how full CPU and memory are.

use crate::core::{MAX_NODE_SCORE, NodeIndex, Requests, Snapshot};

/// The resources that are compared.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

pub(crate) struct Balance {
    amounts: [i64; 2],
}

impl Balance {
    /// None for a pod that requests neither, which upstream leaves out.
    pub(crate) fn prepare(requests: &Requests) -> Option<Self> {
        let amounts = RESOURCES.map(|name| requests.amount(name));
        amounts.iter().any(|amount| *amount > 0).then_some(Self { amounts })
    }

    /// 50 and half of what the pod improves the balance by, in 0..=100 (`balancedResourceScorer`).
    pub(crate) fn score(&self, snapshot: &Snapshot, node: NodeIndex) -> i64 {
        let mut before = Vec::with_capacity(2);
        let mut after = Vec::with_capacity(2);
        for (name, amount) in RESOURCES.iter().zip(self.amounts) {
            let Some(id) = snapshot.resource_id(name) else { continue };
            let capacity = snapshot.allocatable(id, node);
            if capacity == 0 {
                continue;
            }
            let requested = snapshot.requested(id, node);
            before.push(fraction(requested, capacity));
            after.push(fraction(requested + i128::from(amount), capacity));
        }
        let half = MAX_NODE_SCORE / 2;
        half + (half + evenness(&after) - evenness(&before)) / 2
    }
}

#[allow(clippy::cast_precision_loss, reason = "a ratio in floating point, as upstream computes it")]
fn fraction(requested: i128, capacity: i64) -> f64 {
    (requested as f64 / capacity as f64).min(1.0)
}

/// 100 less the standard deviation of two fractions, as a percentage rounded down; 100 for fewer than two.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "between 0 and 100")]
fn evenness(fractions: &[f64]) -> i64 {
    let deviation = match fractions {
        [cpu, memory] => ((cpu - memory) / 2.0).abs(),
        _ => 0.0,
    };
    ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
}
