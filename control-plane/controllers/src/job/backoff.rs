//! How long a Job waits before it replaces failed pods: 10 s after the first failure, doubled with each, 10 minutes at most.
//!
//! Follows `backoff_utils.go`.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use skep_client::slim::{SlimContainerState, SlimContainerStatus, SlimPod};

const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(600);

/// The failures of a Job since its last success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    failures: u32,
    last_failure: Option<Timestamp>,
}

impl Backoff {
    /// The record after these pods ended.
    pub(super) fn after(self, succeeded: &[Arc<SlimPod>], failed: &[Arc<SlimPod>]) -> Self {
        let last_success = succeeded.iter().map(|pod| finished_at(pod)).max();
        let counted = failed.iter().map(|pod| finished_at(pod));
        let counted: Vec<Timestamp> =
            counted.filter(|time| last_success.is_none_or(|success| *time > success)).collect();
        let before = if last_success.is_some() { Self::default() } else { self };
        let failures = u32::try_from(counted.len()).unwrap_or(u32::MAX);
        Self {
            failures: before.failures.saturating_add(failures),
            last_failure: counted.into_iter().max().or(before.last_failure),
        }
    }

    /// How long to wait from now on.
    pub(super) fn remaining(self, now: Timestamp) -> Duration {
        self.last_failure.map_or(Duration::ZERO, |last| remaining(self.failures, last, now))
    }
}

/// How long to wait after that many failures, the last of them then.
pub(super) fn remaining(failures: u32, last_failure: Timestamp, now: Timestamp) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    let factor = 2u32.checked_pow(doublings);
    let delay = factor.and_then(|factor| FIRST.checked_mul(factor)).map_or(LONGEST, |delay| delay.min(LONGEST));
    let elapsed = now.duration_since(last_failure);
    match Duration::try_from(elapsed) {
        Ok(elapsed) => delay.saturating_sub(elapsed),
        // The failure lies in the future: clocks differ.
        Err(_) => delay.saturating_add(elapsed.unsigned_abs()),
    }
}

/// When a pod ended: the last container's end, or when it became not ready, or when its deletion began, or its creation.
pub(super) fn finished_at(pod: &SlimPod) -> Timestamp {
    let sidecar = |status: &&SlimContainerStatus| {
        let mut containers = pod.spec.init_containers.iter();
        containers.any(|own| own.name == status.name && own.restart_policy.as_deref() == Some("Always"))
    };
    let statuses = pod.status.container_statuses.iter();
    let statuses = statuses.chain(pod.status.init_container_statuses.iter().filter(sidecar));
    let ends: Option<Vec<Timestamp>> = statuses
        .map(|status| match status.state {
            SlimContainerState::Terminated { finished_at, .. } => finished_at,
            SlimContainerState::Waiting | SlimContainerState::Running => None,
        })
        .collect();
    let not_ready = || {
        let condition = pod.condition("Ready").filter(|condition| &*condition.status == "False")?;
        condition.last_transition_time.as_ref().map(|time| time.0)
    };
    let deleted = || {
        let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
        pod.metadata.deletion_timestamp.as_ref().and_then(|time| time.0.checked_sub(grace).ok())
    };
    ends.and_then(|ends| ends.into_iter().max())
        .or_else(not_ready)
        .or_else(deleted)
        .or_else(|| pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}
