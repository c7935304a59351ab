//! A Deployment's status and conditions. Follows `sync.go` (`calculateStatus`) and `progress.go`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::replicas::{available, desired, max_unavailable, size};

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const COMPLETE: &str = "NewReplicaSetAvailable";
const PAUSED: &str = "DeploymentPaused";

/// A condition that changed now.
pub(super) fn condition(
    r#type: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: Some(r#type.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

pub(super) fn find<'a>(status: &'a DeploymentStatus, r#type: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_.as_deref() == Some(r#type))
}

/// Sets a condition, unless one of the same status and reason is there; the time of transition stays while the status does.
pub(super) fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(current) = find(status, condition.type_.as_deref().unwrap_or_default())
        && current.status == condition.status
    {
        if current.reason == condition.reason {
            return;
        }
        condition.last_transition_time = current.last_transition_time.clone();
    }
    remove(status, condition.type_.as_deref().unwrap_or_default());
    status.conditions.get_or_insert_default().push(condition);
}

fn remove(status: &mut DeploymentStatus, r#type: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_.as_deref() != Some(r#type));
    }
}

/// Whether a lack of progress shall be reported at all.
pub(super) fn has_progress_deadline(deployment: &Deployment) -> bool {
    deadline(deployment).is_some()
}

fn deadline(deployment: &Deployment) -> Option<i32> {
    let seconds = deployment.spec.progress_deadline_seconds;
    seconds.filter(|seconds| *seconds != i32::MAX)
}

/// Notes pausing and resuming, so that the deadline doesn't run while paused (`checkPausedConditions`).
pub(super) fn note_pause(deployment: &Deployment, status: &mut DeploymentStatus, paused: bool, now: Timestamp) {
    let reason = find(status, PROGRESSING).and_then(|condition| condition.reason.as_deref());
    if !has_progress_deadline(deployment) || reason == Some(TIMED_OUT) {
        return;
    }
    let noted = reason == Some(PAUSED);
    if paused && !noted {
        set(status, condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused".to_owned(), now));
    } else if !paused && noted {
        let resumed = condition(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".to_owned(), now);
        set(status, resumed);
    }
}

/// The status as its ReplicaSets make it; `new` is the one of the current template, `current` carries the conditions.
pub(super) fn calculate(
    deployment: &Deployment,
    current: &DeploymentStatus,
    sets: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |number: &dyn Fn(&ReplicaSet) -> i32| sets.iter().map(|set| number(set)).sum::<i32>();
    let actual = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let available = sum(&available);
    let nonzero = |number: i32| Some(number).filter(|number| *number != 0);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: nonzero(sum(&actual)),
        updated_replicas: nonzero(new.map_or(0, actual)),
        ready_replicas: nonzero(sum(&ready)),
        available_replicas: nonzero(available),
        unavailable_replicas: nonzero((sum(&size) - available).max(0)),
        terminating_replicas: terminating(sets),
        collision_count: current.collision_count,
        conditions: current.conditions.clone(),
    };
    let condition = if available >= desired(deployment) - max_unavailable(deployment) {
        condition(AVAILABLE, "True", "MinimumReplicasAvailable", "Deployment has minimum availability.".to_owned(), now)
    } else {
        let text = "Deployment does not have minimum availability.".to_owned();
        condition(AVAILABLE, "False", "MinimumReplicasUnavailable", text, now)
    };
    set(&mut status, condition);
    status
}

/// The terminating pods of all sets; unknown as soon as one set doesn't say.
fn terminating(sets: &[&ReplicaSet]) -> Option<i32> {
    let mut total = 0;
    for status in sets.iter().filter_map(|set| set.status.as_ref()) {
        match status.terminating_replicas {
            Some(count) => total += count,
            None if status.observed_generation.unwrap_or(0) == 0 => {}
            None => return None,
        }
    }
    Some(total)
}

/// Adds to a calculated status what the rollout's progress and its ReplicaSets' failures are (`syncRolloutStatus`).
/// `before` is the status to measure progress from.
pub(super) fn note_progress(
    deployment: &Deployment,
    before: &DeploymentStatus,
    status: &mut DeploymentStatus,
    sets: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) {
    let current = find(before, PROGRESSING).cloned();
    let reason = current.as_ref().and_then(|condition| condition.reason.as_deref());
    if !has_progress_deadline(deployment) {
        remove(status, PROGRESSING);
    } else if !(status.replicas == status.updated_replicas && reason == Some(COMPLETE)) {
        let subject = match new.and_then(|set| set.metadata.name.as_deref()) {
            Some(name) => format!("ReplicaSet \"{name}\""),
            None => format!("Deployment \"{}\"", deployment.metadata.name.as_deref().unwrap_or_default()),
        };
        if is_complete(deployment, status) {
            let text = format!("{subject} has successfully progressed.");
            set(status, condition(PROGRESSING, "True", COMPLETE, text, now));
        } else if has_progressed(before, status) {
            let text = format!("{subject} is progressing.");
            let mut progressing = condition(PROGRESSING, "True", "ReplicaSetUpdated", text, now);
            if let Some(current) = current.filter(|current| current.status.as_deref() == Some("True")) {
                progressing.last_transition_time = current.last_transition_time;
            }
            // Even with the same reason: the time of update is what the deadline counts from.
            remove(status, PROGRESSING);
            set(status, progressing);
        } else if has_timed_out(deployment, status, now) {
            let text = format!("{subject} has timed out progressing.");
            set(status, condition(PROGRESSING, "False", TIMED_OUT, text, now));
        }
    }
    match replica_failure(sets, new) {
        Some(failure) => set(status, failure),
        None => remove(status, REPLICA_FAILURE),
    }
}

/// Whether all desired replicas are updated and available and no old one is left (`DeploymentComplete`).
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let desired = desired(deployment);
    status.updated_replicas.unwrap_or(0) == desired
        && status.replicas.unwrap_or(0) == desired
        && status.available_replicas.unwrap_or(0) == desired
        && status.observed_generation >= deployment.metadata.generation
}

fn has_progressed(before: &DeploymentStatus, status: &DeploymentStatus) -> bool {
    let updated = |status: &DeploymentStatus| status.updated_replicas.unwrap_or(0);
    let old = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - updated(status);
    updated(status) > updated(before)
        || old(status) < old(before)
        || status.ready_replicas.unwrap_or(0) > before.ready_replicas.unwrap_or(0)
        || status.available_replicas.unwrap_or(0) > before.available_replicas.unwrap_or(0)
}

fn has_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    let (Some(seconds), Some(condition)) = (deadline(deployment), find(status, PROGRESSING)) else { return false };
    match condition.reason.as_deref() {
        Some(COMPLETE) => false,
        Some(TIMED_OUT) => true,
        _ => {
            let from = condition.last_update_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
            from + SignedDuration::from_secs(seconds.into()) < now
        }
    }
}

/// The failure of the new ReplicaSet, or of the first old one that has one.
fn replica_failure(sets: &[&ReplicaSet], new: Option<&ReplicaSet>) -> Option<DeploymentCondition> {
    let failure = |set: &ReplicaSet| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        let failure = conditions.iter().find(|condition| condition.type_.as_deref() == Some(REPLICA_FAILURE))?;
        Some(DeploymentCondition {
            type_: failure.type_.clone(),
            status: failure.status.clone(),
            reason: failure.reason.clone(),
            message: failure.message.clone(),
            last_update_time: failure.last_transition_time.clone(),
            last_transition_time: failure.last_transition_time.clone(),
        })
    };
    new.and_then(failure).or_else(|| sets.iter().find_map(|set| failure(set)))
}

/// When to look again whether the rollout timed out (`requeueStuckDeployment`).
pub(super) fn next_progress_check(
    deployment: &Deployment,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<Duration> {
    let (seconds, condition) = (deadline(deployment)?, find(status, PROGRESSING)?);
    let reason = condition.reason.as_deref();
    if is_complete(deployment, status) || reason == Some(TIMED_OUT) || reason == Some(COMPLETE) {
        return None;
    }
    let due = condition.last_update_time.as_ref()?.0 + SignedDuration::from_secs(seconds.into());
    Some(Duration::try_from(due.duration_since(now)).unwrap_or_default() + Duration::from_secs(1))
}

/// Whether two statuses say the same, absent numbers and empty lists being equal to zero and none.
pub(super) fn same(a: &DeploymentStatus, b: &DeploymentStatus) -> bool {
    let normal = |status: &DeploymentStatus| {
        let mut status = status.clone();
        for number in [
            &mut status.replicas,
            &mut status.updated_replicas,
            &mut status.ready_replicas,
            &mut status.available_replicas,
            &mut status.unavailable_replicas,
        ] {
            *number = Some(number.unwrap_or(0));
        }
        status.conditions.get_or_insert_default();
        status
    };
    normal(a) == normal(b)
}
