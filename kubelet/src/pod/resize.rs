//! In-place resize (KEP-1287): whether the node grants what a running pod asks for anew, and what a grant changes.
//!
//! Invariant: pure. What a pod has been granted (its [`Allocation`]) is what everything else of the kubelet works by; the
//! API's specification is only a wish until [`decide`] says otherwise.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde_json::{Value, json};
use skep_api::kinds::core::pod::qos;

use super::resolve::resources::ResourceAmounts;

/// What a resize may change.
pub const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// The resizable resources that a pod has, of its own and by container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allocation {
    /// Those of the pod as a whole (KEP-2837).
    pub pod: Option<ResourceRequirements>,
    /// By the container's name; init containers that end are as they were made.
    pub containers: BTreeMap<String, ResourceRequirements>,
}

impl Allocation {
    /// What the API's specification asks for.
    pub fn requested(spec: &PodSpec) -> Self {
        let of = |container: &Container| (container.name.clone(), resizable(container.resources.as_ref()));
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers).map(of).collect();
        Self { pod: spec.resources.as_ref().map(|resources| resizable(Some(resources))), containers }
    }

    /// Whether both mean the same amounts.
    pub fn is_same(&self, other: &Self) -> bool {
        let none = ResourceRequirements::default();
        let pods = same(self.pod.as_ref().unwrap_or(&none), other.pod.as_ref().unwrap_or(&none));
        pods && self.containers.len() == other.containers.len()
            && self
                .containers
                .iter()
                .all(|(name, own)| other.containers.get(name).is_some_and(|other| same(own, other)))
    }

    /// Puts what is granted in place of what is asked for.
    pub fn overlay(&self, spec: &mut PodSpec) {
        if let Some(own) = &self.pod {
            replace(spec.resources.get_or_insert_default(), own);
        }
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            if let Some(own) = self.containers.get(&container.name) {
                replace(container.resources.get_or_insert_default(), own);
            }
        }
    }
}

/// The node's answer to a pod that asks for other amounts than it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may have them.
    Granted,
    /// Not while other pods have what they have; with the reason for users.
    Deferred(String),
    /// Never on this node; with the reason for users.
    Infeasible(String),
}

/// Decides on a pod's wish to have `wanted` in all. `used` is what all other pods of the node have been granted,
/// `allocatable` what all may have.
pub fn decide(wanted: &ResourceAmounts, used: &ResourceAmounts, allocatable: &ResourceAmounts) -> Decision {
    let of = |list: &ResourceAmounts, name: &str| list.get(name).copied().unwrap_or_default();
    let shown = |name: &str, list: &ResourceAmounts| match name {
        "cpu" => of(list, name).milli_value(),
        _ => of(list, name).value(),
    };
    for name in RESIZABLE {
        if of(wanted, name) > of(allocatable, name) {
            let (requested, capacity) = (shown(name, wanted), shown(name, allocatable));
            let message =
                format!("Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}");
            return Decision::Infeasible(message);
        }
    }
    for name in RESIZABLE {
        let mut sum = of(wanted, name);
        sum += of(used, name);
        if sum > of(allocatable, name) {
            let (requested, taken, capacity) = (shown(name, wanted), shown(name, used), shown(name, allocatable));
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {taken}, capacity: {capacity}"
            );
            return Decision::Deferred(message);
        }
    }
    Decision::Granted
}

/// What a pod's containers request of the node together (upstream: `PodRequests`).
pub fn requests(pod: &Pod) -> ResourceAmounts {
    // A specification that came from JSON goes back to JSON.
    qos::pod_requests(&serde_json::to_value(&pod.spec).unwrap_or(Value::Null))
}

/// Whether a container has to be started anew to have `now` in place of `before` (its `resizePolicy`).
pub fn needs_restart(container: &Container, before: &ResourceRequirements, now: &ResourceRequirements) -> bool {
    let policies = container.resize_policy.iter().flatten();
    let strict = policies.filter(|policy| policy.restart_policy == "RestartContainer");
    let mut strict = strict.map(|policy| policy.resource_name.as_str());
    strict.any(|name| !same_amount(name, before, now))
}

/// Whether two lists of requests and limits mean the same amounts of what can be resized.
pub fn same(one: &ResourceRequirements, other: &ResourceRequirements) -> bool {
    RESIZABLE.iter().all(|name| same_amount(name, one, other))
}

/// The part of a container's resources that can be resized.
pub fn resizable(resources: Option<&ResourceRequirements>) -> ResourceRequirements {
    let part = |list: Option<&BTreeMap<String, ApiQuantity>>| {
        let list: BTreeMap<_, _> =
            list.into_iter().flatten().filter(|(name, _)| RESIZABLE.contains(&name.as_str())).collect();
        let list: BTreeMap<String, ApiQuantity> =
            list.into_iter().map(|(name, amount)| (name.clone(), amount.clone())).collect();
        (!list.is_empty()).then_some(list)
    };
    ResourceRequirements {
        limits: part(resources.and_then(|resources| resources.limits.as_ref())),
        requests: part(resources.and_then(|resources| resources.requests.as_ref())),
        claims: None,
    }
}

/// What upstream's events say of a resize: the pod's resources, its generation, and what went wrong.
pub fn summary(pod: &Pod, error: Option<&str>) -> String {
    let spec = pod.spec.as_ref();
    let all = |containers: Option<&Vec<Container>>| -> Vec<Value> {
        let of = |container: &Container| json!({"name": container.name, "resources": container.resources});
        containers.into_iter().flatten().map(of).collect()
    };
    let mut text =
        json!({ "containers": all(spec.map(|spec| &spec.containers)), "generation": pod.metadata.generation });
    let inits = all(spec.and_then(|spec| spec.init_containers.as_ref()));
    if !inits.is_empty() {
        text["initContainers"] = Value::Array(inits);
    }
    if let Some(error) = error {
        text["error"] = json!(error);
    }
    text.to_string()
}

fn same_amount(name: &str, one: &ResourceRequirements, other: &ResourceRequirements) -> bool {
    let amount = |list: Option<&BTreeMap<String, ApiQuantity>>| {
        list.and_then(|list| list.get(name)).and_then(|amount| amount.0.parse::<skep_api::quantity::Quantity>().ok())
    };
    amount(one.limits.as_ref()) == amount(other.limits.as_ref())
        && amount(one.requests.as_ref()) == amount(other.requests.as_ref())
}

/// Puts the resizable amounts of `own` in place of those in `resources`; others stay.
pub fn replace(resources: &mut ResourceRequirements, own: &ResourceRequirements) {
    let lists = [(&mut resources.limits, &own.limits), (&mut resources.requests, &own.requests)];
    for (list, own) in lists {
        let mut all = list.take().unwrap_or_default();
        all.retain(|name, _| !RESIZABLE.contains(&name.as_str()));
        all.extend(own.iter().flatten().map(|(name, amount)| (name.clone(), amount.clone())));
        *list = (!all.is_empty()).then_some(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str) -> Pod {
        let resources =
            json!({"requests": {"cpu": cpu, "memory": "1Gi", "example.com/x": "1"}, "limits": {"cpu": "4"}});
        let container = json!({"name": "a", "resources": resources,
            "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]});
        serde_json::from_value(json!({"metadata": {"generation": 2}, "spec": {"containers": [container]}}))
            .expect("a pod")
    }

    fn has(cpu: &str) -> Allocation {
        Allocation::requested(pod(cpu).spec.as_ref().expect("a spec"))
    }

    fn amounts(cpu: &str) -> ResourceAmounts {
        [("cpu", cpu), ("memory", "4Gi")]
            .map(|(name, value)| (name.to_owned(), value.parse().expect("an amount")))
            .into()
    }

    #[test]
    fn equal_amounts_written_otherwise_are_no_wish() {
        assert!(has("1000m").is_same(&has("1")) && !has("2").is_same(&has("1")));
    }

    #[test]
    fn a_wish_is_granted_deferred_or_refused_by_what_the_node_has() {
        let decide = |cpu: &str, used: &ResourceAmounts| decide(&requests(&pod(cpu)), used, &amounts("4"));
        let none = ResourceAmounts::new();
        assert_eq!(decide("2", &none), Decision::Granted);
        let message = "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000";
        assert_eq!(decide("5", &none), Decision::Infeasible(message.to_owned()));
        let used = [("cpu".to_owned(), "3".parse().expect("an amount"))].into();
        let message = "Node didn't have enough resource: cpu, requested: 2000, used: 3000, capacity: 4000";
        assert_eq!(decide("2", &used), Decision::Deferred(message.to_owned()));
    }

    #[test]
    fn what_is_granted_takes_the_place_of_what_is_asked_for() {
        let mut spec = pod("2").spec.expect("a spec");
        has("1").overlay(&mut spec);
        assert_eq!(Some(spec), pod("1").spec);
    }

    #[test]
    fn a_container_is_restarted_only_for_what_its_policy_names() {
        let old = pod("1").spec.expect("a spec").containers.remove(0);
        let before = resizable(old.resources.as_ref());
        let mut now = before.clone();
        now.requests.get_or_insert_default().insert("cpu".to_owned(), ApiQuantity("2".to_owned()));
        assert!(!needs_restart(&old, &before, &now));
        now.requests.get_or_insert_default().remove("memory");
        assert!(needs_restart(&old, &before, &now));
    }

    #[test]
    fn an_event_tells_of_the_resources() {
        let text = summary(&pod("1"), Some("no"));
        assert!(text.starts_with(r#"{"containers":[{"name":"a","resources":{"limits":{"cpu":"4"}"#), "{text}");
        assert!(text.contains(r#""error":"no""#) && text.contains(r#""generation":2"#), "{text}");
    }
}
