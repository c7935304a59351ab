//! What all workers of a node share.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use skep_client::{EventRecorder, EventType};

use tokio_util::task::TaskTracker;

use super::registry::Registry;
use crate::cgroups::Hierarchy;
use crate::cni::Cni;
use crate::images::Images;
use crate::logs::writer::Rotation;
use crate::objects::Objects;
use crate::pod::lifecycle::Hooks;
use crate::pod::resolve::NodeContext;
use crate::probes::{Probes, container_reference};
use crate::runtime::containerd::Containerd;
use crate::runtime::host::HostFacts;
use crate::sandbox::Sandboxes;
use crate::volumes::Volumes;

/// The node: its name and folders, and the parts that act.
pub(super) struct Node {
    /// The Node object's name.
    pub(super) name: String,
    /// Its addresses, the primary one first.
    pub(super) addresses: Vec<IpAddr>,
    /// The API.
    pub(super) client: Client,
    /// Containers.
    pub(super) containerd: Containerd,
    /// Images.
    pub(super) images: Images,
    /// Namespaces and network.
    pub(super) sandboxes: Sandboxes,
    /// The pods' network.
    pub(super) cni: Cni,
    /// Volumes.
    pub(super) volumes: Volumes,
    /// ConfigMaps, Secrets and Services.
    pub(super) objects: Arc<Objects>,
    /// Limits.
    pub(super) cgroups: Hierarchy,
    /// Probes.
    pub(super) probes: Probes,
    /// Hooks of containers' lives.
    pub(super) hooks: Hooks,
    /// What containers are told of the node.
    pub(super) context: NodeContext,
    /// What a privileged container may have.
    pub(super) host: HostFacts,
    /// Events about pods.
    pub(super) recorder: EventRecorder,
    /// `pods/<uid>` is below it.
    pub(super) root: PathBuf,
    /// FIFOs and sockets of containers are below it.
    pub(super) run: PathBuf,
    /// Logs of containers are below it.
    pub(super) logs: PathBuf,
    /// How logs are rotated.
    pub(super) rotation: Rotation,
    /// This program, which is also the log driver.
    pub(super) binary: PathBuf,
    /// Tasks that wait for the end of containers whose logs are followed.
    pub(super) followers: TaskTracker,
    /// The pods.
    pub(super) pods: Registry,
}

impl Node {
    /// The folder of a pod's own files.
    pub(super) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// The folder of a pod's logs (upstream: `BuildPodLogsDirectory`).
    pub(super) fn pod_logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.logs.join(format!("{namespace}_{name}_{uid}"))
    }

    /// Records an event about a pod, or about one of its containers.
    pub(super) fn event(&self, pod: &Pod, container: Option<&str>, r#type: EventType, reason: &str, note: String) {
        let mut regarding = container_reference(pod, container.unwrap_or_default());
        if container.is_none() {
            regarding.field_path = None;
        }
        self.recorder.record(regarding, r#type, reason, reason, note);
    }
}
