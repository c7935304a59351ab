//! One pod's worker: observes, plans, executes, reports, and waits for the next reason to do so again.
//!
//! ```text
//! API object ─┐
//! containerd ─┼─▶ observe ──▶ plan (pure) ──▶ steps ──▶ status ──▶ API
//! probes ─────┘      ▲                          │
//!                    └── pulls, stops, hooks ◀──┘   (tasks of the worker; each ends with a wake-up)
//! ```
//!
//! Invariant: nothing that takes long is awaited between two looks at the pod, so that a deletion is seen at once: images are
//! pulled, containers stopped and hooks run in tasks of the worker. Dropping a worker leaves containers as they are.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use skep_client::EventType;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::node::Node;
use super::pulls::Pulls;
use super::record::Record;
use super::registry::{Desired, View};
use super::retry::Retry;
use super::stop::Stops;
use crate::cgroups::QosClass;
use crate::objects::Freshness;
use crate::pod::observation::{ContainerObservation, ContainerState, PodObservation, Reason};
use crate::pod::plan::{self, Step};
use crate::pod::resize::Allocation;
use crate::pod::resolve::name_files::pod_hostname;
use crate::pod::resolve::of_ephemeral;
use crate::pod::resolve::resources::{pod_limits, qos_class};
use crate::sandbox::Sandbox;
use crate::volumes::MountedVolume;

/// How often a pod is looked at though nothing told to: volumes follow their sources then (upstream: `syncFrequency`).
const RESYNC: SignedDuration = SignedDuration::from_secs(60);
/// How old an object may be that a running pod's volumes are refreshed from: pods that share it share the request.
const RECENT: std::time::Duration = std::time::Duration::from_secs(30);
/// The wait before the task of an ended container, which could not be deleted, is tried again.
const REAP_AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// Steps that lead to further steps at once are few; a worker that goes on for ever would starve its node.
const MOST_ROUNDS: usize = 64;

/// What a task of the worker did.
pub(super) enum Done {
    /// An image is there, or why it is not.
    Pull(Box<super::pulls::Pulled>),
    /// A stop ended: its container, and why it could not be stopped.
    Stop(String, Result<(), String>),
    /// The task of an ended container was deleted, or is to be tried again: its id.
    Reap(String, bool),
    /// A write of the status ended.
    Report(Box<PodStatus>, Result<(), kube::Error>),
    /// The postStart hook of a container's run ended: its name, its id, and why it failed.
    PostStart(String, String, Result<(), String>),
}

/// The worker of one pod.
pub(super) struct Worker {
    pub(super) node: Arc<Node>,
    pub(super) uid: String,
    /// The API's object, with what the pod has been granted in place of the resources that it asks for.
    pub(super) pod: Arc<Pod>,
    pub(super) gone: bool,
    /// What the pod has been granted; none until it was looked at first.
    pub(super) allocation: Option<Allocation>,
    desired: watch::Receiver<Desired>,
    wake: Arc<Notify>,
    pub(super) seen: PodObservation,
    pub(super) records: BTreeMap<String, Vec<Record>>,
    pub(super) sandbox: Option<Sandbox>,
    pub(super) volumes: Option<BTreeMap<String, MountedVolume>>,
    /// By volume, the chain id of the image that this kubelet mounted there.
    pub(super) mounted_images: HashMap<String, String>,
    volumes_due: Timestamp,
    pub(super) pulls: Pulls,
    pub(super) stops: Stops,
    pub(super) tasks: JoinSet<Done>,
    pub(super) reported: Option<PodStatus>,
    pub(super) reporting: bool,
    /// When a status that could not be written is tried again.
    pub(super) report_at: Option<Timestamp>,
    /// Ended containers whose tasks are still there, and when they are to be deleted; never while that is under way.
    pub(super) dead: HashMap<String, Timestamp>,
    retry: Retry,
    /// When a container whose making failed is tried again.
    pub(super) retries: HashMap<String, Timestamp>,
    /// The ends of back-offs that an event told of.
    backed_off: HashMap<String, Timestamp>,
    /// The stop signals of images, by container.
    pub(super) signals: HashMap<String, String>,
    wake_at: Option<Timestamp>,
    cleaned: bool,
}

impl Worker {
    /// A worker that goes on from `records`, which an earlier kubelet left in containerd.
    pub(super) fn new(
        node: Arc<Node>,
        desired: watch::Receiver<Desired>,
        wake: Arc<Notify>,
        records: Vec<Record>,
    ) -> Self {
        let (pod, gone) = {
            let desired = desired.borrow();
            (desired.pod.clone(), desired.gone)
        };
        let mut by_name: BTreeMap<String, Vec<Record>> = BTreeMap::new();
        for record in records {
            by_name.entry(record.container.clone()).or_default().push(record);
        }
        by_name.values_mut().for_each(|runs| runs.sort_by_key(|run| run.attempt));
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            node,
            pod,
            gone,
            allocation: None,
            desired,
            wake,
            seen: PodObservation::default(),
            records: by_name,
            sandbox: None,
            volumes: None,
            mounted_images: HashMap::new(),
            volumes_due: Timestamp::MIN,
            pulls: Pulls::default(),
            stops: Stops::default(),
            tasks: JoinSet::new(),
            reported: None,
            reporting: false,
            report_at: None,
            dead: HashMap::new(),
            retry: Retry::default(),
            retries: HashMap::new(),
            backed_off: HashMap::new(),
            signals: HashMap::new(),
            wake_at: None,
            cleaned: false,
        }
    }

    /// Runs until nothing of the pod is left, or `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) -> String {
        self.recover().await;
        loop {
            if self.round().await {
                info!(pod = %self.shown(), "pod is gone from the node");
                break;
            }
            let pause = self.pause();
            tokio::select! {
                () = stop.cancelled() => break,
                changed = self.desired.changed() => if changed.is_err() { break },
                () = self.wake.notified() => {}
                Some(done) = self.tasks.join_next() => self.apply(done),
                () = tokio::time::sleep(pause) => {}
            }
            // What came together is handled together.
            while let Some(done) = self.tasks.try_join_next() {
                self.apply(done);
            }
        }
        self.node.probes.stop_pod(&self.uid);
        self.uid
    }

    /// Looks, acts, looks again while that changes something, and reports. True when nothing is left of the pod.
    async fn round(&mut self) -> bool {
        let desired = self.desired.borrow_and_update().clone();
        self.gone = desired.gone;
        self.pod = self.allocate(desired.pod);
        self.wake_at = None;
        for _ in 0..MOST_ROUNDS {
            self.observe().await;
            let now = Timestamp::now();
            self.actuate(now).await;
            let pod = self.wanted(now);
            let plan = plan::plan(&pod, &self.seen.runtime_state(), now);
            self.explain(&pod, &plan, now);
            self.wake_by(plan.wake_at);
            self.stops.hurry(&plan::stop_grace(&pod));
            if plan.steps.is_empty() {
                self.refresh_volumes(now).await;
                self.report();
                self.reap(now);
                return false;
            }
            let mut changed = false;
            for step in plan.steps {
                match step {
                    step if self.waits(&step, now) => {}
                    // The last word on its containers goes before the object.
                    Step::DeleteFromApi => return self.report() && self.finish(now).await,
                    step => changed |= self.execute(&pod, step, now).await,
                }
            }
            if !changed {
                self.report();
                return false;
            }
        }
        self.report();
        self.wake.notify_one();
        false
    }

    /// The pod as the plan is to see it: an object that is gone is one whose deletion was asked for.
    fn wanted(&self, now: Timestamp) -> Pod {
        let mut pod = (*self.pod).clone();
        if self.gone && pod.metadata.deletion_timestamp.is_none() {
            pod.metadata.deletion_timestamp = Some(Time(now));
        }
        // The kubelet's own start time goes before what it reported: the deadline must not wait for the report.
        if let Some(start) = self.reported.as_ref().and_then(|status| status.start_time.clone()) {
            pod.status.get_or_insert_default().start_time.get_or_insert(start);
        }
        pod
    }

    /// Notes why containers wait, and why the pod failed, where the plan knows.
    fn explain(&mut self, pod: &Pod, plan: &plan::Plan, now: Timestamp) {
        self.seen.waiting.retain(|_, why| why.reason != "CrashLoopBackOff");
        for (name, until) in &plan.backing_off {
            let wait = self.seen.containers.get(name).map_or(SignedDuration::ZERO, |seen| match &seen.state {
                ContainerState::Ended(ended) => until.duration_since(ended.finished_at),
                ContainerState::Running { .. } => SignedDuration::ZERO,
            });
            let message = format!(
                "back-off {} restarting failed container={name} pod={}({})",
                go_duration(wait),
                pod_full_name(pod),
                self.uid
            );
            self.seen
                .waiting
                .insert(name.clone(), Reason { reason: "CrashLoopBackOff".to_owned(), message: message.clone() });
            if self.backed_off.insert(name.clone(), *until) != Some(*until) {
                let note =
                    format!("Back-off restarting failed container {name} in pod {}({})", pod_full_name(pod), self.uid);
                self.node.event(pod, Some(name), EventType::Warning, "BackOff", note);
            }
        }
        if plan::exceeds_deadline(pod, &self.seen.runtime_state(), now) && self.seen.failed.is_none() {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            self.node.event(pod, None, EventType::Normal, "DeadlineExceeded", message.clone());
            self.seen.failed = Some(Reason { reason: "DeadlineExceeded".to_owned(), message });
        }
    }

    /// Executes one step; true when the pod is to be planned anew at once.
    async fn execute(&mut self, pod: &Pod, step: Step, now: Timestamp) -> bool {
        match step {
            Step::CreateSandbox => match self.create_sandbox().await {
                Ok(()) => {
                    self.retry.succeeded(&step);
                    true
                }
                Err((reason, message)) => {
                    warn!(pod = %self.shown(), reason, %message, "the pod can't be prepared yet");
                    self.node.event(pod, None, EventType::Warning, reason, message);
                    self.failed(&step, now);
                    false
                }
            },
            Step::Start { ref container, attempt } => self.start(container, attempt, now).await,
            Step::Stop { ref container, grace } => {
                self.stop_container(container, grace);
                false
            }
            Step::RemoveSandbox => match self.remove_sandbox().await {
                Ok(()) => {
                    self.retry.succeeded(&step);
                    true
                }
                Err(error) => {
                    warn!(pod = %self.shown(), %error, "the pod's sandbox can't be removed yet");
                    self.failed(&step, now);
                    false
                }
            },
            // It ends the round before it comes here.
            Step::DeleteFromApi => false,
        }
    }

    async fn create_sandbox(&mut self) -> Result<(), (&'static str, String)> {
        let pod = self.pod.clone();
        self.mount_volumes().await?;
        let cgroup = self.cgroup();
        let limits = pod_limits(&pod, None);
        // A few writes to the cgroup file system.
        self.node
            .cgroups
            .apply(&cgroup, limits)
            .map_err(|error| ("FailedCreatePodContainer", format!("unable to ensure pod container exists: {error}")))?;
        let hostname = pod_hostname(&pod, &self.node.context.cluster_domain)
            .map_err(|error| ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}")))?;
        let spec = super::start::sandbox_spec(&pod, hostname.kernel);
        let sandbox = self
            .node
            .sandboxes
            .create(&spec)
            .await
            .map_err(|error| ("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {error}")))?;
        debug!(pod = %self.shown(), addresses = ?sandbox.addresses, "sandbox made");
        self.adopt_sandbox(sandbox);
        Ok(())
    }

    pub(super) fn adopt_sandbox(&mut self, sandbox: Sandbox) {
        let host_network = self.pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        self.seen.addresses = if host_network { self.node.addresses.clone() } else { sandbox.addresses.clone() };
        self.seen.sandbox = true;
        self.sandbox = Some(sandbox);
    }

    /// Makes the volumes ready, if they are not.
    pub(super) async fn mount_volumes(&mut self) -> Result<(), (&'static str, String)> {
        if self.volumes.is_none() {
            let set_up = self.node.volumes.set_up(&self.pod, &self.node.context.allocatable, Freshness::Now);
            self.volumes = Some(set_up.await.map_err(|error| ("FailedMount", error.to_string()))?);
            self.volumes_due = Timestamp::now().saturating_add(RESYNC).unwrap_or(Timestamp::MAX);
        }
        Ok(())
    }

    /// Brings what changed in ConfigMaps, Secrets and tokens into the volumes of a pod that runs.
    async fn refresh_volumes(&mut self, now: Timestamp) {
        if self.volumes.is_none() || self.pod.metadata.deletion_timestamp.is_some() || self.gone || !self.seen.sandbox {
            return;
        }
        if self.volumes_due <= now {
            self.volumes_due = now.saturating_add(RESYNC).unwrap_or(Timestamp::MAX);
            match self.node.volumes.set_up(&self.pod, &self.node.context.allocatable, Freshness::Within(RECENT)).await {
                Ok(volumes) => self.volumes = Some(volumes),
                // What was mounted stays; upstream warns and tries again as well.
                Err(error) => {
                    let pod = self.pod.clone();
                    self.node.event(&pod, None, EventType::Warning, "FailedMount", error.to_string());
                }
            }
        }
        self.wake_by(Some(self.volumes_due));
    }

    /// The network, the namespaces, the cgroup and the volumes go; ended containers stay, with their logs.
    async fn remove_sandbox(&mut self) -> Result<(), String> {
        self.node.probes.stop_pod(&self.uid);
        self.node.sandboxes.remove(&self.uid).await.map_err(|error| error.to_string())?;
        self.tear_down_volumes().await?;
        self.remove_cgroup()?;
        // Last, so that what failed is asked for again.
        (self.seen.sandbox, self.sandbox, self.volumes) = (false, None, None);
        Ok(())
    }

    fn remove_cgroup(&self) -> Result<(), String> {
        // Of a pod that an earlier kubelet left, the class is not known.
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            let path = self.node.cgroups.pod_path(class, &self.uid);
            self.node.cgroups.remove_all(&path).map_err(|error| format!("cgroup {error}"))?;
        }
        Ok(())
    }

    /// Removes the rest, then the object. True when all is done.
    async fn finish(&mut self, now: Timestamp) -> bool {
        if !self.cleaned {
            if let Err(error) = self.clean_up().await {
                warn!(pod = %self.shown(), %error, "the pod can't be cleaned up yet");
                self.failed(&Step::DeleteFromApi, now);
                return false;
            }
            self.cleaned = true;
        }
        if !self.gone
            && let Err(error) = self.delete_object().await
        {
            warn!(pod = %self.shown(), %error, "the pod's object can't be deleted yet");
            self.failed(&Step::DeleteFromApi, now);
            return false;
        }
        true
    }

    async fn clean_up(&mut self) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        for record in self.records.values().flatten() {
            self.node.containerd.remove(&record.id()).await.map_err(|error| text(&error))?;
        }
        self.records.clear();
        self.node.sandboxes.remove(&self.uid).await.map_err(|error| text(&error))?;
        self.tear_down_volumes().await?;
        self.remove_cgroup()?;
        let (namespace, name) = self.names();
        for folder in [
            self.node.pod_logs(&namespace, &name, &self.uid),
            self.node.pod_dir(&self.uid),
            self.node.run.join("pods").join(&self.uid),
        ] {
            match tokio::fs::remove_dir_all(&folder).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(format!("{}: {error}", folder.display()));
                }
                Err(_) | Ok(()) => {}
            }
        }
        Ok(())
    }

    fn apply(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Pull(pulled)) => self.pulled(*pulled),
            Ok(Done::Stop(container, result)) => {
                self.stops.ended(&container);
                let step = Step::Stop { container, grace: SignedDuration::ZERO };
                match result {
                    Ok(()) => self.retry.succeeded(&step),
                    Err(error) => {
                        warn!(pod = %self.shown(), ?step, %error, "a container could not be stopped");
                        self.retry.failed(&step, Timestamp::now());
                    }
                }
            }
            Ok(Done::Report(status, result)) => self.reported(*status, result),
            Ok(Done::Reap(id, true)) => drop(self.dead.remove(&id)),
            Ok(Done::Reap(id, false)) => {
                let again_at = Timestamp::now().checked_add(REAP_AGAIN).unwrap_or(Timestamp::MAX);
                self.dead.insert(id, again_at);
            }
            Ok(Done::PostStart(container, _, Err(error))) => self.post_start_failed(&container, &error),
            Ok(Done::PostStart(container, id, Ok(()))) => self.post_started(&container, &id),
            // What the task was about would be waited for without end: the worker fails as its task did.
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => debug!(pod = %self.shown(), %error, "a task of the pod was given up"),
        }
    }

    /// Deletes the tasks of ended containers: their shim ends with the last task of the pod, which takes long, so that one
    /// whose pod goes on is kept until another container runs.
    fn reap(&mut self, now: Timestamp) {
        let runs = |seen: &ContainerObservation| matches!(seen.state, ContainerState::Running { .. });
        let waits = self.seen.waiting.values().any(|why| why.reason == "CrashLoopBackOff");
        let over = waits || plan::is_finished(&self.pod, &self.seen.runtime_state());
        if !over && !self.seen.containers.values().any(runs) {
            return;
        }
        let mut next = None;
        for (id, due) in &mut self.dead {
            if *due > now {
                next = [next, Some(*due)].into_iter().flatten().min();
                continue;
            }
            *due = Timestamp::MAX;
            let (containerd, id) = (self.node.containerd.clone(), id.clone());
            self.tasks.spawn(async move {
                let deleted = containerd.delete_task(&id).await;
                Done::Reap(id, deleted.is_ok())
            });
        }
        self.wake_by(next);
    }

    /// Whether a step of this kind failed and is not due yet.
    fn waits(&mut self, step: &Step, now: Timestamp) -> bool {
        let until = self.retry.waits_until(step, now);
        self.wake_by(until);
        until.is_some()
    }

    fn failed(&mut self, step: &Step, now: Timestamp) {
        self.retry.failed(step, now);
        self.waits(step, now);
    }

    /// Wakes the worker at the latest at this time. Holds until the next round, which has to ask for it anew.
    pub(super) fn wake_by(&mut self, at: Option<Timestamp>) {
        self.wake_at = [self.wake_at, at].into_iter().flatten().min();
    }

    fn pause(&self) -> std::time::Duration {
        let resync = Timestamp::now().checked_add(RESYNC).unwrap_or(Timestamp::MAX);
        let at = self.wake_at.unwrap_or(resync).min(resync);
        at.duration_since(Timestamp::now()).try_into().unwrap_or_default()
    }

    pub(super) fn cgroup(&self) -> PathBuf {
        self.node.cgroups.pod_path(qos_class(&self.pod), &self.uid)
    }

    pub(super) fn names(&self) -> (String, String) {
        let meta = &self.pod.metadata;
        (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }

    pub(super) fn shown(&self) -> String {
        let (namespace, name) = self.names();
        format!("{namespace}/{name}")
    }

    /// A container of the pod, of whichever kind.
    pub(super) fn container(&self, name: &str) -> Option<Cow<'_, Container>> {
        let spec = self.pod.spec.as_ref()?;
        let lasting = all_containers(spec).find(|container| container.name == name);
        lasting.map(Cow::Borrowed).or_else(|| of_ephemeral(ephemeral(spec, name)?).ok().map(Cow::Owned))
    }

    /// Shows what is seen to those who ask for logs and streams.
    pub(super) fn show(&self, status: PodStatus) {
        let mut pod = (*self.pod).clone();
        pod.status = Some(status);
        self.node.pods.show(&self.uid, View { pod: Arc::new(pod), seen: self.seen.clone() });
    }
}

/// Init containers, then containers.
fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// The ephemeral container of this name.
pub(super) fn ephemeral<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a EphemeralContainer> {
    spec.ephemeral_containers.iter().flatten().find(|container| container.name == name)
}

/// Whether the pod has a container of this name, of whichever kind.
pub(super) fn has_container(spec: &PodSpec, name: &str) -> bool {
    all_containers(spec).any(|container| container.name == name) || ephemeral(spec, name).is_some()
}

/// `name_namespace`, as upstream's `GetPodFullName` writes it.
pub(super) fn pod_full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    format!("{}_{}", meta.name.as_deref().unwrap_or_default(), meta.namespace.as_deref().unwrap_or_default())
}

/// A duration as Go writes it: `10s`, `1m20s`, `5m0s`.
pub(super) fn go_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        let written = [10, 80, 300].map(|seconds| go_duration(SignedDuration::from_secs(seconds)));
        assert_eq!(written, ["10s", "1m20s", "5m0s"]);
    }
}
