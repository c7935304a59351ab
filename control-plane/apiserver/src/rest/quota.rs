//! ResourceQuota: what a new or changed object uses is charged to its namespace's quotas in the batch that writes it, on condition that each
//! quota is as it was read. So quotas are kept exactly, however many API servers there are (upstream's k8s.io/apiserver/pkg/admission/plugin/resourcequota).

use std::collections::BTreeMap;

use serde_json::Value;
use skep_api::kinds::core::pod::qos;
use skep_api::quantity::Quantity;
use skep_api::{GroupResource, Status};
use skep_store::{Condition, Op, Write};

use super::{Call, Engine};
use crate::admission::Objects as _;
use crate::keys;

/// Amounts by the quota's names.
type Usage = BTreeMap<String, Quantity>;

impl Engine {
    /// The writes that charge a create (`old` is none) or a change to the quotas of its namespace.
    ///
    /// # Errors
    /// 403 when a quota would be exceeded, in upstream's words.
    pub(super) async fn charge(&self, call: &Call<'_>, new: &Value, old: Option<&Value>) -> Result<Vec<Write>, Status> {
        let quotas = GroupResource::new("", "resourcequotas");
        let kind = call.kind;
        let is_quota_status = kind.plural == quotas.resource && kind.group_version.group.is_empty() && old.is_some();
        if call.namespace.is_empty() || call.subresource.is_some() || is_quota_status {
            return Ok(Vec::new());
        }
        let there = self.cache.list(&quotas, Some(call.namespace));
        if there.is_empty() {
            return Ok(Vec::new());
        }
        let used = usage(&kind.group_resource(), new);
        let before = old.map(|old| usage(&kind.group_resource(), old)).unwrap_or_default();
        let delta: Usage = used
            .iter()
            .filter_map(|(name, amount)| {
                let more = before.get(name).map_or(*amount, |before| *amount - *before);
                (more > Quantity::ZERO).then(|| (name.clone(), more))
            })
            .collect();
        if delta.is_empty() {
            return Ok(Vec::new());
        }
        self.cache.wait_for_latest(&quotas).await?;
        let table = self.registry.table();
        let quota_kind = table.get("", "v1", "resourcequotas").cloned().ok_or_else(Status::no_such_path)?;
        let mut writes = Vec::new();
        for quota in self.cache.list(&quotas, Some(call.namespace)) {
            let name = quota["metadata"]["name"].as_str().unwrap_or_default();
            let Some(charged) = charge_one(call, name, &quota, new, &delta)? else { continue };
            let Some(shared) = self.cache.get(&quotas, call.namespace, name) else { continue };
            let value = self.encode(&quota_kind, &charged).await?;
            let key = keys::object(&quotas, call.namespace, name);
            let condition = Condition::At(shared.revision);
            // A quota that was written between the two reads is caught by the condition only if both saw the same.
            if shared.to_value()["metadata"]["resourceVersion"] != quota["metadata"]["resourceVersion"] {
                return Err(Status::unavailable("the namespace's quota is being changed; try again", 1));
            }
            writes.push(Write { key, op: Op::Put { value, ttl: None }, condition });
        }
        Ok(writes)
    }
}

/// The quota with what is new charged to it; none where it does not count the object.
fn charge_one(
    call: &Call<'_>,
    name: &str,
    quota: &Value,
    object: &Value,
    delta: &Usage,
) -> Result<Option<Value>, Status> {
    let is_pod = call.kind.plural == "pods" && call.kind.group_version.group.is_empty();
    if !matches_scopes(quota, object, is_pod) {
        return Ok(None);
    }
    let hard = |list: &Value| -> Usage { qos::resource_list(list) };
    let (wanted, limits, used) =
        (hard(&quota["spec"]["hard"]), hard(&quota["status"]["hard"]), hard(&quota["status"]["used"]));
    let forbidden = |why: String| Status::forbidden(&call.kind.group_resource(), call.name, &why);
    if is_pod {
        require_resources(name, &wanted, object).map_err(forbidden)?;
    }
    let requested: Usage =
        delta.iter().filter(|(name, _)| wanted.contains_key(*name)).map(|(n, q)| (n.clone(), *q)).collect();
    if requested.is_empty() {
        return Ok(None);
    }
    let unknown: Vec<&str> = requested.keys().filter(|name| !limits.contains_key(*name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        return Err(forbidden(format!("status unknown for quota: {name}, resources: {}", unknown.join(","))));
    }
    let total = |resource: &String, more: &Quantity| used.get(resource).copied().unwrap_or(Quantity::ZERO) + *more;
    let exceeded: Vec<&String> =
        requested.iter().filter(|(resource, more)| total(resource, more) > limits[*resource]).map(|(r, _)| r).collect();
    if !exceeded.is_empty() {
        let show = |list: &Usage| {
            let each = exceeded
                .iter()
                .map(|resource| format!("{resource}={}", list.get(*resource).copied().unwrap_or(Quantity::ZERO)));
            each.collect::<Vec<_>>().join(",")
        };
        return Err(forbidden(format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            show(&requested),
            show(&used),
            show(&limits)
        )));
    }
    let mut charged = quota.clone();
    for (resource, more) in &requested {
        charged["status"]["used"][resource] = total(resource, more).to_string().into();
    }
    Ok(Some(charged))
}

/// `Constraints` of the pod evaluator: a quota of compute resources demands that each container names them.
fn require_resources(quota: &str, hard: &Usage, pod: &Value) -> Result<(), String> {
    let spec = &pod["spec"];
    let mut missing: Vec<&str> = Vec::new();
    for name in hard.keys() {
        let (field, resource) = match name.as_str() {
            "cpu" | "memory" => ("requests", name.as_str()),
            other => match (other.strip_prefix("requests."), other.strip_prefix("limits.")) {
                (Some(resource @ ("cpu" | "memory")), _) => ("requests", resource),
                (_, Some(resource @ ("cpu" | "memory"))) => ("limits", resource),
                _ => continue,
            },
        };
        if !spec["resources"][field][resource].is_null() {
            continue;
        }
        let all = spec["initContainers"].as_array().into_iter().flatten();
        let mut all = all.chain(spec["containers"].as_array().into_iter().flatten());
        if all.any(|container| container["resources"][field][resource].is_null()) {
            missing.push(name);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let container = spec["containers"][0]["name"].as_str().unwrap_or_default();
    let each: Vec<String> = missing.iter().map(|name| format!("{name} for: {container}")).collect();
    Err(format!("failed quota: {quota}: must specify {}", each.join("; ")))
}

/// What an object uses of everything that quotas count.
fn usage(resource: &GroupResource, object: &Value) -> Usage {
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
        if matches!(&*name, "cpu" | "memory" | "ephemeral-storage") {
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
    let class = skep_api::kinds::core::persistent_volume_claim::class(claim);
    if !class.is_empty() {
        let prefix = format!("{class}.storageclass.storage.k8s.io");
        used.insert(format!("{prefix}/persistentvolumeclaims"), one);
        used.insert(format!("{prefix}/requests.storage"), size);
    }
}

/// Whether all scopes of a quota hold for an object; only pods (and claims, by their attributes class) have any.
fn matches_scopes(quota: &Value, object: &Value, is_pod: bool) -> bool {
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

    #[test]
    fn a_pod_uses_what_it_requests_until_it_ends() {
        let pods = GroupResource::new("", "pods");
        let mut pod =
            json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}]}});
        let used = usage(&pods, &pod);
        let shown: Vec<String> = used.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        assert_eq!(shown, ["count/pods=1", "cpu=1", "limits.cpu=2", "pods=1", "requests.cpu=1"]);
        pod["status"]["phase"] = "Succeeded".into();
        assert_eq!(usage(&pods, &pod).len(), 1);
    }

    #[test]
    fn scopes_choose_pods() {
        let quota = json!({"spec": {"scopes": ["BestEffort", "NotTerminating"]}});
        let pod = json!({"spec": {"containers": [{"name": "c"}]}});
        assert!(matches_scopes(&quota, &pod, true));
        let ending = json!({"spec": {"containers": [{"name": "c"}], "activeDeadlineSeconds": 5}});
        assert!(!matches_scopes(&quota, &ending, true));
        let by_class = json!({"spec": {"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]},
        ]}}});
        assert!(!matches_scopes(&by_class, &pod, true));
        assert!(matches_scopes(&by_class, &json!({"spec": {"priorityClassName": "high"}}), true));
    }
}
