//! What a DaemonSet needs: pure functions from what was seen to what to do.
//!
//! Follows `daemon_controller.go` (`podsShouldBeOnNode`, `updateDaemonSetStatus`) and `update.go` (`rollingUpdate`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::Node;
use skep_client::EventType;
use skep_client::slim::SlimPod;

use super::placement::{Fit, fit, target};
use crate::deployment::replicas::scaled;
use crate::replica_set::reconcile::is_available;
use crate::runtime::REVISION_LABEL;

/// Upstream's `BurstReplicas`: the most pods that one pass creates, and deletes.
pub(super) const BURST: usize = 250;
const GENERATION: &str = "deprecated.daemonset.template.generation";
pub(super) const GENERATION_LABEL: &str = "pod-template-generation";
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(15 * 60);

/// When a failed pod of a node was last deleted, and how long the next one stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backoff {
    delay: Duration,
    since: Timestamp,
}

impl Backoff {
    fn left(self, now: Timestamp) -> Duration {
        let elapsed = Duration::try_from(now.duration_since(self.since)).unwrap_or_default();
        self.delay.saturating_sub(elapsed)
    }

    fn next(before: Option<Self>, now: Timestamp) -> Self {
        let recent = before.filter(|own| {
            let elapsed = Duration::try_from(now.duration_since(own.since)).unwrap_or_default();
            elapsed <= LONGEST_BACKOFF * 2
        });
        let delay = recent.map_or(FIRST_BACKOFF, |own| (own.delay * 2).min(LONGEST_BACKOFF));
        Self { delay, since: now }
    }
}

/// What was seen of a DaemonSet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Observed<'a> {
    pub set: &'a DaemonSet,
    /// Its pods.
    pub pods: &'a [Arc<SlimPod>],
    /// All nodes.
    pub nodes: &'a [Arc<Node>],
    /// The hash of its latest revision.
    pub hash: &'a str,
    /// The nodes where failed pods were deleted.
    pub backoff: &'a HashMap<String, Backoff>,
}

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Decision {
    /// The nodes to create a pod for.
    pub create: Vec<String>,
    /// Pods to delete.
    pub delete: Vec<Arc<SlimPod>>,
    /// What the back-off of nodes becomes.
    pub backoff: Vec<(String, Backoff)>,
    /// When to look again, though nothing changes.
    pub again: Option<Duration>,
    /// Events.
    pub notes: Vec<(EventType, &'static str, String)>,
}

/// The new pod and the old one of a node.
type Pair<'a> = (Option<&'a Arc<SlimPod>>, Option<&'a Arc<SlimPod>>);
type ByNode<'a> = BTreeMap<&'a str, Vec<&'a Arc<SlimPod>>>;

/// What to do: first what is missing or too much, and when that is done, the rolling update.
pub(super) fn reconcile(observed: Observed<'_>, now: Timestamp) -> Decision {
    let pods = by_node(observed.pods);
    let mut decision = Decision::default();
    for node in observed.nodes {
        keep(observed, node, &pods, &mut decision, now);
    }
    for (node, pods) in &pods {
        if observed.nodes.iter().all(|own| own.metadata.name.as_deref() != Some(node)) {
            let waiting = pods.iter().filter(|pod| pod.spec.node_name.as_ref().is_none_or(|name| name.is_empty()));
            decision.delete.extend(waiting.copied().cloned());
        }
    }
    if decision.create.is_empty() && decision.delete.is_empty() && strategy(observed.set) == "RollingUpdate" {
        roll(observed, pods, &mut decision, now);
    }
    decision.create.truncate(BURST);
    decision.delete.truncate(BURST);
    decision
}

fn by_node(pods: &[Arc<SlimPod>]) -> ByNode<'_> {
    let mut nodes = ByNode::new();
    for pod in pods.iter().filter(|pod| !(pod.is_terminal() && pod.is_terminating())) {
        if let Some(node) = target(pod) {
            nodes.entry(node).or_default().push(pod);
        }
    }
    for pods in nodes.values_mut() {
        pods.sort_by_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (pod.spec.node_name.as_ref().is_none_or(|node| node.is_empty()), created, pod.metadata.name.clone())
        });
    }
    nodes
}

fn keep(observed: Observed<'_>, node: &Node, pods: &ByNode<'_>, decision: &mut Decision, now: Timestamp) {
    let set = observed.set;
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let own = pods.get(name).map(Vec::as_slice).unwrap_or_default();
    let fit = fit(set, node);
    if fit == Fit::Leave {
        decision.delete.extend(own.iter().filter(|pod| !pod.is_terminating()).copied().cloned());
        return;
    }
    if own.is_empty() {
        if fit == Fit::Run {
            decision.create.push(name.to_owned());
        }
        return;
    }
    let mut running = Vec::new();
    for pod in own.iter().copied().filter(|pod| !pod.is_terminating()) {
        match &*pod.status.phase {
            "Failed" => fail(observed, pod, name, decision, now),
            "Succeeded" => {
                let note =
                    format!("Found succeeded daemon pod {} on node {name}, will try to delete it", full_name(pod));
                decision.notes.push((EventType::Normal, "SucceededDaemonPod", note));
                decision.delete.push(Arc::clone(pod));
            }
            _ => running.push(pod),
        }
    }
    if !allows_surge(set) {
        decision.delete.extend(running.into_iter().skip(1).cloned());
        return;
    }
    if running.is_empty() {
        if fit == Fit::Run {
            decision.create.push(name.to_owned());
        }
        return;
    }
    if running.len() == 1 {
        return;
    }
    let is_new = |pod: &SlimPod| label(pod, REVISION_LABEL) == Some(observed.hash);
    let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| is_new(pod));
    decision.delete.extend(
        new.iter()
            .chain(&old)
            .filter(|pod| ![new.first(), old.first()].into_iter().flatten().any(|first| Arc::ptr_eq(first, pod)))
            .copied()
            .cloned(),
    );
    if let (Some(new), Some(old)) = (new.first(), old.first())
        && (!old.is_ready() || is_available(new, min_ready_seconds(set), now))
    {
        decision.delete.push(Arc::clone(old));
    }
}

fn fail(observed: Observed<'_>, pod: &Arc<SlimPod>, node: &str, decision: &mut Decision, now: Timestamp) {
    let before = observed.backoff.get(node).copied();
    if let Some(left) = before.map(|before| before.left(now)).filter(|left| !left.is_zero()) {
        decision.again = Some(decision.again.map_or(left, |again| again.min(left)));
        return;
    }
    decision.backoff.push((node.to_owned(), Backoff::next(before, now)));
    let note = format!("Found failed daemon pod {} on node {node}, will try to kill it", full_name(pod));
    decision.notes.push((EventType::Warning, "FailedDaemonPod", note));
    decision.delete.push(Arc::clone(pod));
}

/// The pods of one node that are not being deleted: the new one and the old one; `None` if there are several of either.
fn pair<'a>(observed: Observed<'_>, pods: &[&'a Arc<SlimPod>]) -> Option<Pair<'a>> {
    let alive = pods.iter().copied().filter(|pod| !pod.is_terminating());
    let (new, old): (Vec<_>, Vec<_>) = alive.partition(|pod| is_updated(observed, pod));
    (new.len() <= 1 && old.len() <= 1).then(|| (new.first().copied(), old.first().copied()))
}

fn roll<'a>(observed: Observed<'a>, mut pods: ByNode<'a>, decision: &mut Decision, now: Timestamp) {
    let set = observed.set;
    let runs = |node: &&Arc<Node>| fit(set, node) == Fit::Run;
    let wanted: Vec<&str> =
        observed.nodes.iter().filter(runs).filter_map(|node| node.metadata.name.as_deref()).collect();
    for node in &wanted {
        pods.entry(node).or_default();
    }
    let total = i32::try_from(wanted.len()).unwrap_or(i32::MAX);
    let rolling = set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let count = |value: Option<&_>| value.map_or(0, |value| scaled(value, total, true));
    let surge = count(rolling.and_then(|rolling| rolling.max_surge.as_ref()));
    let mut unavailable = count(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()));
    if total > 0 && surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    let available = |pod: &SlimPod| is_available(pod, min_ready_seconds(set), now);
    if surge == 0 {
        let (mut lost, mut allowed, mut candidates) = (0, Vec::new(), Vec::new());
        for pods in pods.values() {
            match pair(observed, pods) {
                None | Some((None, None) | (Some(_), Some(_))) => lost += 1,
                Some((Some(new), None)) => lost += i32::from(!available(new)),
                Some((None, Some(old))) if !available(old) => {
                    allowed.push(Arc::clone(old));
                    lost += 1;
                }
                Some((None, Some(old))) => candidates.push(Arc::clone(old)),
            }
        }
        let room = usize::try_from(unavailable - lost).unwrap_or(0);
        decision.delete.extend(allowed.into_iter().chain(candidates.into_iter().take(room)));
        return;
    }
    let (mut surging, mut up, mut allowed, mut candidates, mut misplaced) = (0, 0, Vec::new(), Vec::new(), Vec::new());
    for (node, pods) in &pods {
        let Some((new, old)) = pair(observed, pods) else {
            surging += 1;
            continue;
        };
        up += i32::from(old.or(new).is_some_and(|pod| available(pod)));
        let Some(old) = old else { continue };
        match new {
            Some(new) if available(new) => decision.delete.push(Arc::clone(old)),
            Some(_) => surging += 1,
            None if !wanted.contains(node) => {
                if available(old) {
                    misplaced.push(Arc::clone(old));
                } else {
                    decision.delete.push(Arc::clone(old));
                }
            }
            None if available(old) => candidates.push((*node).to_owned()),
            None => allowed.push((*node).to_owned()),
        }
    }
    let room = usize::try_from(surge - surging).unwrap_or(0);
    let spare = usize::try_from(up - total).unwrap_or(0);
    decision.delete.extend(misplaced.into_iter().take(spare));
    decision.create.extend(allowed.into_iter().chain(candidates.into_iter().take(room)));
}

/// The status. While own writes are unseen, the generation that it stands for stays as it was.
pub(super) fn status(observed: Observed<'_>, settled: bool, now: Timestamp) -> DaemonSetStatus {
    let set = observed.set;
    let pods = by_node(observed.pods);
    let old = set.status.clone().unwrap_or_default();
    let (mut desired, mut current, mut misplaced, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0, 0);
    for node in observed.nodes {
        let own = pods.get(node.metadata.name.as_deref().unwrap_or_default()).and_then(|pods| pods.first());
        if fit(set, node) != Fit::Run {
            misplaced += i32::from(own.is_some());
            continue;
        }
        desired += 1;
        let Some(pod) = own else { continue };
        current += 1;
        ready += i32::from(pod.is_ready());
        available += i32::from(is_available(pod, min_ready_seconds(set), now));
        updated += i32::from(is_updated(observed, pod));
    }
    DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: current,
        number_misscheduled: misplaced,
        number_ready: ready,
        number_available: Some(available).filter(|count| *count > 0),
        number_unavailable: Some(desired - available).filter(|count| *count > 0),
        updated_number_scheduled: Some(updated).filter(|count| *count > 0),
        observed_generation: if settled { set.metadata.generation } else { old.observed_generation },
        collision_count: old.collision_count,
        conditions: old.conditions,
    }
}

/// Whether two statuses say the same, absent numbers being 0.
pub(super) fn same_status(a: &DaemonSetStatus, b: &DaemonSetStatus) -> bool {
    let numbers = |status: &DaemonSetStatus| {
        [
            status.desired_number_scheduled,
            status.current_number_scheduled,
            status.number_misscheduled,
            status.number_ready,
            status.number_available.unwrap_or(0),
            status.number_unavailable.unwrap_or(0),
            status.updated_number_scheduled.unwrap_or(0),
            status.collision_count.unwrap_or(0),
        ]
    };
    numbers(a) == numbers(b) && a.observed_generation == b.observed_generation
}

/// How long until a ready pod counts as available, at most.
pub(super) fn next_check(set: &DaemonSet, status: &DaemonSetStatus) -> Option<Duration> {
    let seconds = u64::try_from(min_ready_seconds(set)).ok().filter(|seconds| *seconds > 0)?;
    (status.number_ready != status.number_available.unwrap_or(0)).then(|| Duration::from_secs(seconds))
}

fn is_updated(observed: Observed<'_>, pod: &SlimPod) -> bool {
    let generation = generation(observed.set);
    label(pod, REVISION_LABEL) == Some(observed.hash)
        || generation.is_some_and(|generation| label(pod, GENERATION_LABEL) == Some(generation))
}

/// The generation of the template that old clients count by.
pub(super) fn generation(set: &DaemonSet) -> Option<&str> {
    let text = set.metadata.annotations.as_ref()?.get(GENERATION)?;
    text.parse::<i64>().ok().map(|_| text.as_str())
}

fn allows_surge(set: &DaemonSet) -> bool {
    let rolling = set.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
    strategy(set) == "RollingUpdate" && surge.is_some_and(|surge| scaled(surge, 1, true) > 0)
}

fn strategy(set: &DaemonSet) -> &str {
    let strategy = set.spec.update_strategy.as_ref();
    strategy.and_then(|strategy| strategy.type_.as_deref()).unwrap_or("RollingUpdate")
}

fn min_ready_seconds(set: &DaemonSet) -> i32 {
    set.spec.min_ready_seconds.unwrap_or(0)
}

fn label<'a>(pod: &'a SlimPod, key: &str) -> Option<&'a str> {
    pod.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn full_name(pod: &SlimPod) -> String {
    let name = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", name(&pod.metadata.namespace), name(&pod.metadata.name))
}
