//! A pod as the scheduler sees it: compiled once from the watched object, then compared and placed many times.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorTerm, PreferredSchedulingTerm, Toleration};
use skep_client::slim::SlimPod;

use super::resources::{Requests, is_sidecar};

/// The fields of a pod that decide where it goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// The uid: what a placement is known by.
    pub uid: Box<str>,
    /// The namespace.
    pub namespace: Box<str>,
    /// The name.
    pub name: Box<str>,
    /// The priority, 0 if none was resolved.
    pub priority: i32,
    /// Whether it may make room for itself (`preemptionPolicy` is not `Never`).
    pub preempts: bool,
    /// When its kubelet took it, in seconds since 1970: those that ran longer are rather kept.
    pub started: Option<i64>,
    /// It is being deleted.
    pub terminating: bool,
    /// The only node that it may go to, if its spec names one.
    pub node_name: Option<Box<str>>,
    /// Labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Terms of which the node must match one; none asks for nothing.
    pub required_terms: Option<Vec<NodeSelectorTerm>>,
    /// Terms that add their weight to a node's score.
    pub preferred_terms: Vec<PreferredSchedulingTerm>,
    /// Taints that it bears.
    pub tolerations: Box<[Toleration]>,
    /// Ports that it takes on the node.
    pub host_ports: Box<[HostPort]>,
    /// What it requests.
    pub requests: Requests,
}

/// A port that a pod takes on its node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: Box<str>,
    /// The node's address; `0.0.0.0` is all of them.
    pub ip: Box<str>,
    /// The port.
    pub port: i32,
}

/// The address that stands for all of a node's.
const ANY_ADDRESS: &str = "0.0.0.0";

impl HostPort {
    /// Whether two pods on one node can't have both (`HostPortInfo.CheckConflict`).
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || &*self.ip == ANY_ADDRESS || &*other.ip == ANY_ADDRESS)
    }
}

impl Pod {
    /// Compiles a watched pod.
    #[must_use]
    pub fn of(pod: &SlimPod) -> Self {
        let affinity = pod.spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity
            .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref())
            .map(|selector| selector.node_selector_terms.clone());
        let preferred =
            affinity.and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.clone());
        Self {
            uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
            namespace: pod.metadata.namespace.as_deref().unwrap_or_default().into(),
            name: pod.metadata.name.as_deref().unwrap_or_default().into(),
            priority: pod.spec.priority.unwrap_or(0),
            started: pod.status.start_time.as_ref().map(|time| time.0.as_second()),
            terminating: pod.is_terminating(),
            preempts: pod.spec.preemption_policy.as_deref() != Some("Never"),
            node_name: pod.spec.node_name.clone().filter(|name| !name.is_empty()),
            node_selector: pod.spec.node_selector.clone(),
            required_terms: required,
            preferred_terms: preferred.unwrap_or_default(),
            tolerations: pod.spec.tolerations.clone(),
            host_ports: host_ports(pod),
            requests: Requests::of(pod),
        }
    }
}

fn host_ports(pod: &SlimPod) -> Box<[HostPort]> {
    let sidecars = pod.spec.init_containers.iter().filter(|container| is_sidecar(container));
    let ports = pod.spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    ports
        .filter(|port| port.host_port > 0)
        .map(|port| HostPort {
            protocol: if port.protocol.is_empty() { "TCP".into() } else { port.protocol.clone() },
            ip: if port.host_ip.is_empty() { ANY_ADDRESS.into() } else { port.host_ip.clone() },
            port: port.host_port,
        })
        .collect()
}
