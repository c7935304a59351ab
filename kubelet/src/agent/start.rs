//! Starting one container: image, snapshot, specification, containerd's container and task, probes and postStart.
//!
//! Invariant: a container's labels are in containerd before its process exists; what fails half-way is removed before the
//! next try, which has the same id.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use skep_client::EventType;
use tracing::{debug, warn};

use super::image_volumes::{VolumeImages, image_ref};
use super::observe::running;
use super::pulls::Wanted;
use super::record::{Exit, Record, container_id};
use super::worker::{Done, Worker};
use crate::images::Image;
use crate::pod::lifecycle::HookTarget;
use crate::pod::observation::{ContainerObservation, ContainerState};
use crate::pod::plan;
use crate::pod::resize::resizable;
use crate::probes::{Before, Target, container_reference};
use crate::runtime::containerd::NewContainer;
use crate::sandbox::{PortMapping, SandboxSpec};

/// The wait before a container that could not be made is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

/// Why a container did not start: upstream's reason, and what went wrong.
pub(super) struct Failure {
    reason: &'static str,
    message: String,
}

impl Failure {
    pub(super) fn config(message: impl ToString) -> Self {
        Self { reason: "CreateContainerConfigError", message: message.to_string() }
    }

    pub(super) fn create(message: impl ToString) -> Self {
        Self { reason: "CreateContainerError", message: message.to_string() }
    }
}

impl Worker {
    /// Starts a container's run, as far as it can be now; true when it runs, or failed for good.
    pub(super) async fn start(&mut self, name: &str, attempt: u32, now: Timestamp) -> bool {
        if let Some(at) = self.retries.get(name).copied().filter(|at| *at > now) {
            self.wake_by(Some(at));
            return false;
        }
        let Some(container) = self.container(name).map(Cow::into_owned) else { return false };
        let Some(volume_images) = self.volume_images(&container, now) else { return false };
        let wanted = Wanted::of(&container);
        let Some(image) = self.image(name, wanted.clone(), now) else { return false };
        let pod = self.pod.clone();
        if let Err((reason, message)) = self.mount_volumes().await {
            self.node.event(&pod, Some(name), EventType::Warning, reason, message);
            self.retries.insert(name.to_owned(), now.saturating_add(RETRY).unwrap_or(Timestamp::MAX));
            return false;
        }
        let id = container_id(&self.uid, name, attempt);
        let mut record = self.record(&container, &image, attempt, now);
        record.volume_images = volume_images.iter().map(|(name, image)| (name.clone(), image_ref(image))).collect();
        match self.create(&container, &image, &volume_images, &record).await {
            Ok(()) => {}
            Err(Failure { reason, message }) => {
                warn!(pod = %self.shown(), container = name, reason, %message, "a container can't be made");
                self.node.event(&pod, Some(name), EventType::Warning, "Failed", format!("Error: {message}"));
                self.note_wait(name, reason, message);
                self.retries.insert(name.to_owned(), now.saturating_add(RETRY).unwrap_or(Timestamp::MAX));
                self.wake_by(self.retries.get(name).copied());
                return false;
            }
        }
        self.node.event(&pod, Some(name), EventType::Normal, "Created", format!("Container created: {name}"));
        self.retries.remove(name);
        self.seen.waiting.remove(name);
        self.used(&wanted);
        self.used_volumes(&container);
        self.signals.insert(name.to_owned(), image.config.stop_signal.clone().unwrap_or_default());
        let last = self.records.get(name).and_then(|runs| runs.last()).and_then(Record::ended);
        let seen = ContainerObservation {
            id: id.clone(),
            attempt,
            short_runs: record.short_runs,
            image: record.image.clone(),
            image_id: record.image_id.clone(),
            volume_images: record.volume_images.clone(),
            resources: record.resources.clone(),
            restart: false,
            state: running(now),
            last,
        };
        self.node.pods.own(&id, &self.uid);
        self.records.entry(name.to_owned()).or_default().push(record);
        self.forget_old_runs(name).await;
        let log = self.log_path(name, attempt);
        match self.launch(&container, &id, &log).await {
            Ok(pid) => {
                debug!(pod = %self.shown(), container = name, attempt, pid, "container started");
                self.seen.containers.insert(name.to_owned(), seen);
                self.node.event(&pod, Some(name), EventType::Normal, "Started", format!("Container started: {name}"));
                self.post_start(&container, &id);
            }
            Err(error) => {
                let message = error.to_string();
                self.node.event(&pod, Some(name), EventType::Warning, "Failed", format!("Error: {message}"));
                self.seen.containers.insert(name.to_owned(), seen);
                let exit = Exit { code: 128, reason: "StartError".to_owned(), message: Some(message), at: now };
                self.note_end(name, &id, exit).await;
                let _ = self.node.containerd.delete_task(&id).await;
            }
        }
        true
    }

    fn record(&self, container: &Container, image: &Image, attempt: u32, now: Timestamp) -> Record {
        let before = self.seen.containers.get(&container.name);
        let short_runs = before.map_or(0, |before| match &before.state {
            ContainerState::Ended(ended) => {
                plan::next_short_runs(before.short_runs, ended.started_at, ended.finished_at)
            }
            ContainerState::Running { .. } => before.short_runs,
        });
        let (namespace, name) = self.names();
        Record {
            node: self.node.name.clone(),
            uid: self.uid.clone(),
            name,
            namespace,
            container: container.name.clone(),
            attempt,
            short_runs,
            image: image.reference.clone(),
            image_id: image_ref(image),
            volume_images: BTreeMap::new(),
            started_at: now,
            resources: resizable(container.resources.as_ref()),
            restart: false,
            ended: None,
        }
    }

    /// Makes containerd's container, with nothing running in it yet.
    async fn create(
        &mut self,
        container: &Container,
        image: &Image,
        volume_images: &VolumeImages,
        record: &Record,
    ) -> Result<(), Failure> {
        let id = record.id();
        self.mount_images(volume_images).await?;
        // Left by a try that failed half-way, or by a kubelet that died in the middle of it.
        self.node.containerd.remove(&id).await.map_err(Failure::create)?;
        let mounts = self.node.containerd.prepare_snapshot(&id, &image.chain_id).await.map_err(Failure::create)?;
        let spec = match self.spec(container, image, record, &mounts).await {
            Ok(spec) => spec,
            Err(failure) => {
                let _ = self.node.containerd.remove(&id).await;
                return Err(failure);
            }
        };
        let new = NewContainer {
            id,
            image: image.reference.clone(),
            labels: record.labels(),
            spec: spec.to_oci_on(&self.node.host),
        };
        self.node.containerd.create(new).await.map_err(Failure::create)
    }

    /// Starts the process of a container that was made, and its log driver.
    async fn launch(&self, container: &Container, id: &str, log: &Path) -> Result<u32, String> {
        let target = self.node.target(container, id, log);
        let launch = target.launch(&self.node.binary).await.map_err(|error| format!("log driver: {error}"))?;
        self.node.containerd.start(id, &launch.io).await.map_err(|error| error.to_string())
    }

    pub(super) fn log_path(&self, container: &str, attempt: u32) -> PathBuf {
        let (namespace, name) = self.names();
        self.node.pod_logs(&namespace, &name, &self.uid).join(container).join(format!("{attempt}.log"))
    }

    /// Keeps the latest run and the one before it, whose log and end can still be asked for.
    async fn forget_old_runs(&mut self, name: &str) {
        let Some(runs) = self.records.get_mut(name) else { return };
        let excess = runs.len().saturating_sub(2);
        let old: Vec<Record> = runs.drain(..excess).collect();
        for run in old {
            if let Err(error) = self.node.containerd.remove(&run.id()).await {
                warn!(pod = %self.shown(), container = name, attempt = run.attempt, %error, "an old run can't be removed");
            }
            let log = self.log_path(name, run.attempt);
            for file in crate::logs::writer::rotated(&log).unwrap_or_default().into_iter().chain([log]) {
                let _ = tokio::fs::remove_file(file).await;
            }
        }
    }

    /// Runs the postStart hook, after which probes begin.
    fn post_start(&mut self, container: &Container, id: &str) {
        if container.lifecycle.as_ref().is_none_or(|lifecycle| lifecycle.post_start.is_none()) {
            return self.start_probes(&container.name, id, None);
        }
        let (node, pod, container, id) = (self.node.clone(), self.pod.clone(), container.clone(), id.to_owned());
        let address = self.seen.addresses.first().copied();
        self.tasks.spawn(async move {
            let target = HookTarget { pod: &pod, container: &container, container_id: &id, address };
            let result = node.hooks.post_start(target).await.map_err(|error| error.to_string());
            Done::PostStart(container.name.clone(), id, result)
        });
    }

    /// Probes a container whose hook ran, if it is still the same run.
    pub(super) fn post_started(&self, name: &str, id: &str) {
        if self.seen.containers.get(name).is_some_and(|seen| seen.id == id) {
            self.start_probes(name, id, None);
        }
    }

    /// A container whose postStart hook failed is killed (upstream: `FailedPostStartHook`); the event was told by the hook.
    pub(super) fn post_start_failed(&mut self, name: &str, error: &str) {
        warn!(pod = %self.shown(), container = name, error, "a postStart hook failed");
        self.stop_container(name, plan::stop_grace(&self.pod.clone()));
    }

    /// Probes a container that runs; `before` is what the API said of one that ran before this kubelet did.
    pub(super) fn start_probes(&self, name: &str, id: &str, before: Option<Before>) {
        let Some(container) = self.container(name) else { return };
        let Some(ContainerState::Running { started_at, .. }) = self.seen.containers.get(name).map(|seen| &seen.state)
        else {
            return;
        };
        self.node.probes.start(Target {
            pod_uid: self.uid.clone(),
            reference: container_reference(&self.pod, name),
            container: container.into_owned(),
            container_id: id.to_owned(),
            address: self.seen.addresses.first().copied(),
            started_at: *started_at,
            before,
        });
    }
}

/// What the pod's sandbox is to be.
pub(super) fn sandbox_spec(pod: &Pod, hostname: String) -> SandboxSpec {
    let spec = pod.spec.clone().unwrap_or_default();
    let meta = &pod.metadata;
    let sysctls = spec.security_context.as_ref().and_then(|context| context.sysctls.as_ref());
    SandboxSpec {
        uid: meta.uid.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        hostname,
        host_network: spec.host_network == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        host_pid: spec.host_pid == Some(true),
        sysctls: sysctls.into_iter().flatten().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        ports: host_ports(&spec),
        annotations: meta.annotations.clone().unwrap_or_default(),
        shm_bytes: None,
    }
}

/// The ports of the node that lead into the pod.
fn host_ports(spec: &PodSpec) -> Vec<PortMapping> {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    let port = |number: i32| u16::try_from(number).ok().filter(|port| *port > 0);
    ports
        .filter_map(|own| {
            Some(PortMapping {
                host_port: own.host_port.and_then(port)?,
                container_port: port(own.container_port)?,
                protocol: own.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                host_ip: own.host_ip.clone(),
            })
        })
        .collect()
}
