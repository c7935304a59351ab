//! Startup, readiness and liveness probes of containers.
//!
//! Invariant: a container has at most one task for each kind of probe, and all tasks end with [`Probes::stop`],
//! [`Probes::stop_pod`] or the token given to [`Probes::new`]. What a result means is decided by `tally`, which is pure;
//! [`action`] does the probing and knows no thresholds.
//!
//! Data flow: the agent says which container runs ([`Probes::start`], once its postStart hook is done); workers probe, keep
//! its [`ProbeState`] and send a [`Change`] when that turns; the agent reads the state and plans again.

pub mod action;
mod dial;
mod grpc;
pub mod http;
mod tally;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Probe};
use parking_lot::Mutex;
use skep_client::EventRecorder;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use action::{ExecError, ExecOutput, ExecRunner, Outcome, ProbeError, Prober};
use worker::Worker;

/// How many changes may wait for the agent; a worker whose change finds no room waits with its next probe.
const CHANGES: usize = 256;

/// What a probe asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Whether the container has come up; the other kinds wait for it.
    Startup,
    /// Whether it can be given work.
    Readiness,
    /// Whether it still works; one that does not is started anew.
    Liveness,
}

impl ProbeKind {
    /// As events name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
        }
    }
}

/// A running container that is to be probed.
#[derive(Debug, Clone)]
pub struct Target {
    /// The pod's UID.
    pub pod_uid: String,
    /// What events about it regard: see [`container_reference`].
    pub reference: ObjectReference,
    /// Its specification.
    pub container: Container,
    /// containerd's id of this run.
    pub container_id: String,
    /// The pod's primary address; none of a pod without network.
    pub address: Option<IpAddr>,
    /// Since when it runs.
    pub started_at: Timestamp,
    /// How its status stood when this kubelet found it running; none when this kubelet started it.
    pub before: Option<Before>,
}

/// What the API said of a container that ran before the kubelet did: it stays true until a probe says otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Before {
    /// `started` of its status.
    pub started: bool,
    /// `ready` of its status.
    pub ready: bool,
}

/// A probe that gave up on its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GaveUp {
    /// Startup or liveness.
    pub kind: ProbeKind,
    /// The probe's own `terminationGracePeriodSeconds`, which goes before the pod's.
    pub grace_seconds: Option<i64>,
}

impl GaveUp {
    /// The note of the event `Killing`.
    pub fn note(self, container: &str) -> String {
        format!("Container {container} failed {} probe, will be restarted", self.kind.as_str().to_lowercase())
    }
}

/// What the probes say of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeState {
    /// The startup probe passed, or there is none.
    pub started: bool,
    /// It is started, and the readiness probe passes or there is none.
    pub ready: bool,
    /// Set when a startup or liveness probe wants it stopped.
    pub gave_up: Option<GaveUp>,
}

impl ProbeState {
    /// Whether it is to be stopped.
    pub fn unhealthy(&self) -> bool {
        self.gave_up.is_some()
    }
}

/// The state of a container turned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The pod's UID.
    pub pod_uid: String,
    /// The container's name.
    pub container: String,
}

/// The probes of all containers of this node. Cheap to clone.
#[derive(Clone)]
pub struct Probes {
    inner: Arc<Inner>,
}

struct Inner {
    prober: Arc<Prober>,
    events: EventRecorder,
    changes: mpsc::Sender<Change>,
    stop: CancellationToken,
    tasks: TaskTracker,
    containers: Mutex<HashMap<(String, String), Entry>>,
}

/// The probes of one run of a container.
struct Entry {
    container_id: String,
    shared: Arc<Shared>,
    stop: CancellationToken,
    /// Ends the probes that could have the container started anew.
    quiet: CancellationToken,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// What the workers of one container know together.
pub(crate) struct Shared {
    state: Mutex<ProbeState>,
    started: watch::Sender<bool>,
}

impl Probes {
    /// Nothing is probed before [`Self::start`]. The receiver must be read as long as containers are probed.
    pub fn new(prober: Arc<Prober>, events: EventRecorder, stop: CancellationToken) -> (Self, mpsc::Receiver<Change>) {
        let (changes, receiver) = mpsc::channel(CHANGES);
        let tasks = TaskTracker::new();
        let containers = Mutex::new(HashMap::new());
        (Self { inner: Arc::new(Inner { prober, events, changes, stop, tasks, containers }) }, receiver)
    }

    /// Probes a container that runs, and ends the probes of its run before. The same run again changes nothing.
    ///
    /// A container without probes is started and ready from here on.
    pub fn start(&self, target: Target) {
        let inner = &self.inner;
        let key = (target.pod_uid.clone(), target.container.name.clone());
        let mut containers = inner.containers.lock();
        if containers.get(&key).is_some_and(|entry| entry.container_id == target.container_id) {
            return;
        }
        let has = |kind: ProbeKind| kind.of(&target.container).is_some();
        let before = target.before.unwrap_or_default();
        let started = !has(ProbeKind::Startup) || before.started;
        let passes = !has(ProbeKind::Readiness) || before.ready;
        let state = ProbeState { started, ready: passes && started, gave_up: None };
        let shared = Arc::new(Shared { state: Mutex::new(state), started: watch::Sender::new(started) });
        let stop = inner.stop.child_token();
        let quiet = stop.child_token();
        let target = Arc::new(target);
        for kind in [ProbeKind::Startup, ProbeKind::Readiness, ProbeKind::Liveness] {
            let Some(probe) = kind.of(&target.container) else { continue };
            if kind == ProbeKind::Startup && started {
                continue;
            }
            let worker = Worker {
                kind,
                probe: probe.clone(),
                target: Arc::clone(&target),
                prober: Arc::clone(&inner.prober),
                events: inner.events.clone(),
                shared: Arc::clone(&shared),
                changes: inner.changes.clone(),
            };
            let token = if kind == ProbeKind::Readiness { stop.clone() } else { quiet.clone() };
            inner.tasks.spawn(async move { token.run_until_cancelled(worker.run()).await });
        }
        let container_id = target.container_id.clone();
        containers.insert(key, Entry { container_id, shared, stop, quiet });
    }

    /// What the probes say of a container; none for one that was not started or was stopped.
    pub fn state(&self, pod_uid: &str, container: &str) -> Option<ProbeState> {
        let key = (pod_uid.to_owned(), container.to_owned());
        self.inner.containers.lock().get(&key).map(|entry| *entry.shared.state.lock())
    }

    /// Ends the probes that could have containers of a pod started anew, since the pod is going; readiness goes on, so that
    /// traffic turns away from a container that stops answering.
    pub fn quiet(&self, pod_uid: &str) {
        let containers = self.inner.containers.lock();
        containers.iter().filter(|((uid, _), _)| uid == pod_uid).for_each(|(_, entry)| entry.quiet.cancel());
    }

    /// Ends the probes of a container that ended.
    pub fn stop(&self, pod_uid: &str, container: &str) {
        self.inner.containers.lock().remove(&(pod_uid.to_owned(), container.to_owned()));
    }

    /// Ends the probes of a pod.
    pub fn stop_pod(&self, pod_uid: &str) {
        self.inner.containers.lock().retain(|(uid, _), _| uid != pod_uid);
    }

    /// Ends all and waits for them.
    pub async fn shutdown(&self) {
        self.inner.containers.lock().clear();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

/// What events about a container of a pod regard (upstream: `GenerateContainerRef`).
pub fn container_reference(pod: &Pod, container: &str) -> ObjectReference {
    let spec = pod.spec.as_ref();
    let named = |list: Option<&Vec<Container>>| list.into_iter().flatten().any(|item| item.name == container);
    let list = if named(spec.map(|spec| &spec.containers)) {
        "containers"
    } else if named(spec.and_then(|spec| spec.init_containers.as_ref())) {
        "initContainers"
    } else {
        "ephemeralContainers"
    };
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: Some(format!("spec.{list}{{{container}}}")),
    }
}
