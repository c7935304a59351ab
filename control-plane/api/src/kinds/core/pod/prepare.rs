//! What happens to a pod on its way in, besides defaults: upstream's `PrepareForCreate` and `PrepareForUpdate`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::CONTAINER_LISTS;
use super::qos::{self, ResourceList, compute_qos_class, has_pod_level_resources, is_pod_level_resource};
use crate::kinds::tree::{integer, is_empty, items, items_mut, length, map_mut, remove, text};

/// A new pod: the status is the server's, gated fields go, and what follows from the spec is written down.
pub(super) fn create(pod: &mut Value, now: &str) {
    pod["status"] = json!({"phase": "Pending"});
    drop_gated_fields(pod);
    if length(&pod["spec"]["schedulingGates"]) > 0 {
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
        });
        set_condition(&mut pod["status"], condition, now);
    }
    merge_label_keys(pod);
    app_armor_from_annotations(pod);
    default_pod_level_resources(&mut pod["spec"]);
    pod["status"]["qosClass"] = compute_qos_class(pod).into();
}

/// A changed pod. A client that does not know pod-level resources does not take them away.
pub(super) fn update(pod: &mut Value, old: &Value) {
    if pod["spec"]["resources"].is_null() && !old["spec"]["resources"].is_null() {
        pod["spec"]["resources"] = old["spec"]["resources"].clone();
    } else if pod["spec"]["resources"].is_null() {
        remove(&mut pod["spec"], "resources");
    }
    drop_gated_fields(pod);
}

/// A changed status: what only the server or newer clients know is kept where the writer leaves it out.
pub(super) fn status_update(pod: &mut Value, old: &Value) {
    let kept = [
        "qosClass",
        "resourceClaimStatuses",
        "extendedResourceClaimStatus",
        "nodeAllocatableResourceClaimStatuses",
        "observedGeneration",
    ];
    let before = &old["status"];
    let status = map_mut(&mut pod["status"]);
    for field in kept {
        let given = status.get(field).is_some_and(|value| !value.is_null() && (value.is_array() || !is_empty(value)));
        if !given {
            match before.get(field) {
                Some(value) => status.insert(field.to_owned(), value.clone()),
                None => status.remove(field),
            };
        }
    }
    let mut generations: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for condition in items(&before["conditions"]).iter().rev() {
        generations.entry(text(&condition["type"])).or_default().push(&condition["observedGeneration"]);
    }
    for condition in items_mut(&mut pod["status"], "conditions") {
        let earlier = generations.get_mut(text(&condition["type"])).and_then(Vec::pop);
        if integer(&condition["observedGeneration"]) == 0
            && let Some(generation) = earlier.filter(|generation| !generation.is_null())
        {
            condition["observedGeneration"] = generation.clone();
        }
    }
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        for container in items_mut(&mut pod["status"], list) {
            if let Some(map) = container.as_object_mut() {
                map.retain(|_, value| !value.is_null());
            }
        }
    }
}

/// Seconds that a deleted pod has for its end: upstream's `CheckGracefulDelete`. `requested` is what the deleter asked for.
#[must_use]
pub fn graceful_deletion_seconds(pod: &Value, requested: Option<i64>) -> i64 {
    let seconds = requested.or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(0);
    let unscheduled = text(&pod["spec"]["nodeName"]).is_empty();
    let ended = matches!(text(&pod["status"]["phase"]), "Failed" | "Succeeded");
    match seconds {
        _ if unscheduled || ended => 0,
        ..0 => 1,
        _ => seconds,
    }
}

/// Sets a condition of a pod: upstream's `UpdatePodCondition`. The time of transition moves only when the status does. Returns whether
/// anything changed.
pub fn set_condition(status: &mut Value, condition: Value, now: &str) -> bool {
    let mut condition = condition;
    let kind = text(&condition["type"]).to_owned();
    let conditions = map_mut(status).entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(conditions) = conditions.as_array_mut() else { return false };
    match conditions.iter_mut().find(|existing| text(&existing["type"]) == kind) {
        Some(existing) => {
            let same_status = existing["status"] == condition["status"];
            let since = existing["lastTransitionTime"].clone();
            condition["lastTransitionTime"] = if same_status && !since.is_null() { since } else { now.into() };
            let changed = *existing != condition;
            *existing = condition;
            changed
        }
        None => {
            condition["lastTransitionTime"] = now.into();
            conditions.push(condition);
            true
        }
    }
}

/// Fields behind feature gates that are off by default in 1.37 (`DropDisabledPodFields`).
fn drop_gated_fields(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    remove(spec, "schedulingGroup");
    remove(spec, "evictionResponders");
    for list in CONTAINER_LISTS {
        for container in items_mut(spec, list) {
            for mount in items_mut(container, "volumeMounts") {
                remove(mount, "bindMountOptions");
            }
            if let Some(lifecycle) = container.get_mut("lifecycle") {
                remove(lifecycle, "stopSignal");
                drop_probe_fields(lifecycle, &["postStart", "preStop"]);
            }
            drop_probe_fields(container, &["livenessProbe", "readinessProbe", "startupProbe"]);
        }
    }
}

fn drop_probe_fields(owner: &mut Value, handlers: &[&str]) {
    for handler in handlers {
        let Some(handler) = owner.get_mut(handler).filter(|handler| handler.is_object()) else { continue };
        if let Some(get) = handler.get_mut("httpGet") {
            remove(get, "protocol");
        }
        if let Some(grpc) = handler.get_mut("grpc") {
            remove(grpc, "mode");
        }
    }
}

/// `matchLabelKeys` and `mismatchLabelKeys` become requirements of the selector beside them, with the pod's own values (KEP-3243, KEP-3633).
fn merge_label_keys(pod: &mut Value) {
    let labels = pod["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let spec = &mut pod["spec"];
    for affinity in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = spec.get_mut("affinity").and_then(|all| all.get_mut(affinity)) else { continue };
        for weighted in items_mut(affinity, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = weighted.get_mut("podAffinityTerm") {
                merge_term_keys(term, &labels);
            }
        }
        for term in items_mut(affinity, "requiredDuringSchedulingIgnoredDuringExecution") {
            merge_term_keys(term, &labels);
        }
    }
    for constraint in items_mut(spec, "topologySpreadConstraints") {
        merge_term_keys(constraint, &labels);
    }
}

fn merge_term_keys(term: &mut Value, labels: &Map<String, Value>) {
    let mut added = Vec::new();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in items(term.get(field).unwrap_or(&Value::Null)).iter().map(text) {
            if let Some(value) = labels.get(key) {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    if added.is_empty() {
        return;
    }
    if let Some(selector) = term.get_mut("labelSelector").and_then(Value::as_object_mut) {
        let expressions = selector.entry("matchExpressions").or_insert_with(|| json!([]));
        if let Some(expressions) = expressions.as_array_mut() {
            expressions.extend(added);
        }
    }
}

/// The prefix of the annotations that named AppArmor profiles before there was a field.
pub(super) const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Upstream's `applyAppArmorVersionSkew`: an old annotation becomes the field of its container.
fn app_armor_from_annotations(pod: &mut Value) {
    if pod["spec"]["os"]["name"] == "windows" || pod["metadata"]["annotations"].is_null() {
        return;
    }
    let annotations = pod["metadata"]["annotations"].clone();
    let pod_profile = pod["spec"]["securityContext"]["appArmorProfile"].clone();
    for list in CONTAINER_LISTS {
        for container in items_mut(&mut pod["spec"], list) {
            let has_field =
                container.pointer("/securityContext/appArmorProfile").is_some_and(|profile| !profile.is_null());
            let key = format!("{APP_ARMOR_ANNOTATION}{}", text(&container["name"]));
            let Some(profile) = annotations[&key].as_str().and_then(app_armor_profile).filter(|_| !has_field) else {
                continue;
            };
            if profile != pod_profile {
                map_mut(&mut container["securityContext"]).insert("appArmorProfile".into(), profile);
            }
        }
    }
}

/// The profile that an old annotation names; `None` when it names none.
pub(super) fn app_armor_profile(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        _ => {
            let profile = annotation.strip_prefix("localhost/").filter(|profile| !profile.is_empty())?;
            Some(json!({"type": "Localhost", "localhostProfile": profile}))
        }
    }
}

/// Upstream's `DefaultPodLevelResources`: what is set for the pod as a whole in part is completed from its containers (KEP-2837).
pub(super) fn default_pod_level_resources(spec: &mut Value) {
    if spec["resources"].is_null() {
        remove(spec, "resources");
        return;
    }
    if !has_pod_level_resources(spec) {
        return;
    }
    let mut limits = qos::resource_list(&spec["resources"]["limits"]);
    let mut requests = qos::resource_list(&spec["resources"]["requests"]);
    let container_limits = qos::container_limits(spec);
    for (name, limit) in &container_limits {
        if name.starts_with("hugepages-") && !requests.contains_key(name) {
            limits.entry(name.clone()).or_insert(*limit);
        }
    }
    for (name, request) in qos::container_requests(spec) {
        if name == "cpu" || name == "memory" {
            requests.entry(name).or_insert(request);
        }
    }
    for (name, limit) in limits.iter().filter(|(name, _)| is_pod_level_resource(name)) {
        requests.entry(name.clone()).or_insert(*limit);
    }
    for (name, request) in requests.iter().filter(|(name, _)| is_pod_level_resource(name)) {
        if let Some(limit) = every_container_limit(spec, name, &container_limits) {
            limits.entry(name.clone()).or_insert(limit.max(*request));
        }
    }
    write_missing(&mut spec["resources"], "limits", &limits);
    write_missing(&mut spec["resources"], "requests", &requests);
}

/// The limit of all containers together, if every one of them has one.
fn every_container_limit(spec: &Value, name: &str, limits: &ResourceList) -> Option<crate::quantity::Quantity> {
    let mut containers = items(&spec["initContainers"]).iter().chain(items(&spec["containers"]));
    containers.all(|container| !container["resources"]["limits"][name].is_null()).then(|| limits.get(name).copied())?
}

fn write_missing(resources: &mut Value, field: &str, list: &ResourceList) {
    if list.is_empty() {
        return;
    }
    let written = map_mut(map_mut(resources).entry(field).or_insert_with(|| json!({})));
    for (name, quantity) in list {
        written.entry(name.clone()).or_insert_with(|| (*quantity).into());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{pod, pod_with};
    use super::*;

    const NOW: &str = "2026-11-24T09:00:00Z";

    #[test]
    fn a_new_pod_is_pending_whatever_its_author_says() {
        let mut new = pod();
        new["status"] = json!({"phase": "Running", "podIP": "1.2.3.4"});
        create(&mut new, NOW);
        assert_eq!(new["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    }

    #[test]
    fn a_gated_pod_says_why_it_waits() {
        let mut gated = pod_with(json!({"schedulingGates": [{"name": "a.b/c"}]}));
        create(&mut gated, NOW);
        assert_eq!(gated["status"]["conditions"][0]["reason"], "SchedulingGated");
        assert_eq!(gated["status"]["conditions"][0]["lastTransitionTime"], NOW);
    }

    #[test]
    fn label_keys_become_requirements() {
        let mut new = pod_with(
            json!({"topologySpreadConstraints": [{"matchLabelKeys": ["hash", "absent"], "labelSelector": {}}]}),
        );
        new["metadata"]["labels"] = json!({"hash": "abc"});
        create(&mut new, NOW);
        assert_eq!(
            new["spec"]["topologySpreadConstraints"][0]["labelSelector"],
            json!({"matchExpressions": [{"key": "hash", "operator": "In", "values": ["abc"]}]})
        );
    }

    #[test]
    fn an_old_annotation_becomes_the_field() {
        let mut new = pod();
        new["metadata"]["annotations"] = json!({format!("{APP_ARMOR_ANNOTATION}main"): "localhost/p"});
        create(&mut new, NOW);
        assert_eq!(
            new["spec"]["containers"][0]["securityContext"]["appArmorProfile"],
            json!({"type": "Localhost", "localhostProfile": "p"})
        );
    }

    #[test]
    fn pod_level_resources_are_completed_from_the_containers() {
        let mut new = pod_with(json!({"resources": {"limits": {"memory": "2Gi"}},
            "containers": [{"name": "a", "image": "b", "resources": {"limits": {"cpu": "1"}}}]}));
        create(&mut new, NOW);
        assert_eq!(
            new["spec"]["resources"],
            json!({"limits": {"cpu": "1", "memory": "2Gi"}, "requests": {"cpu": "1", "memory": "2Gi"}})
        );
        assert_eq!(new["status"]["qosClass"], "Guaranteed");
    }

    #[test]
    fn a_status_keeps_what_its_writer_does_not_know() {
        let mut old = pod();
        old["status"] = json!({"qosClass": "Burstable", "observedGeneration": 3,
            "conditions": [{"type": "Ready", "observedGeneration": 2}]});
        let mut new = pod();
        new["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready"}, {"type": "Initialized"}]});
        status_update(&mut new, &old);
        assert_eq!(
            new["status"],
            json!({"phase": "Running", "qosClass": "Burstable", "observedGeneration": 3,
                "conditions": [{"type": "Ready", "observedGeneration": 2}, {"type": "Initialized"}]})
        );
    }

    #[test]
    fn deletion_waits_as_long_as_the_pod_asks() {
        let mut running = pod_with(json!({"nodeName": "n"}));
        assert_eq!(graceful_deletion_seconds(&running, None), 30);
        assert_eq!(graceful_deletion_seconds(&running, Some(5)), 5);
        assert_eq!(graceful_deletion_seconds(&running, Some(-5)), 1);
        assert_eq!(graceful_deletion_seconds(&pod(), Some(5)), 0, "an unscheduled pod has nothing to end");
        running["status"] = json!({"phase": "Succeeded"});
        assert_eq!(graceful_deletion_seconds(&running, None), 0);
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let mut status = json!({});
        assert!(set_condition(&mut status, json!({"type": "Ready", "status": "False"}), "1"));
        assert!(!set_condition(&mut status, json!({"type": "Ready", "status": "False"}), "2"));
        assert!(set_condition(&mut status, json!({"type": "Ready", "status": "True"}), "3"));
        assert_eq!(status["conditions"], json!([{"type": "Ready", "status": "True", "lastTransitionTime": "3"}]));
    }
}
