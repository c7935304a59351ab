//! A Node's status from what was seen: a pure function, and the patch that brings the API's there (upstream:
//! pkg/kubelet/nodestatus, `nodeStatusHasChanged`, `PatchNodeStatus`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeStatus, NodeSwapStatus,
    NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Map, Value, json};
use skep_api::quantity::{Format, Quantity};

use super::machine::Machine;
use super::object::architecture;
use super::pressure::Pressure;
use super::{KUBERNETES_VERSION, NodeConfig, NodeImage, Readiness};

/// The most names of one image (upstream: `MaxNamesPerImageInNodeStatus`).
const NAMES_PER_IMAGE: usize = 5;

/// All that a status is made of, besides the configuration and the status before.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// The node's own addresses.
    pub addresses: Vec<IpAddr>,
    /// What the machine has.
    pub machine: Machine,
    /// Whether pods can be run.
    pub readiness: Readiness,
    /// What it runs short of.
    pub pressure: Pressure,
    /// The images on it; none when they could not be listed.
    pub images: Option<Vec<NodeImage>>,
}

/// The status to report. What is not the kubelet's in `old` stays.
pub fn node_status(config: &NodeConfig, old: &NodeStatus, seen: &Observation, now: Timestamp) -> NodeStatus {
    let mut status = old.clone();
    status.addresses = Some(addresses(config, &seen.addresses));
    let own = capacity(config, &seen.machine);
    let mut capacity = old.capacity.clone().unwrap_or_default();
    capacity.retain(|name, _| !name.starts_with("hugepages-") || own.contains_key(name));
    capacity.extend(own.iter().map(|(name, quantity)| (name.clone(), ApiQuantity(quantity.to_string()))));
    let mut allocatable = old.allocatable.clone().unwrap_or_default();
    allocatable.retain(|name, _| capacity.contains_key(name));
    // Extended resources are given out whole until something says otherwise.
    for (name, quantity) in &capacity {
        allocatable.entry(name.clone()).or_insert_with(|| quantity.clone());
    }
    allocatable.extend(self::allocatable(config, &own));
    status.capacity = Some(capacity);
    status.allocatable = Some(allocatable);
    status.node_info = Some(node_info(&seen.machine, &seen.readiness, old.node_info.as_ref()));
    let endpoint = DaemonEndpoint { port: i32::from(config.port) };
    status.daemon_endpoints = Some(NodeDaemonEndpoints { kubelet_endpoint: Some(endpoint) });
    if let Some(images) = &seen.images {
        status.images = Some(list_images(images, config.max_images));
    }
    let conditions = status.conditions.get_or_insert_default();
    for state in conditions_of(seen) {
        set_condition(conditions, state, now);
    }
    status
}

/// Whether two statuses differ in more than the times of their heartbeats.
pub fn changed(old: &NodeStatus, new: &NodeStatus) -> bool {
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        let conditions = status.conditions.get_or_insert_default();
        conditions.iter_mut().for_each(|condition| condition.last_heartbeat_time = None);
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        status
    };
    still(old) != still(new)
}

/// The strategic merge patch from `old` to `new`: conditions by type, addresses as a whole.
pub fn status_patch(old: &NodeStatus, new: &NodeStatus) -> Value {
    // A status has no map with keys other than text, so that it always becomes JSON.
    let value = |status: &NodeStatus| serde_json::to_value(status).unwrap_or(Value::Null);
    let (old, new) = (value(old), value(new));
    let mut patch = Map::new();
    for (field, after) in new.as_object().into_iter().flatten() {
        let before = &old[field];
        if before == after {
            continue;
        }
        let change = match field.as_str() {
            "conditions" => changed_items(before, after),
            // Two addresses of one type would be merged into one.
            "addresses" => replaced_list(after),
            _ => difference(before, after),
        };
        patch.insert(field.clone(), change);
    }
    json!({ "status": patch })
}

/// The reasons of events for what turned between two statuses.
pub(super) fn transitions(old: &NodeStatus, new: &NodeStatus) -> Vec<&'static str> {
    let status = |of: &NodeStatus, kind: &str| {
        of.conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == kind)
            .map(|condition| condition.status.clone())
    };
    let words = [
        ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ("Ready", "NodeReady", "NodeNotReady"),
    ];
    let turned = words.into_iter().filter_map(|(kind, yes, no)| {
        let (before, after) = (status(old, kind), status(new, kind)?);
        let new_and_dull = before.is_none() && kind == "Ready";
        (before.as_ref() != Some(&after) && !new_and_dull).then(|| if after == "True" { yes } else { no })
    });
    turned.collect()
}

fn addresses(config: &NodeConfig, ips: &[IpAddr]) -> Vec<NodeAddress> {
    let address = |kind: &str, address: String| NodeAddress { type_: kind.to_owned(), address };
    let ips = ips.iter().take(2).map(|ip| address("InternalIP", ip.to_string()));
    ips.chain([address("Hostname", config.hostname.clone())]).collect()
}

fn capacity(config: &NodeConfig, machine: &Machine) -> BTreeMap<String, Quantity> {
    let bytes = |bytes: u64| Quantity::new(i64::try_from(bytes).unwrap_or(i64::MAX), Format::BinarySi);
    let by_core = u64::from(config.pods_per_core) * u64::from(machine.cpus);
    let pods = if by_core == 0 { u64::from(config.max_pods) } else { by_core.min(u64::from(config.max_pods)) };
    let mut capacity = BTreeMap::from([
        ("cpu".to_owned(), Quantity::new(i64::from(machine.cpus), Format::DecimalSi)),
        ("memory".to_owned(), bytes(machine.memory_bytes)),
        ("ephemeral-storage".to_owned(), bytes(machine.storage_bytes)),
        ("pods".to_owned(), Quantity::new(i64::try_from(pods).unwrap_or(i64::MAX), Format::DecimalSi)),
    ]);
    for pool in &machine.huge_pages {
        let name = format!("hugepages-{}", bytes(pool.page_bytes));
        capacity.insert(name, bytes(pool.page_bytes.saturating_mul(pool.pages)));
    }
    capacity
}

/// What pods may use of a machine: what its Node shows as `allocatable`.
pub fn amounts(config: &NodeConfig, machine: &Machine) -> BTreeMap<String, Quantity> {
    let allocatable = allocatable(config, &capacity(config, machine));
    allocatable.into_iter().filter_map(|(name, amount)| Some((name, amount.0.parse().ok()?))).collect()
}

/// Capacity less what is reserved, what eviction keeps free, and, of memory, what huge pages took.
fn allocatable(config: &NodeConfig, capacity: &BTreeMap<String, Quantity>) -> BTreeMap<String, ApiQuantity> {
    let amount = |name: &str| capacity.get(name).copied().unwrap_or_default();
    let kept = |name: &str| {
        let threshold = match name {
            "memory" => config.eviction.memory,
            "ephemeral-storage" => config.eviction.node_fs,
            _ => None,
        };
        let capacity = u64::try_from(amount(name).value()).unwrap_or_default();
        let bytes = threshold.map_or(0, |threshold| threshold.of(capacity));
        Quantity::new(i64::try_from(bytes).unwrap_or(i64::MAX), Format::BinarySi)
    };
    let huge = || capacity.iter().filter(|(name, _)| name.starts_with("hugepages-")).map(|(_, quantity)| *quantity);
    let left = |(name, quantity): (&String, &Quantity)| {
        let mut left = *quantity - config.reserved.get(name).copied().unwrap_or_default() - kept(name);
        if name == "memory" {
            left = huge().fold(left, |left, pool| left - pool);
        }
        let left = if left.is_negative() { Quantity::ZERO } else { left };
        (name.clone(), ApiQuantity(left.with_format(quantity.format()).to_string()))
    };
    capacity.iter().map(left).collect()
}

fn node_info(machine: &Machine, readiness: &Readiness, old: Option<&NodeSystemInfo>) -> NodeSystemInfo {
    // A containerd that is away keeps the version that it last had.
    let runtime = match (&readiness.runtime_version, old) {
        (Some(version), _) => format!("containerd://{version}"),
        (None, Some(old)) if !old.container_runtime_version.is_empty() => old.container_runtime_version.clone(),
        (None, _) => "containerd://Unknown".to_owned(),
    };
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: runtime,
        kernel_version: machine.kernel_version.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: format!("{KUBERNETES_VERSION}+skep-{}", env!("CARGO_PKG_VERSION")),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: machine.os_image.clone(),
        running_in_user_namespace: None,
        swap: (machine.swap_bytes > 0)
            .then(|| NodeSwapStatus { capacity: Some(i64::try_from(machine.swap_bytes).unwrap_or(i64::MAX)) }),
        system_uuid: machine.system_uuid.clone(),
    }
}

fn list_images(images: &[NodeImage], most: Option<usize>) -> Vec<ContainerImage> {
    let mut images: Vec<_> = images.iter().collect();
    images.sort_by(|a, b| b.size_bytes.cmp(&a.size_bytes).then_with(|| a.names.cmp(&b.names)));
    let image = |image: &NodeImage| ContainerImage {
        names: Some(image.names.iter().take(NAMES_PER_IMAGE).cloned().collect()),
        size_bytes: Some(image.size_bytes),
    };
    images.into_iter().take(most.unwrap_or(usize::MAX)).map(image).collect()
}

struct State {
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

/// Ready comes last, as upstream's does.
fn conditions_of(seen: &Observation) -> [State; 4] {
    let state = |kind, status: bool, yes: (&'static str, &str), no: (&'static str, &str)| {
        let (reason, message) = if status { yes } else { no };
        State { kind, status, reason, message: message.to_owned() }
    };
    let errors = [
        seen.readiness.runtime.clone(),
        seen.readiness.network.as_ref().map(|error| format!("container runtime network not ready: {error}")),
    ];
    let errors: Vec<_> = errors.into_iter().flatten().collect();
    let ready = match errors.as_slice() {
        [] => State {
            kind: "Ready",
            status: true,
            reason: "KubeletReady",
            message: "kubelet is posting ready status".to_owned(),
        },
        [error] => State { kind: "Ready", status: false, reason: "KubeletNotReady", message: error.clone() },
        errors => {
            let message = format!("[{}]", errors.join(", "));
            State { kind: "Ready", status: false, reason: "KubeletNotReady", message }
        }
    };
    [
        state(
            "MemoryPressure",
            seen.pressure.memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        state(
            "DiskPressure",
            seen.pressure.disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        state(
            "PIDPressure",
            seen.pressure.pids,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ready,
    ]
}

fn set_condition(conditions: &mut Vec<NodeCondition>, state: State, now: Timestamp) {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let status = if state.status { "True" } else { "False" };
    let found = conditions.iter_mut().find(|condition| condition.type_ == state.kind);
    let since = found
        .as_ref()
        .filter(|old| old.status == status)
        .and_then(|old| old.last_transition_time.clone())
        .unwrap_or(Time(now));
    let condition = NodeCondition {
        type_: state.kind.to_owned(),
        status: status.to_owned(),
        reason: Some(state.reason.to_owned()),
        message: Some(state.message),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(since),
    };
    match found {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

fn changed_items(before: &Value, after: &Value) -> Value {
    let before = before.as_array().map(Vec::as_slice).unwrap_or_default();
    after.as_array().into_iter().flatten().filter(|item| !before.contains(item)).cloned().collect()
}

fn replaced_list(after: &Value) -> Value {
    let items = after.as_array().into_iter().flatten().cloned();
    items.chain([json!({"$patch": "replace"})]).collect()
}

/// What is new or differs, with null for what is gone.
fn difference(before: &Value, after: &Value) -> Value {
    let (Some(old), Some(new)) = (before.as_object(), after.as_object()) else { return after.clone() };
    let mut change = Map::new();
    for (key, value) in new {
        if old.get(key) != Some(value) {
            change.insert(key.clone(), difference(&before[key], value));
        }
    }
    change.extend(old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null)));
    Value::Object(change)
}

#[cfg(test)]
mod tests;
