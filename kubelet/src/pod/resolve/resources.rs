//! What a pod and its containers may use, in the kernel's terms.
//!
//! Invariant: pure; an amount that isn't one counts as none, since the API server admits no other.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde_json::Value;
use skep_api::kinds::core::pod::qos;
use skep_api::quantity::Quantity;

use crate::cgroups::{self, Limits, QosClass};

/// Amounts by the resource's name.
pub type ResourceAmounts = qos::ResourceList;

/// Pods of this priority and above are critical (upstream: `SystemCriticalPriority`).
const SYSTEM_CRITICAL_PRIORITY: i32 = 2_000_000_000;
const GUARANTEED_OOM_SCORE: i64 = -997;
const BEST_EFFORT_OOM_SCORE: i64 = 1000;

/// The amount of a resource in a list, zero if there is none.
pub fn amount(list: Option<&BTreeMap<String, ApiQuantity>>, name: &str) -> Quantity {
    list.and_then(|list| list.get(name)).and_then(|quantity| quantity.0.parse().ok()).unwrap_or_default()
}

/// Whether a resource may be set for the pod as a whole (KEP-2837).
pub fn is_pod_level(name: &str) -> bool {
    qos::is_pod_level_resource(name)
}

/// A pod's class (upstream: `ComputePodQOS`).
pub fn qos_class(pod: &Pod) -> QosClass {
    match qos::compute_qos_class(&tree(pod)) {
        "Guaranteed" => QosClass::Guaranteed,
        "Burstable" => QosClass::Burstable,
        _ => QosClass::BestEffort,
    }
}

/// What the pod's cgroup is limited to (upstream: `ResourceConfigForPod`); `pids` is the node's limit for a pod.
pub fn pod_limits(pod: &Pod, pids: Option<u64>) -> Limits {
    let tree = tree(pod);
    let spec = &tree["spec"];
    let requests = qos::pod_requests(spec);
    let mut limits = qos::container_limits(spec);
    for (name, quantity) in qos::resource_list(&spec["resources"]["limits"]) {
        if is_pod_level(&name) {
            limits.insert(name, quantity);
        }
    }
    for (name, quantity) in qos::resource_list(&spec["overhead"]) {
        if let Some(limit) = limits.get_mut(&name).filter(|limit| !limit.is_zero()) {
            *limit += quantity;
        }
    }
    // Without a limit for each container, the sum of those that have one is no limit of the pod.
    let declared = |name: &str| pod.spec.as_ref().is_some_and(|spec| is_limited(spec, name));
    let of = |list: &ResourceAmounts, name: &str| list.get(name).copied().unwrap_or_default();
    let limit = |name: &str| Some(of(&limits, name)).filter(|limit| !limit.is_zero() && declared(name));
    Limits {
        cpu_request_millis: unsigned(of(&requests, "cpu").milli_value()),
        cpu_limit_millis: limit("cpu").map(|limit| unsigned(limit.milli_value())),
        memory_bytes: limit("memory").map(|limit| unsigned(limit.value())),
        pids,
    }
}

/// Why a pod is to be evicted for what its `emptyDir` volumes take: upstream's message of reason `Evicted`
/// (`emptyDirLimitEviction`). `used` is bytes by the volume's name; none is a pod within its limits.
pub fn over_volume_limit(pod: &Pod, used: &BTreeMap<String, u64>) -> Option<String> {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes.iter().find_map(|volume| {
        let limit: Quantity = volume.empty_dir.as_ref()?.size_limit.as_ref()?.0.parse().ok()?;
        let used = used.get(&volume.name)?;
        let is_over = i128::from(*used) > i128::from(limit.value()) && !limit.is_zero();
        is_over
            .then(|| format!("Usage of EmptyDir volume {:?} exceeds the limit {:?}. ", volume.name, limit.to_string()))
    })
}

/// What a container's cgroup is limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerLimits {
    /// The v1 weight, 2..=262144.
    pub cpu_shares: u64,
    /// Microseconds a 100 ms period.
    pub cpu_quota: Option<i64>,
    /// Bytes.
    pub memory_bytes: Option<i64>,
}

/// What a container's cgroup is limited to (upstream: `calculateLinuxResources`). A container without a limit of its own
/// has the pod's (KEP-2837).
pub fn container_limits(pod: &Pod, container: &Container) -> ContainerLimits {
    let limits = container_cgroup(pod, container);
    let signed = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    ContainerLimits {
        cpu_shares: cgroups::cpu_shares(limits.cpu_request_millis),
        // The kernel takes no quota under a millisecond.
        cpu_quota: limits.cpu_limit_millis.map(|millis| signed(millis).saturating_mul(100).max(1000)),
        memory_bytes: limits.memory_bytes.map(signed),
    }
}

/// As [`container_limits`], in the terms of a cgroup that is there already.
pub fn container_cgroup(pod: &Pod, container: &Container) -> Limits {
    let resources = container.resources.as_ref();
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let limit = |name: &str| {
        let own = limit_of(resources, name);
        if own.is_zero() && is_pod_level(name) { limit_of(of_pod, name) } else { own }
    };
    let (cpu, memory) = (limit("cpu"), limit("memory"));
    let requested = resources.and_then(|resources| resources.requests.as_ref()).filter(|list| list.contains_key("cpu"));
    let weight = requested.map_or(cpu, |requests| amount(Some(requests), "cpu"));
    Limits {
        cpu_request_millis: unsigned(weight.milli_value()),
        cpu_limit_millis: (!cpu.is_zero()).then(|| unsigned(cpu.milli_value())),
        memory_bytes: (!memory.is_zero()).then(|| unsigned(memory.value())),
        pids: None,
    }
}

/// How readily the kernel kills a container's processes when the node is out of memory (upstream:
/// `GetContainerOOMScoreAdjust`); `capacity` is the node's memory in bytes.
pub fn oom_score_adj(pod: &Pod, container: &Container, capacity: u64) -> i32 {
    let Some(spec) = &pod.spec else { return 0 };
    let node_critical = spec.priority_class_name.as_deref() == Some("system-node-critical")
        && spec.priority.is_some_and(|priority| priority >= SYSTEM_CRITICAL_PRIORITY);
    let score = match qos_class(pod) {
        _ if node_critical => GUARANTEED_OOM_SCORE,
        QosClass::Guaranteed => GUARANTEED_OOM_SCORE,
        QosClass::BestEffort => BEST_EFFORT_OOM_SCORE,
        QosClass::Burstable => burstable_score(spec, container, i64::try_from(capacity).unwrap_or(i64::MAX).max(1)),
    };
    // Every arm is within the kernel's -1000..=1000.
    i32::try_from(score).unwrap_or(0)
}

fn burstable_score(spec: &PodSpec, container: &Container, capacity: i64) -> i64 {
    let spare = spare_memory(spec);
    let score = |request: i64| {
        let share = i128::from(1000) * i128::from(request.saturating_add(spare)) / i128::from(capacity);
        1000 - i64::try_from(share).unwrap_or(i64::MAX).min(2000)
    };
    let mut own = score(memory_request(container));
    let is_init = spec.init_containers.iter().flatten().any(|init| init.name == container.name);
    if is_init && container.restart_policy.as_deref() == Some("Always") {
        // A sidecar is not killed before the containers that need it.
        own = own.min(score(spec.containers.iter().map(memory_request).min().unwrap_or(0)));
    }
    own.clamp(1000 + GUARANTEED_OOM_SCORE, BEST_EFFORT_OOM_SCORE - 1)
}

/// The pod-level memory request that no container claims, divided among all (KEP-2837).
fn spare_memory(spec: &PodSpec) -> i64 {
    let of_pod = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    if of_pod.is_none_or(|requests| !requests.keys().any(|name| is_pod_level(name))) {
        return 0;
    }
    let tree = serde_json::to_value(spec).unwrap_or_default();
    let claimed = qos::container_requests(&tree).get("memory").copied().unwrap_or_default();
    let spare = amount(of_pod, "memory").value().saturating_sub(claimed.value()).max(0);
    let containers = spec.containers.len() + spec.init_containers.iter().flatten().count();
    spare / i64::try_from(containers).unwrap_or(i64::MAX).max(1)
}

fn memory_request(container: &Container) -> i64 {
    amount(container.resources.as_ref().and_then(|resources| resources.requests.as_ref()), "memory").value()
}

fn limit_of(resources: Option<&ResourceRequirements>, name: &str) -> Quantity {
    amount(resources.and_then(|resources| resources.limits.as_ref()), name)
}

fn is_limited(spec: &PodSpec, name: &str) -> bool {
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    !limit_of(spec.resources.as_ref(), name).is_zero()
        || containers.all(|container| !limit_of(container.resources.as_ref(), name).is_zero())
}

fn tree(pod: &Pod) -> Value {
    // A Pod is plain data, which always has a JSON form.
    serde_json::to_value(pod).unwrap_or_default()
}

fn unsigned(amount: i64) -> u64 {
    u64::try_from(amount).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GIB: u64 = 1 << 30;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    }

    fn container(pod: &Pod, index: usize) -> &Container {
        &pod.spec.as_ref().unwrap().containers[index]
    }

    #[test]
    fn a_pod_is_limited_only_if_every_container_is() {
        let limited = json!({"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}}});
        let one = pod_limits(&pod(json!({"containers": [limited]})), Some(100));
        assert_eq!(
            one,
            Limits {
                cpu_request_millis: 250,
                cpu_limit_millis: Some(500),
                memory_bytes: Some(64 << 20),
                pids: Some(100)
            }
        );
        let two = pod_limits(&pod(json!({"containers": [limited, {"name": "b"}]})), None);
        assert_eq!(two, Limits { cpu_request_millis: 250, ..Limits::default() });
        let whole =
            pod_limits(&pod(json!({"containers": [{"name": "b"}], "resources": {"limits": {"cpu": "1"}}})), None);
        assert_eq!(whole.cpu_limit_millis, Some(1000));
    }

    #[test]
    fn a_pod_is_over_the_limit_of_a_volume_only_beyond_it() {
        let pod = pod(json!({"containers": [], "volumes": [{"name": "a", "emptyDir": {}},
            {"name": "b", "emptyDir": {"sizeLimit": "1Mi"}}]}));
        let used = |bytes: u64| BTreeMap::from([("a".to_owned(), GIB), ("b".to_owned(), bytes)]);
        assert_eq!(over_volume_limit(&pod, &used(1 << 20)), None);
        let over = over_volume_limit(&pod, &used((1 << 20) + 1));
        assert_eq!(over.as_deref(), Some("Usage of EmptyDir volume \"b\" exceeds the limit \"1Mi\". "));
    }

    #[test]
    fn a_containers_weight_defaults_to_its_limit() {
        let pod = pod(json!({"containers": [
            {"name": "a", "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}},
            {"name": "b", "resources": {"requests": {"cpu": "2"}}}, {"name": "c"},
        ]}));
        let limits = [0, 1, 2].map(|index| container_limits(&pod, container(&pod, index)));
        assert_eq!(
            limits[0],
            ContainerLimits { cpu_shares: 512, cpu_quota: Some(50_000), memory_bytes: Some(64 << 20) }
        );
        assert_eq!(limits[1], ContainerLimits { cpu_shares: 2048, cpu_quota: None, memory_bytes: None });
        assert_eq!(limits[2], ContainerLimits { cpu_shares: 2, cpu_quota: None, memory_bytes: None });
    }

    #[test]
    fn the_oom_score_follows_the_class_and_the_share_of_memory() {
        let equal = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}});
        let burst = |memory: &str| json!({"requests": {"memory": memory}});
        for (spec, score) in [
            (json!({"containers": [{"name": "a", "resources": equal}]}), -997),
            (json!({"containers": [{"name": "a"}]}), 1000),
            (json!({"containers": [{"name": "a", "resources": burst("1Gi")}]}), 750),
            (json!({"containers": [{"name": "a", "resources": burst("4Gi")}]}), 3),
            (json!({"containers": [{"name": "a", "resources": burst("1")}]}), 999),
            (
                json!({"containers": [{"name": "a"}], "priorityClassName": "system-node-critical", "priority": 2_000_001_000}),
                -997,
            ),
            (json!({"containers": [{"name": "a"}, {"name": "b"}], "resources": {"requests": {"memory": "2Gi"}}}), 750),
        ] {
            let pod = pod(spec.clone());
            assert_eq!(oom_score_adj(&pod, container(&pod, 0), 4 * GIB), score, "{spec}");
        }
    }
}
