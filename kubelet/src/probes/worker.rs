//! The task of one probe of one run of a container (upstream: pkg/kubelet/prober/worker.go).

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Probe;
use skep_client::{EventRecorder, EventType};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::debug;

use super::action::{Outcome, ProbeError, Prober};
use super::tally::{Tally, at_least_one};
use super::{Change, GaveUp, ProbeKind, ProbeState, Shared, Target};

/// Tries of a probe that could not be done at all (upstream: `maxProbeRetries`).
const TRIES: u32 = 3;

pub(super) struct Worker {
    pub(super) kind: ProbeKind,
    pub(super) probe: Probe,
    pub(super) target: Arc<Target>,
    pub(super) prober: Arc<Prober>,
    pub(super) events: EventRecorder,
    pub(super) shared: Arc<Shared>,
    pub(super) changes: mpsc::Sender<Change>,
}

impl Worker {
    /// Probes until a startup or liveness probe has its final verdict; readiness goes on until it is cancelled.
    pub(super) async fn run(self) {
        if self.kind != ProbeKind::Startup {
            let mut started = self.shared.started.subscribe();
            // The sender lives as long as this worker does.
            let _ = started.wait_for(|started| *started).await;
        }
        let period = Duration::from_secs(at_least_one(self.probe.period_seconds, 10).into());
        let mut ticks = interval_at(Instant::now() + self.delay(period), period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut tally = Tally::default();
        loop {
            ticks.tick().await;
            let Some(success) = self.result().await else { continue };
            let Some(verdict) = tally.count(&self.probe, success) else { continue };
            if self.apply(verdict) {
                let change =
                    Change { pod_uid: self.target.pod_uid.clone(), container: self.target.container.name.clone() };
                // An agent that stopped listening has no use for changes.
                let _ = self.changes.send(change).await;
            }
            match (self.kind, verdict) {
                (ProbeKind::Startup, _) | (ProbeKind::Liveness, false) => return,
                (ProbeKind::Liveness, true) | (ProbeKind::Readiness, _) => {}
            }
        }
    }

    /// What is left of the initial delay; for a container that a kubelet before this one started, a part of the period
    /// besides, so that a kubelet that comes back does not probe everything at once.
    fn delay(&self, period: Duration) -> Duration {
        let initial = self.probe.initial_delay_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0);
        let ran = Timestamp::now().duration_since(self.target.started_at);
        let left = Duration::from_secs(initial).saturating_sub(ran.try_into().unwrap_or_default());
        if self.target.before.is_none() {
            return left;
        }
        let random = RandomState::new().hash_one(&self.target.container_id) % 1000;
        left + period.mul_f64(f64::from(u32::try_from(random).unwrap_or(0)) / 1000.0)
    }

    /// Probes once. None when it could not be told.
    async fn result(&self) -> Option<bool> {
        let timeout = Duration::from_secs(at_least_one(self.probe.timeout_seconds, 1).into());
        let mut tries = 1;
        let outcome = loop {
            match self.prober.probe(&self.probe, &self.target, timeout).await {
                Err(_) if tries < TRIES => tries += 1,
                outcome => break outcome,
            }
        };
        debug!(kind = self.kind.as_str(), container = self.target.container.name, ?outcome, "probed");
        let kind = self.kind.as_str();
        match outcome {
            Ok(Outcome::Success) => Some(true),
            Ok(Outcome::Warning(output)) => {
                self.record("ProbeWarning", format!("{kind} probe warning: {output}"));
                Some(true)
            }
            Ok(Outcome::Failure(output)) => {
                self.record("Unhealthy", format!("{kind} probe failed: {output}"));
                Some(false)
            }
            Err(ProbeError(error)) => {
                self.record("Unhealthy", format!("{kind} probe errored and resulted in unknown state: {error}"));
                None
            }
        }
    }

    fn record(&self, reason: &str, note: String) {
        self.events.record(self.target.reference.clone(), EventType::Warning, reason, "Probing", note);
    }

    /// Writes a verdict into the container's state. True when that turned.
    fn apply(&self, verdict: bool) -> bool {
        let mut state = self.shared.state.lock();
        let before = *state;
        match (self.kind, verdict) {
            (ProbeKind::Startup, true) => {
                // Without a readiness probe, a container is ready once it is started.
                let ready = self.target.container.readiness_probe.is_none();
                *state = ProbeState { started: true, ready, ..before };
            }
            (ProbeKind::Readiness, ready) => state.ready = ready,
            (ProbeKind::Liveness, true) => {}
            (ProbeKind::Startup | ProbeKind::Liveness, false) => {
                let grace_seconds = self.probe.termination_grace_period_seconds;
                state.gave_up = Some(GaveUp { kind: self.kind, grace_seconds });
            }
        }
        let turned = *state != before;
        if state.started {
            self.shared.started.send_if_modified(|started| !std::mem::replace(started, true));
        }
        turned
    }
}
