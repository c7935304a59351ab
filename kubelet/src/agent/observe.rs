//! What runs of a pod, from containerd: at the start from what an earlier kubelet left, then by each look.
//!
//! Invariant: an end is written into the container's labels before its task is deleted, so that no kubelet ever misses it.
//! Ended tasks are deleted later ([`Worker::reap`]).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tracing::{debug, warn};

use super::record::{Exit, Record};
use super::worker::Worker;
use crate::logs::reader;
use crate::pod::observation::{ContainerObservation, ContainerState, Reason};
use crate::pod::plan;
use crate::pod::resolve::mounts::termination_log;
use crate::probes::Before;
use crate::runtime::containerd::TaskStatus;

/// The most of a termination message's file that is read (upstream: `MaxContainerTerminationMessageLength`).
const MESSAGE_BYTES: u64 = 4096;
/// The most of a log that becomes a termination message (upstream: `MaxContainerTerminationMessageLogLength`, `…LogLines`).
const FALLBACK_BYTES: usize = 2048;
const FALLBACK_LINES: u64 = 80;

impl Worker {
    /// Takes over what an earlier kubelet left of the pod.
    pub(super) async fn recover(&mut self) {
        match self.node.sandboxes.find(&self.uid).await {
            Ok(Some(sandbox)) => self.adopt_sandbox(sandbox),
            Ok(None) => {}
            Err(error) => warn!(pod = %self.shown(), %error, "the pod's sandbox can't be read and is made anew"),
        }
        for (name, runs) in self.records.clone() {
            let Some((latest, earlier)) = runs.split_last() else { continue };
            for run in &runs {
                self.node.pods.own(&run.id(), &self.uid);
            }
            let state = match latest.ended() {
                Some(ended) => ContainerState::Ended(ended),
                None => running(latest.started_at),
            };
            let seen = ContainerObservation {
                id: latest.id(),
                attempt: latest.attempt,
                short_runs: latest.short_runs,
                image: latest.image.clone(),
                image_id: latest.image_id.clone(),
                volume_images: latest.volume_images.clone(),
                resources: latest.resources.clone(),
                restart: latest.restart,
                state,
                last: earlier.last().and_then(Record::ended),
            };
            self.seen.containers.insert(name, seen);
        }
        if self.seen.containers.is_empty() && !self.seen.sandbox {
            return;
        }
        debug!(pod = %self.shown(), containers = self.seen.containers.len(), "pod taken over");
        if self.gone || plan::is_terminal(&self.pod) {
            return;
        }
        if let Err((_, error)) = self.mount_volumes().await {
            warn!(pod = %self.shown(), %error, "the volumes of a running pod can't be refreshed");
        }
        for (name, seen) in &self.seen.containers {
            self.start_probes(name, &seen.id, Some(before(&self.pod, name)));
        }
        self.observe().await;
    }

    /// Looks at the containers that ran when last seen, and at their probes.
    pub(super) async fn observe(&mut self) {
        let running: Vec<_> = self.seen.containers.iter().filter(|(_, seen)| is_running(seen)).collect();
        let running: Vec<_> = running.into_iter().map(|(name, seen)| (name.clone(), seen.id.clone())).collect();
        for (name, id) in running {
            match self.node.containerd.task(&id).await {
                Ok(Some(task)) => match task.status {
                    TaskStatus::Stopped(exit) => self.ended(&name, &id, exit.exit_code, exit.exited_at).await,
                    TaskStatus::Created | TaskStatus::Running | TaskStatus::Paused => self.judge(&name),
                },
                Ok(None) => self.lost(&name, &id).await,
                // It is asked again soon; until then the last word holds.
                Err(error) => {
                    warn!(pod = %self.shown(), container = name, %error, "containerd can't be asked");
                    self.wake_by(Timestamp::now().checked_add(jiff::SignedDuration::from_secs(1)).ok());
                }
            }
        }
    }

    /// Brings what the probes say of a running container into what is seen of it.
    fn judge(&mut self, name: &str) {
        let health = self.node.probes.state(&self.uid, name).unwrap_or_default();
        let stop = self.stops.contains(name);
        if let Some(seen) = self.seen.containers.get_mut(name)
            && let ContainerState::Running { started, ready, unhealthy, stopping, .. } = &mut seen.state
        {
            (*started, *ready, *unhealthy) = (health.started, health.ready, health.unhealthy());
            *stopping = stop;
        }
    }

    async fn ended(&mut self, name: &str, id: &str, code: u32, at: Timestamp) {
        let code = i32::try_from(code).unwrap_or(i32::MAX);
        let oom = code != 0 && self.node.cgroups.oom_kills(&self.cgroup().join(id)) > 0;
        let reason = match code {
            _ if oom => "OOMKilled",
            0 => "Completed",
            _ => "Error",
        };
        let message = self.written_message(name).await;
        let mut exit = Exit { code, reason: reason.to_owned(), message, at };
        self.note_end(name, id, exit.clone()).await;
        if exit.message.is_none() && code != 0 && self.container(name).is_some_and(|container| falls_back(&container)) {
            // Only a deleted task has its driver write what is left of the log.
            let deleted = self.node.containerd.delete_task(id).await.is_ok();
            exit.message = self.logged_message(name).await;
            self.note_end(name, id, exit).await;
            if deleted {
                return;
            }
        }
        self.dead.insert(id.to_owned(), Timestamp::MIN);
    }

    /// Its process is unknown to containerd: the machine, or containerd's state, was lost meanwhile.
    async fn lost(&mut self, name: &str, id: &str) {
        let message = "The container could not be located when the pod was terminated";
        let exit = Exit {
            code: 137,
            reason: "ContainerStatusUnknown".to_owned(),
            message: Some(message.to_owned()),
            at: Timestamp::now(),
        };
        self.note_end(name, id, exit).await;
    }

    pub(super) async fn note_end(&mut self, name: &str, id: &str, exit: Exit) {
        self.node.probes.stop(&self.uid, name);
        self.stops.ended(name);
        if let Err(error) = self.node.containerd.update_labels(id, exit.labels()).await {
            warn!(pod = %self.shown(), container = name, %error, "a container's end can't be noted");
        }
        let Some(run) = self.records.get_mut(name).and_then(|runs| runs.last_mut()) else { return };
        run.ended = Some(exit);
        let Some(ended) = run.ended() else { return };
        debug!(pod = %self.shown(), container = name, exit_code = ended.exit_code, reason = ended.reason, "container ended");
        if let Some(seen) = self.seen.containers.get_mut(name) {
            seen.state = ContainerState::Ended(ended);
        }
    }

    /// The termination message that the container wrote into its file.
    async fn written_message(&self, name: &str) -> Option<String> {
        let attempt = self.seen.containers.get(name)?.attempt;
        let path = termination_log(&self.node.pod_dir(&self.uid), name, attempt);
        read_start(&path, MESSAGE_BYTES).await.filter(|text| !text.is_empty())
    }

    /// The end of the log, which stands in for a message.
    async fn logged_message(&self, name: &str) -> Option<String> {
        let attempt = self.seen.containers.get(name)?.attempt;
        let text = reader::last(self.log_path(name, attempt), FALLBACK_LINES, FALLBACK_BYTES).await.ok()?;
        Some(String::from_utf8_lossy(&text).into_owned()).filter(|text| !text.is_empty())
    }

    /// Notes why a container could not be made or started.
    pub(super) fn note_wait(&mut self, name: &str, reason: &str, message: String) {
        self.seen.waiting.insert(name.to_owned(), Reason { reason: reason.to_owned(), message });
    }
}

/// A run that has just been started or taken over.
pub(super) fn running(started_at: Timestamp) -> ContainerState {
    ContainerState::Running { started_at, started: false, ready: false, unhealthy: false, stopping: false }
}

/// What the API says of a container that ran before this kubelet did.
fn before(pod: &Pod, name: &str) -> Before {
    let status = pod.status.as_ref();
    let lists = status.map(|status| [&status.init_container_statuses, &status.container_statuses]);
    let mut found = lists.into_iter().flatten().flat_map(|list| list.iter().flatten());
    found
        .find(|own| own.name == name)
        .map_or_else(Before::default, |own| Before { started: own.started.unwrap_or(false), ready: own.ready })
}

fn is_running(seen: &ContainerObservation) -> bool {
    matches!(seen.state, ContainerState::Running { .. })
}

fn falls_back(container: &Container) -> bool {
    container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError")
}

async fn read_start(path: &std::path::Path, bytes: u64) -> Option<String> {
    use tokio::io::AsyncReadExt as _;
    let file = tokio::fs::File::open(path).await.ok()?;
    let mut text = Vec::new();
    file.take(bytes).read_to_end(&mut text).await.ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}
