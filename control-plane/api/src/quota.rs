//! ResourceQuota's arithmetic: what an object uses, whether a quota counts it, and what all of them use together (upstream's
//! pkg/quota/v1).
//!
//! Invariant: the API server, which charges a write, and the controller, which counts anew, both use this, so they agree.
//!
//! Data flow: a quota's names → [`counted_resource`] → the objects of that kind → [`usage`] of those that
//! [`matches_scopes`] → [`total`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::GroupResource;
use crate::kinds::core::pod::qos;
use crate::quantity::Quantity;

/// Amounts by the quota's names.
pub type Usage = BTreeMap<String, Quantity>;

const HUGE_PAGES: &str = "hugepages-";
const BY_STORAGE_CLASS: &str = ".storageclass.storage.k8s.io/";

/// The kind whose objects use what a quota names; none for a name that nothing uses (upstream's `MatchingResources`).
#[must_use]
pub fn counted_resource(name: &str) -> Option<GroupResource> {
    if let Some(counted) = name.strip_prefix("count/") {
        let (resource, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some(GroupResource { group: Cow::Owned(group.to_owned()), resource: Cow::Owned(resource.to_owned()) });
    }
    let claimed = |name: &str| matches!(name, "persistentvolumeclaims" | "requests.storage");
    if claimed(name) || name.split_once(BY_STORAGE_CLASS).is_some_and(|(_, rest)| claimed(rest)) {
        return Some(GroupResource::new("", "persistentvolumeclaims"));
    }
    let resource = match name {
        "pods" | "cpu" | "memory" | "ephemeral-storage" => "pods",
        "services" | "services.loadbalancers" | "services.nodeports" => "services",
        "secrets" => "secrets",
        "configmaps" => "configmaps",
        "replicationcontrollers" => "replicationcontrollers",
        "resourcequotas" => "resourcequotas",
        other if other.starts_with(HUGE_PAGES) => "pods",
        other => {
            let (requested, limited) = (other.strip_prefix("requests."), other.strip_prefix("limits."));
            let is_native = |name: &str| matches!(name, "cpu" | "memory" | "ephemeral-storage");
            let is_requested = |name: &str| is_native(name) || name.starts_with(HUGE_PAGES) || name.contains('/');
            if !requested.is_some_and(is_requested) && !limited.is_some_and(is_native) {
                return None;
            }
            "pods"
        }
    };
    Some(GroupResource::new("", resource))
}

/// What all objects of a kind use of what a quota names of that kind; zero of what none of them uses.
#[must_use]
pub fn total(quota: &Value, resource: &GroupResource, objects: &[Value]) -> Usage {
    let names = quota["spec"]["hard"].as_object().into_iter().flatten().map(|(name, _)| name);
    let names = names.filter(|name| counted_resource(name).as_ref() == Some(resource));
    let mut total: Usage = names.map(|name| (name.clone(), Quantity::ZERO)).collect();
    for object in objects.iter().filter(|object| matches_scopes(quota, resource, object)) {
        for (name, amount) in usage(resource, object) {
            if let Some(sum) = total.get_mut(&name) {
                *sum += amount;
            }
        }
    }
    total
}

/// What an object uses of everything that quotas count.
#[must_use]
pub fn usage(resource: &GroupResource, object: &Value) -> Usage {
    let one = Quantity::from_milli(1000);
    let plural = &*resource.resource;
    let mut used = Usage::new();
    let counted = if resource.group.is_empty() {
        format!("count/{plural}")
    } else {
        format!("count/{plural}.{}", resource.group)
    };
    if plural == "pods" && resource.group.is_empty() && is_over(object) {
        // A pod that has ended is still an object, but uses nothing.
        used.insert(counted, one);
        return used;
    }
    used.insert(counted, one);
    if !resource.group.is_empty() {
        return used;
    }
    match plural {
        "pods" => pod_usage(object, &mut used),
        "services" => service_usage(object, &mut used),
        "persistentvolumeclaims" => claim_usage(object, &mut used),
        "resourcequotas" | "replicationcontrollers" | "secrets" | "configmaps" => {
            used.insert(plural.to_owned(), one);
        }
        _ => {}
    }
    used
}

fn is_over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"))
}

fn pod_usage(pod: &Value, used: &mut Usage) {
    used.insert("pods".to_owned(), Quantity::from_milli(1000));
    for (name, amount) in qos::pod_requests(&pod["spec"]) {
        if matches!(&*name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with(HUGE_PAGES) {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in qos::container_limits(&pod["spec"]) {
        used.insert(format!("limits.{name}"), amount);
    }
}

fn service_usage(service: &Value, used: &mut Usage) {
    let ports = service["spec"]["ports"].as_array().map_or(0, Vec::len);
    let count = |count: usize| Quantity::from_milli(i64::try_from(count).unwrap_or(i64::MAX / 1000) * 1000);
    used.insert("services".to_owned(), count(1));
    let type_ = service["spec"]["type"].as_str().unwrap_or_default();
    let balanced = type_ == "LoadBalancer";
    if balanced {
        used.insert("services.loadbalancers".to_owned(), count(1));
    }
    let has_ports = !balanced || service["spec"]["allocateLoadBalancerNodePorts"] != false;
    if type_ == "NodePort" || balanced && has_ports {
        used.insert("services.nodeports".to_owned(), count(ports));
    }
}

fn claim_usage(claim: &Value, used: &mut Usage) {
    let one = Quantity::from_milli(1000);
    used.insert("persistentvolumeclaims".to_owned(), one);
    let size = Quantity::from_value(&claim["spec"]["resources"]["requests"]["storage"]).unwrap_or(Quantity::ZERO);
    used.insert("requests.storage".to_owned(), size);
    let class = crate::kinds::core::persistent_volume_claim::class(claim);
    if !class.is_empty() {
        let prefix = format!("{class}.storageclass.storage.k8s.io");
        used.insert(format!("{prefix}/persistentvolumeclaims"), one);
        used.insert(format!("{prefix}/requests.storage"), size);
    }
}

/// Whether all scopes of a quota hold for an object; only pods (and claims, by their attributes class) have any.
#[must_use]
pub fn matches_scopes(quota: &Value, resource: &GroupResource, object: &Value) -> bool {
    let is_pod = resource.resource == "pods" && resource.group.is_empty();
    let spec = &quota["spec"];
    let plain = spec["scopes"].as_array().into_iter().flatten();
    let mut plain = plain.map(|scope| (scope.as_str().unwrap_or_default(), "Exists", &Value::Null));
    let selected = spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten();
    let mut selected = selected.map(|requirement| {
        let text = |field: &str| requirement[field].as_str().unwrap_or_default();
        (text("scopeName"), text("operator"), &requirement["values"])
    });
    let holds = |(scope, operator, values): (&str, &str, &Value)| scope_holds(scope, operator, values, object, is_pod);
    plain.all(holds) && selected.all(holds)
}

fn scope_holds(scope: &str, operator: &str, values: &Value, object: &Value, is_pod: bool) -> bool {
    let spec = &object["spec"];
    let is_terminating = spec["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    let best_effort = || qos::compute_qos_class(object) == "BestEffort";
    let named = |name: &str| {
        let among = values.as_array().into_iter().flatten().any(|value| value == name);
        match operator {
            "In" => !name.is_empty() && among,
            "NotIn" => !among,
            "Exists" => !name.is_empty(),
            "DoesNotExist" => name.is_empty(),
            _ => false,
        }
    };
    match scope {
        "VolumeAttributesClass" => !is_pod && named(spec["volumeAttributesClassName"].as_str().unwrap_or_default()),
        _ if !is_pod => false,
        "Terminating" => is_terminating,
        "NotTerminating" => !is_terminating,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => named(spec["priorityClassName"].as_str().unwrap_or_default()),
        "CrossNamespacePodAffinity" => crosses_namespaces(&spec["affinity"]),
        _ => false,
    }
}

fn crosses_namespaces(affinity: &Value) -> bool {
    let crosses = |term: &Value| {
        term["namespaces"].as_array().is_some_and(|names| !names.is_empty()) || !term["namespaceSelector"].is_null()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|side| {
        let side = &affinity[*side];
        let required = side["requiredDuringSchedulingIgnoredDuringExecution"].as_array().into_iter().flatten();
        let preferred = side["preferredDuringSchedulingIgnoredDuringExecution"].as_array().into_iter().flatten();
        required.into_iter().any(crosses) || preferred.into_iter().any(|term| crosses(&term["podAffinityTerm"]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PODS: GroupResource = GroupResource::new("", "pods");

    #[test]
    fn a_pod_uses_what_it_requests_until_it_ends() {
        let mut pod =
            json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}]}});
        let used = usage(&PODS, &pod);
        let shown: Vec<String> = used.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        assert_eq!(shown, ["count/pods=1", "cpu=1", "limits.cpu=2", "pods=1", "requests.cpu=1"]);
        pod["status"]["phase"] = "Succeeded".into();
        assert_eq!(usage(&PODS, &pod).len(), 1);
    }

    #[test]
    fn scopes_choose_pods() {
        let quota = json!({"spec": {"scopes": ["BestEffort", "NotTerminating"]}});
        let pod = json!({"spec": {"containers": [{"name": "c"}]}});
        assert!(matches_scopes(&quota, &PODS, &pod));
        let ending = json!({"spec": {"containers": [{"name": "c"}], "activeDeadlineSeconds": 5}});
        assert!(!matches_scopes(&quota, &PODS, &ending));
        let by_class = json!({"spec": {"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]},
        ]}}});
        assert!(!matches_scopes(&by_class, &PODS, &pod));
        assert!(matches_scopes(&by_class, &PODS, &json!({"spec": {"priorityClassName": "high"}})));
    }

    #[test]
    fn a_name_says_which_objects_use_it() {
        for (name, expected) in [
            ("cpu", Some("pods")),
            ("limits.memory", Some("pods")),
            ("requests.hugepages-2Mi", Some("pods")),
            ("requests.example.com/dongle", Some("pods")),
            ("limits.example.com/dongle", None),
            ("services.nodeports", Some("services")),
            ("requests.storage", Some("persistentvolumeclaims")),
            ("gold.storageclass.storage.k8s.io/requests.storage", Some("persistentvolumeclaims")),
            ("count/secrets", Some("secrets")),
            ("count/jobs.batch", Some("jobs.batch")),
            ("count/foos.a.example.com", Some("foos.a.example.com")),
            ("storage", None),
        ] {
            let counted = counted_resource(name).map(|resource| resource.to_string());
            assert_eq!(counted.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn all_that_matches_is_summed_up_and_what_nothing_uses_is_zero() {
        let pod = |memory: &str, deadline: &Value, phase: &str| {
            json!({"spec": {"activeDeadlineSeconds": deadline, "containers": [{"resources": {"requests": {
                "memory": memory, "example.com/dongle": "2"}}}]}, "status": {"phase": phase}})
        };
        let hard =
            json!({"pods": "5", "memory": "1Gi", "cpu": "1", "requests.example.com/dongle": "9", "secrets": "1"});
        let quota = json!({"spec": {"hard": hard, "scopes": ["NotTerminating"]}});
        let pods = [
            pod("252Mi", &Value::Null, "Running"),
            pod("4Mi", &Value::Null, "Pending"),
            pod("8Mi", &Value::Null, "Succeeded"),
            pod("16Mi", &json!(5), "Running"),
        ];
        let total = total(&quota, &PODS, &pods);
        let shown: Vec<String> = total.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        assert_eq!(shown, ["cpu=0", "memory=256Mi", "pods=2", "requests.example.com/dongle=4"]);
    }

    #[test]
    fn a_service_uses_what_its_type_takes() {
        let services = GroupResource::new("", "services");
        let quota = json!({"spec": {"hard": {
            "services": "9", "services.loadbalancers": "9", "services.nodeports": "9", "count/services": "9",
        }}});
        let ports = json!([{"port": 80}, {"port": 81}]);
        for (spec, expected) in [
            (json!({"type": "ClusterIP", "ports": ports}), ["1", "1", "0", "0"]),
            (json!({"type": "NodePort", "ports": ports}), ["1", "1", "0", "2"]),
            (json!({"type": "LoadBalancer", "ports": ports}), ["1", "1", "1", "2"]),
            (
                json!({"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false}),
                ["1", "1", "1", "0"],
            ),
        ] {
            let total = total(&quota, &services, &[json!({ "spec": spec })]);
            assert_eq!(total.values().map(ToString::to_string).collect::<Vec<_>>(), expected, "{spec}");
        }
    }
}
