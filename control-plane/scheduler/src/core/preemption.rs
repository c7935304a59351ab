//! Preemption (DefaultPreemption): which pods of lower priority make room for a pod that no node would have.
//!
//! On each node where removing pods can help, all of a lower priority are taken away in thought, and put back, the most
//! important first, as long as the pod still fits; those that don't come back are the victims. Of the nodes the one is taken
//! whose victims matter least (upstream: `SelectVictimsOnNode`, `pickOneNodeForPreemption`).
//!
//! Invariant: pure, and the snapshot stays as it is. PodDisruptionBudgets are not weighed yet.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::plugins::{Refusal, Shortage};
use super::pod::{HostPort, Pod};
use super::snapshot::{NodeIndex, Snapshot, Victim};

/// Where room is made, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// The node's name.
    pub node: Box<str>,
    /// The pods that have to go, the most important first.
    pub victims: Vec<VictimPod>,
}

/// A pod that has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VictimPod {
    /// The uid.
    pub uid: Box<str>,
    /// The namespace.
    pub namespace: Box<str>,
    /// The name.
    pub name: Box<str>,
    /// Whether it is being deleted already.
    pub terminating: bool,
}

/// Pods of a node by uid.
type Victims<'a> = Vec<(&'a str, Victim<'a>)>;

/// How upstream compares the nodes of a preemption: the least is taken.
type Cost = (i32, i64, usize, Reverse<i64>);

/// Finds room for `pod` on one of `nodes`; those are where removing pods could help. Else says, by reason, on how many nodes
/// it would not fit even without all pods of a lower priority.
pub(crate) fn preempt(
    snapshot: &Snapshot,
    pod: &Pod,
    nodes: &[NodeIndex],
) -> Result<Preemption, BTreeMap<String, usize>> {
    let mut best: Option<(Cost, NodeIndex, Victims<'_>)> = None;
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for &node in nodes {
        match victims(snapshot, pod, node) {
            Ok(victims) => {
                let cost = cost(&victims);
                if best.as_ref().is_none_or(|(least, ..)| cost < *least) {
                    best = Some((cost, node, victims));
                }
            }
            Err(refusal) => {
                for reason in refusal.into_iter().flat_map(|refusal| refusal.reasons(&pod.requests)) {
                    *reasons.entry(reason.into_owned()).or_default() += 1;
                }
            }
        }
    }
    let (_, node, victims) = best.ok_or(reasons)?;
    let named = |(uid, victim): (&str, Victim<'_>)| VictimPod {
        uid: uid.into(),
        namespace: victim.namespace.into(),
        name: victim.name.into(),
        terminating: victim.terminating,
    };
    Ok(Preemption { node: snapshot.node_name(node).into(), victims: victims.into_iter().map(named).collect() })
}

/// The pods that make room on a node, the most important first. None to refuse with where there is nobody to remove.
fn victims<'a>(snapshot: &'a Snapshot, pod: &Pod, node: NodeIndex) -> Result<Victims<'a>, Option<Refusal>> {
    let mut lower: Vec<_> = snapshot.victims(node, pod.priority).collect();
    if lower.is_empty() {
        return Err(None);
    }
    // A higher priority first, then the one that runs longer; the uid makes the order total (`MoreImportantPod`).
    lower.sort_by_key(|(uid, victim)| (Reverse(victim.priority), victim.started.unwrap_or(i64::MAX), *uid));
    let mut room = Room::of(snapshot, pod, node);
    lower.iter().for_each(|(_, victim)| room.remove(victim));
    if let Some(refusal) = room.refusal() {
        return Err(Some(refusal));
    }
    let mut victims = Vec::new();
    for (uid, victim) in lower {
        room.put_back(&victim);
        if room.refusal().is_some() {
            room.remove(&victim);
            victims.push((uid, victim));
        }
    }
    Ok(victims)
}

fn cost(victims: &[(&str, Victim<'_>)]) -> Cost {
    let highest = victims.first().map_or(i32::MIN, |(_, victim)| victim.priority);
    // Raised above zero, so that few pods of a negative priority are not worse than many.
    let sum = victims.iter().map(|(_, victim)| i64::from(victim.priority) + i64::from(i32::MAX) + 1).sum();
    let foremost = victims.iter().filter(|(_, victim)| victim.priority == highest);
    // One that has not started is as if it started last (`GetPodStartTime`).
    let earliest = foremost.map(|(_, victim)| victim.started.unwrap_or(i64::MAX)).min().unwrap_or(i64::MAX);
    (highest, sum, victims.len(), Reverse(earliest))
}

/// What a node has for one pod, while others come and go.
struct Room<'a> {
    pod: &'a Pod,
    /// Of each request of the pod: column, amount, what the node has and what is taken.
    wanted: Vec<(Option<u32>, i64, i64, i128)>,
    pods: i64,
    allowed: i64,
    ports: Vec<&'a HostPort>,
}

impl<'a> Room<'a> {
    fn of(snapshot: &'a Snapshot, pod: &'a Pod, node: NodeIndex) -> Self {
        let wanted = pod.requests.amounts.iter().map(|(name, amount)| {
            let column = snapshot.resource_id(name);
            let (has, taken) =
                column.map_or((0, 0), |id| (snapshot.allocatable(id, node), snapshot.requested(id, node)));
            (column, *amount, has, taken)
        });
        Self {
            pod,
            wanted: wanted.collect(),
            pods: snapshot.pod_count(node),
            allowed: snapshot.allowed_pods(node),
            ports: snapshot.ports(node).iter().collect(),
        }
    }

    fn remove(&mut self, victim: &Victim<'a>) {
        self.take(victim, -1);
        for port in victim.ports {
            if let Some(at) = self.ports.iter().position(|own| *own == port) {
                self.ports.swap_remove(at);
            }
        }
    }

    fn put_back(&mut self, victim: &Victim<'a>) {
        self.take(victim, 1);
        self.ports.extend(victim.ports);
    }

    fn take(&mut self, victim: &Victim<'_>, times: i64) {
        self.pods += times;
        for (column, _, _, taken) in &mut self.wanted {
            let own =
                victim.amounts.iter().filter(|(id, _)| Some(*id) == *column).map(|(_, amount)| i128::from(*amount));
            *taken += own.sum::<i128>() * i128::from(times);
        }
    }

    /// As the plugins NodePorts and NodeResourcesFit, in their order.
    fn refusal(&self) -> Option<Refusal> {
        let conflicts = |wanted: &HostPort| self.ports.iter().any(|port| port.conflicts(wanted));
        if self.pod.host_ports.iter().any(conflicts) {
            return Some(Refusal::Ports);
        }
        let lacks =
            |(_, amount, has, taken): &(Option<u32>, i64, i64, i128)| i128::from(*amount) > i128::from(*has) - taken;
        let short = self.wanted.iter().enumerate().filter(|(_, wanted)| lacks(wanted)).map(|(at, _)| at);
        let shortage = Shortage { pods: self.pods >= self.allowed, amounts: short.collect(), even_if_empty: false };
        (shortage.pods || !shortage.amounts.is_empty()).then_some(Refusal::Room(shortage))
    }
}
