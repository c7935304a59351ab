//! What the scheduler, the controllers and the network agent read of a Pod.

use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Deserializer};

use super::{SlimCondition, metadata, nullable, slim_resource};

/// A Pod with the fields that decide where it runs, whether it is ready and who owns it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct SlimPod {
    /// Metadata without managed fields.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: SlimPodSpec,
    /// What is.
    #[serde(default, deserialize_with = "nullable")]
    pub status: SlimPodStatus,
}

slim_resource!(SlimPod, NamespaceResourceScope, "", "v1", "Pod", "pods");

impl SlimPod {
    /// The condition of that type, if the status has it.
    #[must_use]
    pub fn condition(&self, r#type: &str) -> Option<&SlimCondition> {
        self.status.conditions.iter().find(|condition| &*condition.r#type == r#type)
    }

    /// Whether the condition `Ready` is `True` (upstream: `podutil.IsPodReady`).
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|condition| &*condition.status == "True")
    }

    /// Whether its phase is `Succeeded` or `Failed`: it will never run again (`podutil.IsPodTerminal`).
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(&*self.status.phase, "Succeeded" | "Failed")
    }

    /// Whether it is being deleted.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Whether it counts as a running replica: neither terminal nor being deleted (`controller.IsPodActive`).
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.is_terminal() && !self.is_terminating()
    }
}

/// What is asked for of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimPodSpec {
    /// The node it is bound to.
    #[serde(default)]
    pub node_name: Option<Box<str>>,
    /// The scheduler that shall bind it; empty reads as `default-scheduler` at the API server already.
    #[serde(default, deserialize_with = "nullable")]
    pub scheduler_name: Box<str>,
    /// The priority that admission resolved from the class.
    #[serde(default)]
    pub priority: Option<i32>,
    /// `Never` or `PreemptLowerPriority`.
    #[serde(default)]
    pub preemption_policy: Option<Box<str>>,
    /// Labels that the node must have.
    #[serde(default, deserialize_with = "nullable")]
    pub node_selector: BTreeMap<String, String>,
    /// Node and pod affinity, boxed as most pods have none.
    #[serde(default)]
    pub affinity: Option<Box<Affinity>>,
    /// Taints that it bears.
    #[serde(default, deserialize_with = "nullable")]
    pub tolerations: Box<[Toleration]>,
    /// How replicas spread over domains.
    #[serde(default, deserialize_with = "nullable")]
    pub topology_spread_constraints: Box<[TopologySpreadConstraint]>,
    /// Names of the gates that hold it back from scheduling.
    #[serde(default, deserialize_with = "gates")]
    pub scheduling_gates: Box<[Box<str>]>,
    /// Whether it uses the node's network.
    #[serde(default, deserialize_with = "nullable")]
    pub host_network: bool,
    /// The name in the pod's DNS record, also for EndpointSlices.
    #[serde(default)]
    pub hostname: Option<Box<str>>,
    /// The headless Service that its DNS name is under.
    #[serde(default)]
    pub subdomain: Option<Box<str>>,
    /// Resources that the sandbox itself takes.
    #[serde(default, deserialize_with = "nullable")]
    pub overhead: BTreeMap<String, Quantity>,
    /// Pod-level resources (KEP-2837).
    #[serde(default, deserialize_with = "nullable")]
    pub resources: SlimResources,
    /// Containers.
    #[serde(default, deserialize_with = "nullable")]
    pub containers: Box<[SlimContainer]>,
    /// Init containers, also the restartable ones (sidecars).
    #[serde(default, deserialize_with = "nullable")]
    pub init_containers: Box<[SlimContainer]>,
    /// Volumes by name, with the claim if it has one.
    #[serde(default, deserialize_with = "nullable")]
    pub volumes: Box<[SlimVolume]>,
    /// `Always`, `OnFailure` or `Never`.
    #[serde(default)]
    pub restart_policy: Option<Box<str>>,
    /// Seconds that a graceful end may take.
    #[serde(default)]
    pub termination_grace_period_seconds: Option<i64>,
}

/// A container with what it asks for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimContainer {
    /// The container's name.
    #[serde(default)]
    pub name: Box<str>,
    /// The image (for ImageLocality).
    #[serde(default, deserialize_with = "nullable")]
    pub image: Box<str>,
    /// `Always` marks an init container as a sidecar.
    #[serde(default)]
    pub restart_policy: Option<Box<str>>,
    /// Requests and limits.
    #[serde(default, deserialize_with = "nullable")]
    pub resources: SlimResources,
    /// Ports that it names or takes on the host.
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Box<[SlimPort]>,
}

/// Requests and limits.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct SlimResources {
    /// What is reserved.
    #[serde(default, deserialize_with = "nullable")]
    pub requests: BTreeMap<String, Quantity>,
    /// What must not be passed.
    #[serde(default, deserialize_with = "nullable")]
    pub limits: BTreeMap<String, Quantity>,
}

/// A port of a container.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimPort {
    /// The name that Services refer to.
    #[serde(default)]
    pub name: Option<Box<str>>,
    /// The port in the pod.
    pub container_port: i32,
    /// The port on the node, 0 if none.
    #[serde(default, deserialize_with = "nullable")]
    pub host_port: i32,
    /// The node's address, empty for all.
    #[serde(default, rename = "hostIP", deserialize_with = "nullable")]
    pub host_ip: Box<str>,
    /// `TCP`, `UDP` or `SCTP`.
    #[serde(default = "tcp")]
    pub protocol: Box<str>,
}

/// A volume's name, and its claim if it has one.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Volume")]
pub struct SlimVolume {
    /// The volume's name in the pod.
    pub name: Box<str>,
    /// The PersistentVolumeClaim in the pod's namespace.
    pub claim_name: Option<Box<str>>,
    /// Whether it is an ephemeral volume, whose claim is `<pod>-<volume>`.
    pub ephemeral: bool,
}

/// What is, of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimPodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`; empty if not yet set.
    #[serde(default, deserialize_with = "nullable")]
    pub phase: Box<str>,
    /// The cause, such as `Evicted`.
    #[serde(default)]
    pub reason: Option<Box<str>>,
    /// Conditions.
    #[serde(default, deserialize_with = "nullable")]
    pub conditions: Box<[SlimCondition]>,
    /// The first address.
    #[serde(default, rename = "podIP")]
    pub pod_ip: Option<Box<str>>,
    /// All addresses, one a family.
    #[serde(default, rename = "podIPs", deserialize_with = "addresses")]
    pub pod_ips: Box<[Box<str>]>,
    /// The node's address.
    #[serde(default, rename = "hostIP")]
    pub host_ip: Option<Box<str>>,
    /// The node that preemption made room on.
    #[serde(default)]
    pub nominated_node_name: Option<Box<str>>,
    /// When the kubelet took it.
    #[serde(default)]
    pub start_time: Option<Time>,
    /// The QoS class.
    #[serde(default)]
    pub qos_class: Option<Box<str>>,
    /// State of the containers.
    #[serde(default, deserialize_with = "nullable")]
    pub container_statuses: Box<[SlimContainerStatus]>,
    /// State of the init containers.
    #[serde(default, deserialize_with = "nullable")]
    pub init_container_statuses: Box<[SlimContainerStatus]>,
}

/// State of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimContainerStatus {
    /// The container's name.
    #[serde(default)]
    pub name: Box<str>,
    /// Whether it passes its readiness probe.
    #[serde(default)]
    pub ready: bool,
    /// How often it was restarted.
    #[serde(default)]
    pub restart_count: i32,
    /// What it does now.
    #[serde(default, deserialize_with = "container_state")]
    pub state: SlimContainerState,
}

/// What a container does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlimContainerState {
    /// Not yet started, or between two starts.
    #[default]
    Waiting,
    /// Running.
    Running,
    /// Ended with this exit code.
    Terminated {
        /// The exit code.
        exit_code: i32,
        /// When.
        finished_at: Option<jiff::Timestamp>,
    },
}

fn tcp() -> Box<str> {
    "TCP".into()
}

fn gates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[Box<str>]>, D::Error> {
    #[derive(Deserialize)]
    struct Gate {
        name: Box<str>,
    }
    let gates: Vec<Gate> = nullable(deserializer)?;
    Ok(gates.into_iter().map(|gate| gate.name).collect())
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[Box<str>]>, D::Error> {
    #[derive(Deserialize)]
    struct Address {
        #[serde(default)]
        ip: Box<str>,
    }
    let addresses: Vec<Address> = nullable(deserializer)?;
    Ok(addresses.into_iter().map(|address| address.ip).collect())
}

fn container_state<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SlimContainerState, D::Error> {
    #[derive(Default, Deserialize)]
    struct State {
        running: Option<serde::de::IgnoredAny>,
        terminated: Option<Terminated>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Terminated {
        #[serde(default)]
        exit_code: i32,
        #[serde(default)]
        finished_at: Option<Time>,
    }
    let state: State = nullable(deserializer)?;
    Ok(match (state.terminated, state.running) {
        (Some(terminated), _) => SlimContainerState::Terminated {
            exit_code: terminated.exit_code,
            finished_at: terminated.finished_at.map(|time| time.0),
        },
        (None, Some(_)) => SlimContainerState::Running,
        (None, None) => SlimContainerState::Waiting,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: Box<str>,
    #[serde(default)]
    persistent_volume_claim: Option<Claim>,
    #[serde(default)]
    ephemeral: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    claim_name: Box<str>,
}

impl From<Volume> for SlimVolume {
    fn from(volume: Volume) -> Self {
        Self {
            name: volume.name,
            claim_name: volume.persistent_volume_claim.map(|claim| claim.claim_name),
            ephemeral: volume.ephemeral.is_some(),
        }
    }
}
