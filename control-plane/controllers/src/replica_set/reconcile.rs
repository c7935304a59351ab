//! What a ReplicaSet needs: pure functions from what was seen to what to do.
//!
//! Follows `pkg/controller/replicaset/replica_set.go` (`manageReplicas`, `calculateStatus`) and
//! `controller_utils.go` (`ActivePodsWithRanks`).

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use skep_client::slim::SlimPod;

/// Upstream's `BurstReplicas`: the most pods that one pass creates or deletes.
pub(crate) const BURST: usize = 500;
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What was seen of a ReplicaSet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observed<'a> {
    /// The ReplicaSet.
    pub set: &'a ReplicaSet,
    /// Its active pods: claimed, neither ended nor being deleted.
    pub pods: &'a [Arc<SlimPod>],
    /// Pods of all ReplicaSets of the same owner, itself included: they make some nodes more crowded than others.
    pub related: &'a [Arc<SlimPod>],
    /// Whether the informer shows all own writes.
    pub settled: bool,
}

/// What to do.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Create that many pods from the template.
    Create(usize),
    /// Delete these.
    Delete(Vec<Arc<SlimPod>>),
}

/// What to do about the number of pods; nothing while own writes are unseen or the ReplicaSet is being deleted.
#[must_use]
pub(crate) fn reconcile(observed: Observed<'_>, now: Timestamp) -> Option<Action> {
    if !observed.settled || observed.set.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let desired = desired(observed.set);
    match observed.pods.len().cmp(&desired) {
        Ordering::Less => Some(Action::Create((desired - observed.pods.len()).min(BURST))),
        Ordering::Equal => None,
        Ordering::Greater => {
            let surplus = (observed.pods.len() - desired).min(BURST);
            Some(Action::Delete(pods_to_delete(observed.pods, observed.related, surplus, now)))
        }
    }
}

/// The first `count` pods in upstream's order of deletion.
fn pods_to_delete(pods: &[Arc<SlimPod>], related: &[Arc<SlimPod>], count: usize, now: Timestamp) -> Vec<Arc<SlimPod>> {
    let mut pods = pods.to_vec();
    if count < pods.len() {
        let mut crowd: HashMap<&str, usize> = HashMap::new();
        for pod in related.iter().filter(|pod| pod.is_active()) {
            *crowd.entry(pod.spec.node_name.as_deref().unwrap_or_default()).or_insert(0) += 1;
        }
        let rank = |pod: &SlimPod| crowd.get(pod.spec.node_name.as_deref().unwrap_or_default()).copied().unwrap_or(0);
        pods.sort_by(|a, b| deletion_order(a, b, rank(a), rank(b), now));
    }
    pods.truncate(count);
    pods
}

/// Which of two pods goes first; `Less` goes before.
fn deletion_order(a: &SlimPod, b: &SlimPod, rank_a: usize, rank_b: usize, now: Timestamp) -> Ordering {
    let by_uid = || a.metadata.uid.cmp(&b.metadata.uid);
    a.spec
        .node_name
        .is_some()
        .cmp(&b.spec.node_name.is_some())
        .then_with(|| phase_order(a).cmp(&phase_order(b)))
        .then_with(|| a.is_ready().cmp(&b.is_ready()))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| rank_b.cmp(&rank_a))
        .then_with(|| {
            let (ready_a, ready_b) = (ready_since(a), ready_since(b));
            if a.is_ready() && b.is_ready() && ready_a != ready_b {
                younger_first(ready_a, ready_b, now).then_with(by_uid)
            } else {
                Ordering::Equal
            }
        })
        .then_with(|| restarts(b).cmp(&restarts(a)))
        .then_with(|| {
            let created = |pod: &SlimPod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            if created(a) == created(b) {
                Ordering::Equal
            } else {
                younger_first(created(a), created(b), now).then_with(by_uid)
            }
        })
}

pub(crate) fn phase_order(pod: &SlimPod) -> u8 {
    match &*pod.status.phase {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    }
}

fn deletion_cost(pod: &SlimPod) -> i32 {
    let text = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DELETION_COST));
    // Upstream's `validFirstDigit`: no sign but a minus, no leading zero.
    let valid = |text: &&String| !text.starts_with('+') && (text.as_str() == "0" || !text.starts_with('0'));
    text.filter(valid).and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub(crate) fn ready_since(pod: &SlimPod) -> Option<Timestamp> {
    pod.condition("Ready")?.last_transition_time.as_ref().map(|time| time.0)
}

/// Younger pods first, in steps of powers of two, so that pods of about the same age are chosen by chance
/// (KEP-2185); an unknown time counts as youngest.
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, now: Timestamp) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) => age_rank(a, now).cmp(&age_rank(b, now)),
    }
}

fn age_rank(time: Timestamp, now: Timestamp) -> i64 {
    let age = now.as_nanosecond() - time.as_nanosecond();
    if age > 0 { i64::from(age.ilog2()) } else { -1 }
}

/// The most restarts of an ordinary container, then of a sidecar.
pub(crate) fn restarts(pod: &SlimPod) -> (i32, i32) {
    let ordinary = pod.status.container_statuses.iter().map(|status| status.restart_count).max().unwrap_or(0);
    let is_sidecar = |name: &str| {
        let mut containers = pod.spec.init_containers.iter();
        containers.any(|container| &*container.name == name && container.restart_policy.as_deref() == Some("Always"))
    };
    let sidecars = pod.status.init_container_statuses.iter().filter(|status| is_sidecar(&status.name));
    (ordinary, sidecars.map(|status| status.restart_count).max().unwrap_or(0))
}

/// The number of replicas that are asked for.
#[must_use]
pub(crate) fn desired(set: &ReplicaSet) -> usize {
    let replicas = set.spec.replicas.unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

/// Whether a pod has been ready for the minimum time (`podutil.IsPodAvailable`).
#[must_use]
pub(crate) fn is_available(pod: &SlimPod, min_ready_seconds: i32, now: Timestamp) -> bool {
    pod.is_ready()
        && (min_ready_seconds <= 0
            || ready_since(pod).is_some_and(|since| since + SignedDuration::from_secs(min_ready_seconds.into()) <= now))
}

/// The status of a ReplicaSet with these active and terminating pods; `failure` is what creating or deleting ended with.
#[must_use]
pub(crate) fn status(
    set: &ReplicaSet,
    pods: &[Arc<SlimPod>],
    terminating: usize,
    failure: Option<&str>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let min_ready = min_ready_seconds(set);
    let labels = set.spec.template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.as_ref());
    let labelled = |pod: &SlimPod| {
        let own = pod.metadata.labels.as_ref();
        labels.is_none_or(|labels| labels.iter().all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value)))
    };
    let count = |test: &dyn Fn(&SlimPod) -> bool| number(pods.iter().filter(|pod| test(pod)).count());
    let mut status = set.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.take().unwrap_or_default();
    let had_failure = conditions.iter().any(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE));
    match failure {
        Some(message) if !had_failure => {
            let reason = match pods.len().cmp(&desired(set)) {
                Ordering::Less => Some("FailedCreate"),
                Ordering::Greater => Some("FailedDelete"),
                Ordering::Equal => None,
            };
            conditions.push(ReplicaSetCondition {
                type_: Some(REPLICA_FAILURE.to_owned()),
                status: Some("True".to_owned()),
                reason: reason.map(str::to_owned),
                message: Some(message.to_owned()),
                last_transition_time: Some(Time(now)),
            });
        }
        Some(_) => {}
        None => conditions.retain(|condition| condition.type_.as_deref() != Some(REPLICA_FAILURE)),
    }
    ReplicaSetStatus {
        replicas: number(pods.len()),
        fully_labeled_replicas: Some(count(&labelled)),
        ready_replicas: Some(count(&SlimPod::is_ready)),
        available_replicas: Some(count(&|pod| is_available(pod, min_ready, now))),
        terminating_replicas: Some(number(terminating)),
        observed_generation: set.metadata.generation,
        conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
    }
}

/// Whether two statuses say the same, absent numbers being 0.
#[must_use]
pub(crate) fn same_status(a: &ReplicaSetStatus, b: &ReplicaSetStatus) -> bool {
    let numbers = |status: &ReplicaSetStatus| {
        [status.fully_labeled_replicas, status.ready_replicas, status.available_replicas].map(Option::unwrap_or_default)
    };
    a.replicas == b.replicas
        && numbers(a) == numbers(b)
        && a.terminating_replicas == b.terminating_replicas
        && a.observed_generation == b.observed_generation
        && a.conditions.as_deref().unwrap_or_default() == b.conditions.as_deref().unwrap_or_default()
}

/// When the next ready pod becomes available by the minimum time alone.
#[must_use]
pub(crate) fn next_check(set: &ReplicaSet, pods: &[Arc<SlimPod>], now: Timestamp) -> Option<Duration> {
    let min_ready = min_ready_seconds(set);
    let waiting = pods.iter().filter(|pod| pod.is_ready() && !is_available(pod, min_ready, now));
    let left = waiting.filter_map(|pod| {
        let available = ready_since(pod)? + SignedDuration::from_secs(min_ready.into());
        Duration::try_from(available.duration_since(now)).ok()
    });
    left.min()
}

fn min_ready_seconds(set: &ReplicaSet) -> i32 {
    set.spec.min_ready_seconds.unwrap_or(0)
}

fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
