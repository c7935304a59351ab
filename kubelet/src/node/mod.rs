//! The Node object of this machine, kept true: registration, status, heartbeat.
//!
//! Invariant: `status`, `object` and `pressure` decide without I/O and clocks; `machine` only reads the machine,
//! `lease` and `registration` only speak with the API. What others write into a Node (labels, taints, conditions that are
//! not the kubelet's, extended resources) stays.
//!
//! Data flow: machine facts, images and [`Readiness`] → `status` → a patch of what differs from the Node that the watch
//! brought last. The agent reads the Node, the pressures and the addresses from [`NodeView`].

mod lease;
mod machine;
mod object;
mod pressure;
mod registration;
mod status;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::runtime::reflector::{ObjectRef, Store};
use skep_api::quantity::Quantity;
use tokio::sync::watch;

use crate::pod::status::NodeFacts;
pub use lease::{LEASE_NAMESPACE, renew as renew_lease};
pub use machine::{HugePages, Machine, Signals};
pub use pressure::{Pressure, PressureMonitor, ThresholdError, Thresholds};
pub use registration::NodeRegistration;
pub use status::{Observation, amounts, changed, node_status, status_patch};

/// The upstream release whose kubelet this one behaves as; what a Node shows as its version begins with it.
pub const KUBERNETES_VERSION: &str = "v1.37.2";

/// What the node is called, what it may hold, and how often it reports. [`NodeConfig::new`] has upstream's defaults.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The Node object's name.
    pub name: String,
    /// The label `kubernetes.io/hostname` and the address of type Hostname.
    pub hostname: String,
    /// `--node-ip`: at most one of each family, the primary one first; empty asks the routing table.
    pub node_ips: Vec<IpAddr>,
    /// The port of the kubelet's server.
    pub port: u16,
    /// The most pods.
    pub max_pods: u32,
    /// The most pods for each processor; 0 sets no such limit.
    pub pods_per_core: u32,
    /// `--node-labels`.
    pub labels: BTreeMap<String, String>,
    /// `--register-with-taints`: for a new Node only.
    pub taints: Vec<Taint>,
    /// `--provider-id`.
    pub provider_id: Option<String>,
    /// `--kube-reserved` and `--system-reserved` added up, by resource.
    pub reserved: BTreeMap<String, Quantity>,
    /// `--eviction-hard`.
    pub eviction: Thresholds,
    /// Its file system is the one of `ephemeral-storage` and `nodefs`.
    pub root_dir: PathBuf,
    /// Where containerd keeps images: `imagefs`.
    pub image_dir: PathBuf,
    /// How often the status is looked at.
    pub status_update: Duration,
    /// How often it is written though nothing changed.
    pub status_report: Duration,
    /// The most images listed in the status; none lists all.
    pub max_images: Option<usize>,
    /// How long others take the node for alive without a heartbeat; a quarter of it is the time between two.
    pub lease_duration: Duration,
}

impl NodeConfig {
    /// Upstream's defaults for a node of this name.
    pub fn new(name: &str, root_dir: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            hostname: name.to_owned(),
            node_ips: vec![],
            port: 10250,
            max_pods: 110,
            pods_per_core: 0,
            labels: BTreeMap::new(),
            taints: vec![],
            provider_id: None,
            reserved: BTreeMap::new(),
            eviction: Thresholds::default(),
            image_dir: root_dir.clone(),
            root_dir,
            status_update: Duration::from_secs(10),
            status_report: Duration::from_secs(300),
            max_images: Some(50),
            lease_duration: Duration::from_secs(40),
        }
    }
}

/// Whether pods can be run, as the agent sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Why containerd can't be used; empty when it can.
    pub runtime: Option<String>,
    /// Why pods get no network; empty when they do.
    pub network: Option<String>,
    /// containerd's version, as `1.6.20`; none while it was never asked.
    pub runtime_version: Option<String>,
}

/// An image on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeImage {
    /// Digests first, then tags.
    pub names: Vec<String>,
    /// Bytes on disk.
    pub size_bytes: i64,
}

/// Where the node's images are listed.
#[async_trait]
pub trait ImagesSource: Send + Sync + 'static {
    /// All images.
    ///
    /// # Errors
    /// A sentence for the log.
    async fn images(&self) -> Result<Vec<NodeImage>, String>;
}

/// Why a Node can't be described.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The machine's own files could not be read.
    #[error("can't read the machine's facts: {0}")]
    Machine(#[from] std::io::Error),
    /// No address was given, and the routing table names none.
    #[error("can't get ip address of node {node}. error: {source}")]
    Address {
        /// The node.
        node: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The API server did not do what was asked.
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// What the rest of the agent reads of the node. Cheap to clone.
#[derive(Clone)]
pub struct NodeView {
    name: Arc<str>,
    store: Store<Node>,
    pressure: watch::Receiver<Pressure>,
    addresses: watch::Receiver<Vec<IpAddr>>,
}

impl NodeView {
    /// The Node as the watch brought it last; none before the first time and when it was deleted.
    pub fn node(&self) -> Option<Arc<Node>> {
        self.store.get(&ObjectRef::new(&self.name))
    }

    /// What the node runs short of.
    pub fn pressure(&self) -> Pressure {
        *self.pressure.borrow()
    }

    /// Notices each change of [`Self::pressure`].
    pub fn pressure_changes(&self) -> watch::Receiver<Pressure> {
        self.pressure.clone()
    }

    /// What every pod's status says of the node; without addresses before the node knew its own.
    pub fn facts(&self) -> NodeFacts {
        NodeFacts { host_ips: self.addresses.borrow().clone() }
    }
}
