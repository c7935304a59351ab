//! The decision: which node a pod goes to, or in which words it is told that none will do.
//!
//! Filters run a node at a time in upstream's order, the first that refuses gives the reason; scores run over the nodes that
//! are left, each normalized to 0..=100 and weighted as in upstream's default profile.
//!
//! Invariant: pure. Time, randomness (the seed) and the cluster's state come in as arguments.
//!
//! Data flow: [`SlimPod`](skep_client::slim::SlimPod) → [`Pod`] (compiled once) → [`schedule`] over the [`Snapshot`] → [`Decision`].

mod decision;
mod intern;
mod plugins;
mod pod;
mod preemption;
mod resources;
mod snapshot;
#[cfg(test)]
pub(crate) mod tests;

pub use decision::{Decision, FitError};
pub use plugins::{Plugin, PluginSet};
pub use pod::{HostPort, Pod};
pub use preemption::{Preemption, VictimPod};
pub use resources::Requests;
pub use snapshot::{NodeChange, NodeIndex, Snapshot};

use decision::{Diagnosis, Outcome};
use plugins::{
    NodeAffinity, NodeNameFilter, NodePorts, NodeResourcesFit, NodeUnschedulable, Refusal, TaintToleration,
    balanced_allocation,
};

/// The highest score that a plugin gives a node (`framework.MaxNodeScore`).
const MAX_NODE_SCORE: i64 = 100;

/// Whether room is being made for a pod already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It may ask for some.
    Free,
    /// Pods that it preempted have not gone yet.
    BeingMade,
}

/// Chooses a node for `pod`, or whom it preempts. Nodes of equal score are told apart by `seed` alone.
#[must_use]
pub fn schedule(snapshot: &Snapshot, pod: &Pod, seed: u64) -> Decision {
    decide(snapshot, pod, seed, Room::Free)
}

/// As [`schedule`]; while room is being made for the pod nobody else is preempted.
#[must_use]
pub fn decide(snapshot: &Snapshot, pod: &Pod, seed: u64, rooms: Room) -> Decision {
    if snapshot.node_count() == 0 {
        return Decision::NoNodes;
    }
    let affinity = NodeAffinity::prepare(snapshot, pod);
    if affinity.is_contradictory() {
        return Decision::Unschedulable(Diagnosis::new(snapshot, pod).contradictory_affinity());
    }
    let filters = Filters {
        name: NodeNameFilter::prepare(pod),
        unschedulable: NodeUnschedulable::prepare(pod),
        taints: TaintToleration::prepare(snapshot, pod),
        ports: NodePorts::prepare(pod),
        fit: NodeResourcesFit::prepare(snapshot, pod),
        affinity,
    };
    let mut feasible = Vec::new();
    let mut diagnosis = Diagnosis::new(snapshot, pod);
    for node in snapshot.nodes() {
        match filters.refusal(snapshot, node) {
            None => feasible.push(node),
            Some(refusal) => diagnosis.count(node, refusal),
        }
    }
    if let Some(node) = filters.best(snapshot, &feasible, seed) {
        return Decision::Node(snapshot.node_name(node).into());
    }
    if !pod.preempts {
        return Decision::Unschedulable(diagnosis.finish(Outcome::Never));
    }
    if rooms == Room::BeingMade {
        return Decision::Unschedulable(diagnosis.finish(Outcome::Waits));
    }
    match preemption::preempt(snapshot, pod, diagnosis.resolvable()) {
        Ok(preemption) => Decision::Preempt(diagnosis.finish(Outcome::Made), preemption),
        Err(reasons) => Decision::Unschedulable(diagnosis.finish(Outcome::Nobody(reasons))),
    }
}

/// The plugins, prepared for one pod.
struct Filters<'a> {
    name: NodeNameFilter<'a>,
    unschedulable: NodeUnschedulable,
    taints: TaintToleration,
    affinity: NodeAffinity<'a>,
    ports: NodePorts<'a>,
    fit: NodeResourcesFit<'a>,
}

impl Filters<'_> {
    fn refusal(&self, snapshot: &Snapshot, node: NodeIndex) -> Option<Refusal> {
        if !self.affinity.names(snapshot, node) {
            return Some(Refusal::NotNamedByAffinity);
        }
        self.name
            .filter(snapshot, node)
            .or_else(|| self.unschedulable.filter(snapshot, node))
            .or_else(|| self.taints.filter(snapshot, node))
            .or_else(|| self.affinity.filter(snapshot, node))
            .or_else(|| self.ports.filter(snapshot, node))
            .or_else(|| self.fit.filter(snapshot, node))
    }

    fn best(&self, snapshot: &Snapshot, feasible: &[NodeIndex], seed: u64) -> Option<NodeIndex> {
        if feasible.len() < 2 {
            return feasible.first().copied();
        }
        let mut total = vec![0i64; feasible.len()];
        let mut add = |weight: i64, scores: Vec<i64>| {
            for (sum, score) in total.iter_mut().zip(scores) {
                *sum += weight * score;
            }
        };
        let taints = feasible.iter().map(|&node| self.taints.score(snapshot, node)).collect();
        add(3, normalize(taints, Preference::Fewest));
        if self.affinity.scores() {
            let affinity = feasible.iter().map(|&node| self.affinity.score(snapshot, node)).collect();
            add(2, normalize(affinity, Preference::Most));
        }
        add(1, feasible.iter().map(|&node| self.fit.score(snapshot, node)).collect());
        if let Some(balance) = balanced_allocation::Balance::prepare(snapshot, self.fit.requests()) {
            add(1, feasible.iter().map(|&node| balance.score(snapshot, node)).collect());
        }
        let best = total.iter().copied().max()?;
        let ties: Vec<NodeIndex> =
            feasible.iter().zip(&total).filter(|(_, score)| **score == best).map(|(node, _)| *node).collect();
        ties.get(pick(seed, ties.len())).copied()
    }
}

/// Which raw score is the better one.
#[derive(Clone, Copy)]
enum Preference {
    Most,
    Fewest,
}

/// Brings raw scores to 0..=100 by the largest (`helper.DefaultNormalizeScore`).
fn normalize(mut scores: Vec<i64>, preference: Preference) -> Vec<i64> {
    let largest = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        let share = if largest <= 0 { 0 } else { MAX_NODE_SCORE * *score / largest };
        *score = match preference {
            Preference::Most => share,
            Preference::Fewest => MAX_NODE_SCORE - share,
        };
    }
    scores
}

/// An index below `count`, spread evenly over seeds (the finalizer of SplitMix64); 0 if there is nothing to pick from.
fn pick(seed: u64, count: usize) -> usize {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    // The remainder is below `count`, which is a usize.
    usize::try_from(bits % (count.max(1) as u64)).unwrap_or(0)
}
