//! What a pod's containers ask for together, and the quality of service that follows from it (upstream's `ComputePodQOS` and
//! component-helpers/resource).

use std::collections::BTreeMap;

use serde_json::Value;

use super::is_sidecar;
use crate::kinds::tree::{entries, items, length};
use crate::quantity::Quantity;

/// Amounts by the resource's name.
pub type ResourceList = BTreeMap<String, Quantity>;

/// The quality of service class of a pod: `Guaranteed`, `Burstable` or `BestEffort`.
#[must_use]
pub fn compute_qos_class(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    if has_pod_level_resources(spec) {
        return requirements_class(&spec["resources"]);
    }
    let mut class = None;
    for container in items(&spec["initContainers"]).iter().chain(items(&spec["containers"])) {
        let this = requirements_class(&container["resources"]);
        if this == BURSTABLE || class.is_some_and(|class| class != this) {
            return BURSTABLE;
        }
        class = Some(this);
    }
    class.unwrap_or(BEST_EFFORT)
}

/// The requests of all containers together: the sum of those that run side by side, or what one init container needs, whichever is more
/// (KEP-753). Pod-level resources and overhead are not counted.
#[must_use]
pub fn container_requests(spec: &Value) -> ResourceList {
    aggregate(spec, "requests")
}

/// The limits of all containers together, counted as [`container_requests`].
#[must_use]
pub fn container_limits(spec: &Value) -> ResourceList {
    aggregate(spec, "limits")
}

/// What the pod needs of a node: pod-level requests where they are set, else those of its containers, and the overhead of its runtime class
/// (upstream's `PodRequests`).
#[must_use]
pub fn pod_requests(spec: &Value) -> ResourceList {
    let mut requests = container_requests(spec);
    for (name, quantity) in resource_list(&spec["resources"]["requests"]) {
        if is_pod_level_resource(&name) {
            requests.insert(name, quantity);
        }
    }
    add(&mut requests, &resource_list(&spec["overhead"]));
    requests
}

/// Reads a resource list; what is no quantity is left out.
#[must_use]
pub fn resource_list(list: &Value) -> ResourceList {
    entries(list).filter_map(|(name, value)| Some((name.to_owned(), Quantity::from_value(value).ok()?))).collect()
}

/// Whether a resource may be set for the pod as a whole (KEP-2837).
#[must_use]
pub fn is_pod_level_resource(name: &str) -> bool {
    name == "cpu" || name == "memory" || name.starts_with("hugepages-")
}

/// Whether resources are set for the pod as a whole.
#[must_use]
pub fn has_pod_level_resources(spec: &Value) -> bool {
    let resources = &spec["resources"];
    entries(&resources["requests"]).chain(entries(&resources["limits"])).any(|(name, _)| is_pod_level_resource(name))
}

const GUARANTEED: &str = "Guaranteed";
const BURSTABLE: &str = "Burstable";
const BEST_EFFORT: &str = "BestEffort";

fn requirements_class(resources: &Value) -> &'static str {
    if length(&resources["requests"]) == 0 && length(&resources["limits"]) == 0 {
        return BEST_EFFORT;
    }
    let (cpu, memory) = (resource_class(resources, "cpu"), resource_class(resources, "memory"));
    if cpu == memory { cpu } else { BURSTABLE }
}

fn resource_class(resources: &Value, name: &str) -> &'static str {
    let amount = |list: &str| Quantity::from_value(&resources[list][name]).unwrap_or_default();
    let (request, limit) = (amount("requests"), amount("limits"));
    if request != limit {
        BURSTABLE
    } else if request.is_zero() {
        BEST_EFFORT
    } else {
        GUARANTEED
    }
}

fn aggregate(spec: &Value, list: &str) -> ResourceList {
    let mut total = ResourceList::new();
    for container in items(&spec["containers"]) {
        add(&mut total, &resource_list(&container["resources"][list]));
    }
    let mut sidecars = ResourceList::new();
    let mut most = ResourceList::new();
    for container in items(&spec["initContainers"]) {
        let mut needed = resource_list(&container["resources"][list]);
        if is_sidecar(container) {
            add(&mut total, &needed);
            add(&mut sidecars, &needed);
            needed = sidecars.clone();
        } else {
            add(&mut needed, &sidecars);
        }
        raise(&mut most, &needed);
    }
    raise(&mut total, &most);
    total
}

fn add(total: &mut ResourceList, more: &ResourceList) {
    for (name, quantity) in more {
        *total.entry(name.clone()).or_default() += *quantity;
    }
}

fn raise(total: &mut ResourceList, other: &ResourceList) {
    for (name, quantity) in other {
        let entry = total.entry(name.clone()).or_insert(*quantity);
        if *quantity > *entry {
            *entry = *quantity;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let equal = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1024Mi"}});
        let table = [
            (json!({"containers": [{}]}), BEST_EFFORT),
            (json!({"containers": [{"resources": equal}]}), GUARANTEED),
            (json!({"containers": [{"resources": equal}, {}]}), BURSTABLE),
            (json!({"containers": [{"resources": {"requests": {"cpu": "1"}}}]}), BURSTABLE),
            (json!({"containers": [{"resources": {"requests": {"a.b/c": "1"}}}]}), BEST_EFFORT),
            (json!({"containers": [{"resources": equal}], "initContainers": [{}]}), BURSTABLE),
            (json!({"containers": [{}], "resources": equal}), GUARANTEED),
        ];
        for (spec, class) in table {
            assert_eq!(compute_qos_class(&json!({ "spec": spec })), class, "{spec}");
        }
    }

    #[test]
    fn a_pod_needs_its_containers_or_its_largest_init_container() {
        let cpu = |amount: &str| json!({"requests": {"cpu": amount}});
        let spec = json!({
            "initContainers": [
                {"resources": cpu("3")},
                {"resources": cpu("100m"), "restartPolicy": "Always"},
                {"resources": cpu("2")},
            ],
            "containers": [{"resources": cpu("1")}, {"resources": cpu("500m")}],
            "overhead": {"cpu": "250m"},
        });
        assert_eq!(container_requests(&spec)["cpu"], "3".parse().unwrap());
        assert_eq!(pod_requests(&spec)["cpu"], "3250m".parse().unwrap());
    }
}
