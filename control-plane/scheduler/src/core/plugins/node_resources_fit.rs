//! NodeResourcesFit: a pod's requests must fit beside those of the node's pods; emptier nodes score higher (LeastAllocated).

use super::{Refusal, Shortage};
use crate::core::{MAX_NODE_SCORE, NodeIndex, Pod, Requests, Snapshot};

pub(crate) struct NodeResourcesFit<'a> {
    requests: &'a Requests,
    /// Column and amount of each request; no column where no node has such a resource.
    wanted: Vec<(Option<u32>, i64)>,
    /// Column and amount that scores count, of CPU and memory.
    scored: [(Option<u32>, i64); 2],
}

impl<'a> NodeResourcesFit<'a> {
    pub(crate) fn prepare(snapshot: &Snapshot, pod: &'a Pod) -> Self {
        let requests = &pod.requests;
        Self {
            requests,
            wanted: requests.amounts.iter().map(|(name, amount)| (snapshot.resource_id(name), *amount)).collect(),
            scored: [
                (snapshot.resource_id("cpu"), requests.scoring_cpu),
                (snapshot.resource_id("memory"), requests.scoring_memory),
            ],
        }
    }

    pub(crate) fn requests(&self) -> &'a Requests {
        self.requests
    }

    pub(crate) fn filter(&self, snapshot: &Snapshot, node: NodeIndex) -> Option<Refusal> {
        let mut shortage =
            Shortage { pods: snapshot.pod_count(node) >= snapshot.allowed_pods(node), ..Shortage::default() };
        for (at, (resource, amount)) in self.wanted.iter().enumerate() {
            let (allocatable, requested) = match resource {
                Some(id) => (snapshot.allocatable(*id, node), snapshot.requested(*id, node)),
                None => (0, 0),
            };
            if i128::from(*amount) > i128::from(allocatable) - requested {
                shortage.amounts.push(at);
                shortage.even_if_empty |= *amount > allocatable;
            }
        }
        (shortage.pods || !shortage.amounts.is_empty()).then_some(Refusal::Room(shortage))
    }

    /// The mean free share of CPU and memory after placement, of those that the node has.
    pub(crate) fn score(&self, snapshot: &Snapshot, node: NodeIndex) -> i64 {
        let mut sum = 0;
        let mut count = 0;
        for (which, (resource, amount)) in self.scored.iter().enumerate() {
            let capacity = resource.map_or(0, |id| snapshot.allocatable(id, node));
            if capacity == 0 {
                continue;
            }
            let requested = snapshot.scoring_requested(which, node) + i128::from(*amount);
            sum += free_share(i128::from(capacity), requested);
            count += 1;
        }
        if count == 0 { 0 } else { sum / count }
    }
}

/// The free part of a capacity in 0..=100, rounded down (`leastRequestedScore`).
fn free_share(capacity: i128, requested: i128) -> i64 {
    if requested > capacity {
        return 0;
    }
    // Between 0 and 100: requests are never negative, and the capacity is above zero.
    i64::try_from((capacity - requested) * i128::from(MAX_NODE_SCORE) / capacity).unwrap_or(0)
}
