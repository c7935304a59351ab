//! The status that the API shows of a pod: a pure function of its specification, the status before, and what was seen.
//!
//! Invariant: no I/O and no clock. The same input gives the same status, so that a worker may compare it with what the
//! API has and write only what differs; what the kubelet does not own in a status (foreign conditions, the scheduler's
//! nomination, claims) passes through untouched. A terminal phase is never left, and never reached while a container
//! runs.
//!
//! Data flow: `containers` makes each container's status, `phase` the phase that follows from them, `conditions`
//! the conditions that follow from both. Source: upstream's `generateAPIPodStatus`, `mergePodStatus`, `normalizeStatus`.

mod conditions;
mod containers;
mod patch;
mod phase;
mod restart;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStatus, HostIP, Pod, PodIP, PodSpec, PodStatus, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use skep_api::kinds::core::pod::qos;

use super::observation::{ContainerState as Seen, PodObservation};
use conditions::Conditions;
pub use patch::status_patch;
pub use restart::should_restart;

/// What termination messages of one pod may take together (upstream: `MaxPodTerminationMessageLogLength`).
const TERMINATION_MESSAGES_LIMIT: usize = 12 << 10;
/// The longest list of a pod's addresses: one of each family.
const FAMILIES: [fn(&IpAddr) -> bool; 2] = [IpAddr::is_ipv4, IpAddr::is_ipv6];

/// What every pod's status says of the node it runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// The node's addresses, the primary one first; its family is the one that pods' addresses are ordered by.
    pub host_ips: Vec<IpAddr>,
}

/// The status to write for `pod`, whose own `status` is the one before. `now` dates what changed.
pub fn status(pod: &Pod, seen: &PodObservation, node: &NodeFacts, now: Timestamp) -> PodStatus {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let old = pod.status.clone().unwrap_or_default();
    let now = seconds(now);
    let running = seen.containers.values().any(|container| matches!(container.state, Seen::Running { .. }));
    let terminating = pod.metadata.deletion_timestamp.is_some() || seen.failed.is_some();
    let terminal = terminating && !running;

    let mut status = PodStatus {
        observed_generation: pod.metadata.generation,
        start_time: old.start_time.clone().or(Some(Time(now))),
        nominated_node_name: old.nominated_node_name.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        extended_resource_claim_status: old.extended_resource_claim_status.clone(),
        node_allocatable_resource_claim_statuses: old.node_allocatable_resource_claim_statuses.clone(),
        volume_health: old.volume_health.clone(),
        ..PodStatus::default()
    };
    set_resources(&mut status, pod, spec);
    set_addresses(&mut status, &old, spec, seen, node);

    // A pod that this node refused never was more than an entry in the API.
    let refused = seen.failed.is_some() && old.start_time.is_none() && !seen.sandbox && seen.containers.is_empty();
    if !refused {
        containers::set(&mut status, pod, spec, &old, seen);
        if terminal {
            containers::end(&mut status, spec);
        }
    }
    set_phase(&mut status, pod, spec, &old, seen, terminal, running);
    status.conditions = Some(Conditions { pod, spec, old: &old, new: &status, seen, now }.all());
    normalize(&mut status, spec);
    status
}

/// The name of a container runtime and of a container of it, as a status shows it.
pub fn container_id(id: &str) -> String {
    format!("containerd://{id}")
}

fn is_terminal(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Times in the API have no fractions.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The class of service, and what the pod may use as a whole (KEP-2837, KEP-5419).
fn set_resources(status: &mut PodStatus, pod: &Pod, spec: &PodSpec) {
    // A specification that came from JSON goes back to JSON.
    let value = serde_json::to_value(spec).unwrap_or(Value::Null);
    let class = pod.status.as_ref().and_then(|status| status.qos_class.clone()).filter(|class| !class.is_empty());
    status.qos_class =
        class.or_else(|| Some(qos::compute_qos_class(&Value::from_iter([("spec", value.clone())])).to_owned()));
    let requests = quantities(qos::pod_requests(&value));
    let mut limits = qos::container_limits(&value);
    for (name, quantity) in qos::resource_list(&value["resources"]["limits"]) {
        if qos::is_pod_level_resource(&name) {
            limits.insert(name, quantity);
        }
    }
    for (name, quantity) in qos::resource_list(&value["overhead"]) {
        // Overhead raises a limit that is there; it makes none.
        if let Some(limit) = limits.get_mut(&name) {
            *limit += quantity;
        }
    }
    let claims = spec.resources.as_ref().and_then(|resources| resources.claims.clone());
    status.allocated_resources.clone_from(&requests);
    status.resources = Some(ResourceRequirements { claims, limits: quantities(limits), requests });
}

fn quantities(list: qos::ResourceList) -> Option<std::collections::BTreeMap<String, Quantity>> {
    let list: std::collections::BTreeMap<_, _> =
        list.into_iter().map(|(name, quantity)| (name, Quantity(quantity.to_string()))).collect();
    (!list.is_empty()).then_some(list)
}

fn set_addresses(status: &mut PodStatus, old: &PodStatus, spec: &PodSpec, seen: &PodObservation, node: &NodeFacts) {
    let texts = |ips: &[IpAddr]| ips.iter().take(2).map(IpAddr::to_string).collect::<Vec<_>>();
    let hosts = texts(&node.host_ips);
    status.host_ip = hosts.first().cloned();
    status.host_ips = (!hosts.is_empty()).then(|| hosts.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    let before = || old.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect::<Vec<_>>();
    let addresses = if spec.host_network == Some(true) {
        // Addresses of a pod on the host's network stay as they were first given.
        Some(before()).filter(|before| !before.is_empty()).unwrap_or(hosts)
    } else if seen.addresses.is_empty() {
        before()
    } else {
        let mut families = FAMILIES;
        if node.host_ips.first().is_some_and(IpAddr::is_ipv6) {
            families.reverse();
        }
        let first = |family: &fn(&IpAddr) -> bool| seen.addresses.iter().copied().find(family);
        texts(&families.iter().filter_map(first).collect::<Vec<_>>())
    };
    status.pod_ip = addresses.first().cloned();
    status.pod_ips = (!addresses.is_empty()).then(|| addresses.into_iter().map(|ip| PodIP { ip }).collect());
}

fn set_phase(
    status: &mut PodStatus,
    pod: &Pod,
    spec: &PodSpec,
    old: &PodStatus,
    seen: &PodObservation,
    terminal: bool,
    running: bool,
) {
    let old_phase = old.phase.as_deref().filter(|phase| !phase.is_empty());
    let initialized = spec.containers.iter().any(|container| seen.containers.contains_key(&container.name));
    let mut phase = phase::phase(spec, status, terminal, initialized);
    let (mut reason, mut message) = (None, None);
    if let Some(failed) = &seen.failed {
        phase = "Failed";
        (reason, message) = (Some(failed.reason.clone()), Some(failed.message.clone()));
    } else if terminal && !is_terminal(Some(phase)) && !is_static(pod) {
        phase = "Failed";
    }
    // Whoever waits for a terminal phase counts on nothing of the pod running any more.
    let held_back = is_terminal(Some(phase)) && running;
    if is_terminal(old_phase) || held_back || old_phase == Some(phase) {
        status.phase = Some(old_phase.unwrap_or("Pending").to_owned());
        (status.reason, status.message) = (old.reason.clone(), old.message.clone());
        return;
    }
    status.phase = Some(phase.to_owned());
    (status.reason, status.message) = (reason, message);
}

fn is_static(pod: &Pod) -> bool {
    pod.metadata
        .annotations
        .iter()
        .flatten()
        .any(|(key, source)| key == "kubernetes.io/config.source" && source != "api")
}

/// Cuts times to seconds and messages to their share, and sorts.
fn normalize(status: &mut PodStatus, spec: &PodSpec) {
    let lists =
        [&mut status.container_statuses, &mut status.init_container_statuses, &mut status.ephemeral_container_statuses];
    let count = spec.containers.len()
        + spec.init_containers.as_ref().map_or(0, Vec::len)
        + spec.ephemeral_containers.as_ref().map_or(0, Vec::len);
    let share = TERMINATION_MESSAGES_LIMIT / count.max(1);
    for container in lists.into_iter().flatten().flatten() {
        for state in [&mut container.state, &mut container.last_state].into_iter().flatten() {
            normalize_state(state, share);
        }
    }
    let by_name = |a: &ContainerStatus, b: &ContainerStatus| a.name.cmp(&b.name);
    for list in [&mut status.container_statuses, &mut status.ephemeral_container_statuses].into_iter().flatten() {
        list.sort_by(by_name);
    }
}

fn normalize_state(state: &mut ContainerState, share: usize) {
    let cut = |time: &mut Option<Time>| {
        if let Some(time) = time {
            time.0 = seconds(time.0);
        }
    };
    if let Some(running) = &mut state.running {
        cut(&mut running.started_at);
    }
    if let Some(terminated) = &mut state.terminated {
        cut(&mut terminated.started_at);
        cut(&mut terminated.finished_at);
        if let Some(message) = &mut terminated.message {
            let end = (0..=share.min(message.len())).rev().find(|end| message.is_char_boundary(*end));
            message.truncate(end.unwrap_or(0));
        }
    }
}
