//! ResourceQuota: what a new or changed object uses is charged to its namespace's quotas in the batch that writes it, on condition that each
//! quota is as it was read. So quotas are kept exactly, however many API servers there are (upstream's k8s.io/apiserver/pkg/admission/plugin/resourcequota).

use serde_json::Value;
use skep_api::kinds::core::pod::qos;
use skep_api::quantity::Quantity;
use skep_api::quota::{Usage, matches_scopes, usage};
use skep_api::{GroupResource, Status};
use skep_store::{Condition, Op, Write};

use super::{Call, Engine};
use crate::admission::Objects as _;
use crate::keys;

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
    if !matches_scopes(quota, &call.kind.group_resource(), object) {
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
