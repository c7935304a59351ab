//! What was seen of one pod on this node: what its worker knows, its status is made of, and its next steps follow from.
//!
//! Invariant: plain data without I/O; [`PodObservation::runtime_state`] is the only way to what [`super::plan`] reads.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;

use super::plan::{Observed, Run, RuntimeState};

/// Why something waits or failed: upstream's CamelCase word, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// As `ImagePullBackOff`.
    pub reason: String,
    /// What a user reads.
    pub message: String,
}

/// A run that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// containerd's id of the container.
    pub id: String,
    /// 128 + N for signal N.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`, …
    pub reason: String,
    /// The termination message.
    pub message: Option<String>,
    /// When it started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
}

/// The state of a container's latest run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerState {
    /// Its process lives.
    Running {
        /// Since when.
        started_at: Timestamp,
        /// The startup probe passed, or there is none.
        started: bool,
        /// It is started, and the readiness probe passes or there is none.
        ready: bool,
        /// A liveness or startup probe gave up on it.
        unhealthy: bool,
        /// A stop is under way.
        stopping: bool,
    },
    /// It ended.
    Ended(Ended),
}

/// A container that ran at least once.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerObservation {
    /// containerd's id of the latest run.
    pub id: String,
    /// Which run it is, counted from 0: the restart count.
    pub attempt: u32,
    /// Runs in a row that failed to last: what the back-off grows with.
    pub short_runs: u32,
    /// The image as the status names it.
    pub image: String,
    /// The image's digest form, as `docker.io/library/busybox@sha256:…`, or its configuration's digest.
    pub image_id: String,
    /// The images that it mounts, in the same form, by volume.
    pub volume_images: BTreeMap<String, String>,
    /// What of its resources a resize may change, as its cgroup has them.
    pub resources: ResourceRequirements,
    /// Only a new run has what was granted: see [`super::plan::Observed::restart`].
    pub restart: bool,
    /// The latest run.
    pub state: ContainerState,
    /// The run before it.
    pub last: Option<Ended>,
}

/// All that was seen of a pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodObservation {
    /// The namespaces, the cgroup and the network are there.
    pub sandbox: bool,
    /// The pod's addresses, the primary one first; they outlive the sandbox, as in upstream's status.
    pub addresses: Vec<IpAddr>,
    /// By name, of containers that ran at least once.
    pub containers: BTreeMap<String, ContainerObservation>,
    /// By name, why a container has not been started (again): `ErrImagePull`, `CreateContainerConfigError`, `CrashLoopBackOff`, …
    pub waiting: BTreeMap<String, Reason>,
    /// Why the pod as a whole failed or was refused by this node (`OutOfcpu`, `DeadlineExceeded`, `Evicted`).
    pub failed: Option<Reason>,
    /// How a wish for other resources fares.
    pub resize: Resize,
}

/// How a pod's wish for other resources fares (KEP-1287).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resize {
    /// Why it is not granted: `Deferred` or `Infeasible`.
    pub pending: Option<Reason>,
    /// It is granted, and the cgroups are not all there yet.
    pub in_progress: bool,
    /// What hinders it.
    pub error: Option<String>,
}

impl PodObservation {
    /// What [`super::plan::plan`] decides by.
    pub fn runtime_state(&self) -> RuntimeState {
        let observed = |container: &ContainerObservation| Observed {
            attempt: container.attempt,
            short_runs: container.short_runs,
            restart: container.restart,
            run: match &container.state {
                ContainerState::Running { started, unhealthy, stopping, .. } => {
                    Run::Running { started: *started, unhealthy: *unhealthy, stopping: *stopping }
                }
                ContainerState::Ended(ended) => Run::Exited {
                    exit_code: ended.exit_code,
                    started_at: ended.started_at,
                    finished_at: ended.finished_at,
                },
            },
        };
        let containers = self.containers.iter().map(|(name, container)| (name.clone(), observed(container))).collect();
        RuntimeState { sandbox: self.sandbox, containers }
    }
}
