//! How many of its pods a PodDisruptionBudget lets go. Pure.
//!
//! Follows `disruption.go` (`trySync`, `buildDisruptedPodMap`, `updatePdbStatus`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use skep_client::slim::SlimPod;

use crate::deployment::replicas::scaled;

/// Upstream's `DeletionTimeout`: how long a pod that was evicted counts as going, though it isn't seen to.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);
/// Upstream's `stalePodDisruptionTimeout`: a pod that said that it is disrupted and is still not deleted is not.
const STALE: SignedDuration = SignedDuration::from_secs(120);
const ALLOWED: &str = "DisruptionAllowed";

/// What a budget needs to know of its pods' owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expectation {
    /// That number of pods is healthy enough; how many there should be is how many there are.
    Count(i32),
    /// How many there should be follows from the scale of the pods' owners.
    Scale,
    /// It says neither.
    Nothing,
}

pub(super) fn expectation(budget: &PodDisruptionBudget) -> Expectation {
    let Some(spec) = &budget.spec else { return Expectation::Nothing };
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(_), _) | (None, Some(IntOrString::String(_))) => Expectation::Scale,
        (None, Some(IntOrString::Int(count))) => Expectation::Count(*count),
        (None, None) => Expectation::Nothing,
    }
}

/// How many pods there should be and how many of them must stay healthy, when the owners' scale is `scale`.
pub(super) fn desired(budget: &PodDisruptionBudget, scale: i32) -> i32 {
    let spec = budget.spec.clone().unwrap_or_default();
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(unavailable), _) => (scale - scaled(unavailable, scale, true)).max(0),
        (None, Some(available)) => scaled(available, scale, true),
        (None, None) => 0,
    }
}

/// The status of a budget whose pods should be `expected`, `desired` of them healthy, and when to look again.
pub(super) fn status(
    budget: &PodDisruptionBudget,
    pods: &[Arc<SlimPod>],
    expected: i32,
    desired: i32,
    now: Timestamp,
) -> (PodDisruptionBudgetStatus, Option<Duration>) {
    let old = budget.status.clone().unwrap_or_default();
    let noted = old.disrupted_pods.clone().unwrap_or_default();
    let mut disrupted = BTreeMap::new();
    let mut again: Option<Duration> = None;
    let mut healthy = 0;
    for pod in pods.iter().filter(|pod| !pod.is_terminating()) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let end = noted.get(&name).and_then(|time| time.0.checked_add(DELETION_TIMEOUT).ok());
        match end.and_then(|end| Duration::try_from(end.duration_since(now)).ok()) {
            Some(left) => {
                again = Some(again.map_or(left, |again| again.min(left)));
                disrupted.extend(noted.get_key_value(&name).map(|(name, time)| (name.clone(), time.clone())));
            }
            None => healthy += i32::from(pod.is_ready()),
        }
    }
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let mut status = PodDisruptionBudgetStatus {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: Some(disrupted).filter(|pods| !pods.is_empty()),
        observed_generation: budget.metadata.generation,
        conditions: old.conditions,
    };
    let (reason, value) = if allowed > 0 { ("SufficientPods", "True") } else { ("InsufficientPods", "False") };
    set_condition(&mut status, value, reason, "", now);
    (status, again)
}

/// The status when the number of pods can't be told: nothing may go.
pub(super) fn failed(budget: &PodDisruptionBudget, cause: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    set_condition(&mut status, "False", "SyncFailed", cause, now);
    status
}

fn set_condition(status: &mut PodDisruptionBudgetStatus, value: &str, reason: &str, message: &str, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter().position(|condition| condition.type_ == ALLOWED).map(|at| conditions.remove(at));
    let since = old.filter(|old| old.status == value).map_or(Time(now), |old| old.last_transition_time);
    conditions.push(Condition {
        type_: ALLOWED.to_owned(),
        status: value.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since,
        observed_generation: status.observed_generation,
    });
}

/// Whether two statuses say the same.
pub(super) fn same_status(a: &PodDisruptionBudgetStatus, b: &PodDisruptionBudgetStatus) -> bool {
    let numbers = |status: &PodDisruptionBudgetStatus| {
        [status.current_healthy, status.desired_healthy, status.expected_pods, status.disruptions_allowed]
            .map(Option::unwrap_or_default)
    };
    let pods = |status: &PodDisruptionBudgetStatus| status.disrupted_pods.clone().unwrap_or_default();
    let condition = |status: &PodDisruptionBudgetStatus| {
        let found = status.conditions.iter().flatten().find(|condition| condition.type_ == ALLOWED);
        found.map(|own| (own.status.clone(), own.reason.clone(), own.message.clone()))
    };
    numbers(a) == numbers(b)
        && pods(a) == pods(b)
        && a.observed_generation == b.observed_generation
        && condition(a) == condition(b)
}

/// How long a pod may still say that it is disrupted, though nobody deletes it; `None` if it says no such thing.
pub(super) fn stale_after(pod: &SlimPod, now: Timestamp) -> Option<Duration> {
    let condition = pod.condition("DisruptionTarget").filter(|condition| &*condition.status == "True")?;
    if pod.is_terminating() || pod.is_terminal() || condition.reason.as_deref() == Some("TerminationByKubelet") {
        return None;
    }
    let since = condition.last_transition_time.as_ref()?.0;
    let left = since.checked_add(STALE).ok()?.duration_since(now);
    Some(Duration::try_from(left).unwrap_or_default())
}
