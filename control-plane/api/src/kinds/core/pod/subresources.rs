//! Rules of the pod's subresources that write: binding, eviction, ephemeralcontainers and resize.

use serde_json::{Value, json};

use super::prepare::{default_pod_level_resources, set_condition};
use super::qos::compute_qos_class;
use super::validate::update::unified_diff;
use super::validate::{NOWHERE, validate_pod};
use super::{is_mirror, is_sidecar};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::{carry_over, entries, flag, is_empty, items, items_mut, length, map_mut, remove};
use crate::kinds::tree::{semantically_equal, text};
use crate::names;

/// Upstream's `ValidatePodBinding`.
#[must_use]
pub fn validate_binding(binding: &Value) -> ErrorList {
    let (target, path) = (&binding["target"], Path::new("target"));
    let (kind, name) = (text(&target["kind"]), text(&target["name"]));
    let mut errors = ErrorList::new();
    if !matches!(kind, "" | "Node") {
        errors.push(Error::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
    }
    let at = path.child("name");
    if name.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if matches!(kind, "" | "Node") {
        errors.extend(names::is_dns1123_subdomain(name).into_iter().map(|message| Error::invalid(&at, name, message)));
    }
    errors
}

/// Assigns a pod to the node of a binding, with the binding's annotations and labels.
///
/// # Errors
/// Why the pod can't be assigned, in upstream's words: a conflict of `pods/binding`.
pub fn bind(pod: &mut Value, binding: &Value, now: &str) -> Result<(), String> {
    let name = text(&pod["metadata"]["name"]);
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = text(&pod["spec"]["nodeName"]);
    if !node.is_empty() {
        return Err(format!("pod {name} is already assigned to node \"{node}\""));
    }
    if length(&pod["spec"]["schedulingGates"]) > 0 {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    pod["spec"]["nodeName"] = binding["target"]["name"].clone();
    for field in ["annotations", "labels"] {
        for (key, value) in entries(&binding["metadata"][field]) {
            map_mut(&mut pod["metadata"][field]).insert(key.to_owned(), value.clone());
        }
    }
    let status = &mut pod["status"];
    map_mut(status);
    remove(status, "nominatedNodeName");
    set_condition(status, json!({"type": "PodScheduled", "status": "True"}), now);
    Ok(())
}

/// What is wrong with an Eviction itself; whether the pod may go now is the disruption budgets' matter.
#[must_use]
pub fn validate_eviction(eviction: &Value) -> ErrorList {
    let field = "ignoreStoreReadErrorWithClusterBreakingPotential";
    if !flag(&eviction["deleteOptions"][field]) {
        return ErrorList::new();
    }
    let detail = "can not be set for pod eviction, try after removing the option";
    vec![Error::invalid(&Path::new("deleteOptions").child(field), true, detail)]
}

/// The stored pod with the ephemeral containers of the one that was written: nothing else changes here.
#[must_use]
pub fn with_ephemeral_containers_of(written: &Value, old: &Value) -> Value {
    let mut pod = old.clone();
    carry_over(&mut pod["metadata"], &written["metadata"], "resourceVersion");
    carry_over(&mut pod["spec"], &written["spec"], "ephemeralContainers");
    pod
}

/// Upstream's `ValidatePodEphemeralContainersUpdate`: containers are added, never changed or removed.
#[must_use]
pub fn validate_ephemeral_containers_update(pod: &Value, old: &Value) -> ErrorList {
    if is_mirror(old) {
        return vec![Error::forbidden(&Path::new(NOWHERE), "static pods do not support ephemeral containers")];
    }
    let mut errors = validate_pod(pod);
    let list = "ephemeralContainers";
    let path = Path::new("spec").child(list);
    for before in items(&old["spec"][list]) {
        let name = text(&before["name"]);
        let now = items(&pod["spec"][list]).iter().rfind(|container| text(&container["name"]) == name);
        let detail = match now {
            None => format!("existing ephemeral containers \"{name}\" may not be removed\n"),
            Some(now) if !semantically_equal(before, now) => {
                let difference = unified_diff(before, now);
                format!("existing ephemeral containers \"{name}\" may not be changed\n{difference}")
            }
            Some(_) => continue,
        };
        errors.push(Error::forbidden(&path, detail));
    }
    errors
}

const RESIZED_LISTS: [&str; 2] = ["containers", "initContainers"];

/// The stored pod with the resources and resize policies of the one that was written, pod-level ones completed as at creation. Where
/// containers were added, removed or renamed the written spec comes through, for validation to refuse it.
#[must_use]
pub fn with_resources_of(written: &Value, old: &Value) -> Value {
    let mut pod = old.clone();
    carry_over(&mut pod["metadata"], &written["metadata"], "resourceVersion");
    take_resources(&mut pod["spec"], &written["spec"], &old["spec"]);
    if pod["spec"]["resources"].is_null() {
        carry_over(&mut pod["spec"], &old["spec"], "resources");
    }
    default_pod_level_resources(&mut pod["spec"]);
    pod
}

fn take_resources(spec: &mut Value, written: &Value, old: &Value) {
    if RESIZED_LISTS.iter().any(|list| length(&written[*list]) != length(&old[*list])) {
        *spec = written.clone();
        return;
    }
    carry_over(spec, written, "resources");
    for list in RESIZED_LISTS {
        let renamed = items(&written[list]).iter().zip(items(&old[list])).any(|(a, b)| a["name"] != b["name"]);
        if renamed {
            carry_over(spec, written, list);
            continue;
        }
        for (container, new) in items_mut(spec, list).iter_mut().zip(items(&written[list])) {
            carry_over(container, new, "resources");
            carry_over(container, new, "resizePolicy");
        }
    }
}

/// Upstream's `ValidatePodResize`: only CPU and memory change, none is taken away, and the quality of service stays (KEP-1287).
#[must_use]
pub fn validate_resize(pod: &Value, old: &Value) -> ErrorList {
    if is_mirror(old) {
        return vec![Error::forbidden(&Path::new(NOWHERE), "static pods cannot be resized")];
    }
    if old["spec"]["os"]["name"] == "windows" {
        return vec![Error::forbidden(&Path::new(NOWHERE), "windows pods cannot be resized")];
    }
    let mut errors = validate_pod(pod);
    let (spec, before, path) = (&pod["spec"], &old["spec"], Path::new("spec"));
    let class = match text(&old["status"]["qosClass"]) {
        "" => compute_qos_class(old),
        class => class,
    };
    if class != compute_qos_class(pod) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(Error::invalid(&path, text(&pod["status"]["qosClass"]), detail));
    }
    let mut running = items(&old["status"]["containerStatuses"]).iter().filter(|c| !c["state"]["running"].is_null());
    if running.next().is_some_and(|container| container["resources"].is_null()) {
        errors.push(Error::forbidden(&path, "Pod running on node without support for resize"));
    }
    let mut masked = spec.clone();
    errors.extend(resize_pod_level(&mut masked, before, &path));
    let moved = validate_order(spec, before, &path);
    if !moved.is_empty() {
        errors.extend(moved);
        return errors;
    }
    for list in ["initContainers", "containers"] {
        for (index, (new, old)) in items(&spec[list]).iter().zip(items(&before[list])).enumerate() {
            let at = path.child(list).index(index).child("resources");
            errors.extend(only_kept(&new["resources"], &old["resources"], "resource", &at));
        }
    }
    errors.extend(mask_containers(&mut masked, before, &path));
    if !semantically_equal(&spec["volumes"], &before["volumes"]) {
        let detail = "volumes are immutable on resize when InPlacePodVerticalScalingMemoryBackedVolumes feature gate is disabled";
        errors.push(Error::forbidden(&path.child("volumes"), detail));
    }
    if errors.is_empty() && !semantically_equal(&masked, before) {
        errors.push(Error::forbidden(&path, "only cpu and memory resources are mutable"));
    }
    errors
}

fn validate_order(spec: &Value, before: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for list in RESIZED_LISTS {
        let at = path.child(list);
        if length(&spec[list]) != length(&before[list]) {
            errors.push(Error::forbidden(&at, format!("{list} may not be added or removed on resize")));
            continue;
        }
        for (index, (new, old)) in items(&spec[list]).iter().zip(items(&before[list])).enumerate() {
            if new["name"] != old["name"] {
                let detail = format!("{list} may not be renamed or reordered on resize");
                errors.push(Error::forbidden(&at.index(index).child("name"), detail));
            }
        }
    }
    errors
}

fn resize_pod_level(masked: &mut Value, before: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let set = |resources: &Value| length(&resources["requests"]) + length(&resources["limits"]) > 0;
    let old = &before["resources"];
    let new = masked.get("resources").cloned().unwrap_or_default();
    if !set(&new) && !set(old) {
        return errors;
    }
    let at = path.child("resources");
    if !old.is_null() && new.is_null() {
        return vec![Error::forbidden(&at, "pod-level resources cannot be removed")];
    }
    if !old.is_null() {
        errors.extend(only_kept(&new, old, "pod-level resource", &at));
    }
    mask_cpu_and_memory(masked, before);
    if !semantically_equal(masked.get("resources").unwrap_or(&Value::Null), old) {
        errors.push(Error::forbidden(path, "only cpu and memory resources are mutable at pod-level"));
    }
    errors
}

fn only_kept(new: &Value, old: &Value, what: &str, path: &Path) -> ErrorList {
    let removed = |list: &str| entries(&old[list]).any(|(name, _)| new[list].get(name).is_none());
    let lists = ["requests", "limits"].into_iter().filter(|list| removed(list));
    lists.map(|list| Error::forbidden(&path.child(list), format!("{what} {list} cannot be removed"))).collect()
}

fn mask_containers(masked: &mut Value, before: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for list in RESIZED_LISTS {
        for (index, (container, old)) in items_mut(masked, list).iter_mut().zip(items(&before[list])).enumerate() {
            let changed = !semantically_equal(container, old);
            mask_cpu_and_memory(container, old);
            let at = path.child(list).index(index);
            if !semantically_equal(container, old) {
                errors.push(match list {
                    "containers" => Error::forbidden(path, "only cpu and memory resources are mutable"),
                    _ => {
                        let detail = "only cpu and memory resources for init or sidecar containers are mutable";
                        Error::forbidden(&at, detail)
                    }
                });
            }
            let restarts = items(&container["resizePolicy"]).iter().any(|p| p["restartPolicy"] == "RestartContainer");
            if list == "initContainers" && changed && restarts && !is_sidecar(container) {
                let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                errors.push(Error::forbidden(&at, detail));
            }
        }
    }
    errors
}

/// Gives CPU and memory back the amounts that they had.
fn mask_cpu_and_memory(owner: &mut Value, before: &Value) {
    for list in ["limits", "requests"] {
        let old = &before["resources"][list];
        let Some(resources) = owner.get_mut("resources").filter(|resources| resources.is_object()) else { return };
        let amounts = map_mut(resources).entry(list).or_insert_with(|| json!({}));
        for name in ["cpu", "memory"] {
            carry_over(amounts, old, name);
        }
        if is_empty(&resources[list]) {
            remove(resources, list);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{messages, pod};
    use super::*;

    #[test]
    fn a_binding_names_a_node() {
        assert!(validate_binding(&json!({"target": {"kind": "Node", "name": "n"}})).is_empty());
        assert_eq!(
            messages(&validate_binding(&json!({"target": {"kind": "Pod"}}))),
            [
                "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"",
                "target.name: Required value",
            ]
        );
    }

    #[test]
    fn a_pod_is_bound_once() {
        let binding = json!({"metadata": {"labels": {"zone": "a"}}, "target": {"name": "n"}});
        let mut bound = pod();
        bound["status"]["nominatedNodeName"] = json!("m");
        bind(&mut bound, &binding, "2026-11-24T09:00:00Z").unwrap();
        assert_eq!(bound["spec"]["nodeName"], "n");
        assert_eq!(bound["metadata"]["labels"]["zone"], "a");
        assert!(bound["status"].get("nominatedNodeName").is_none());
        assert_eq!(
            bound["status"]["conditions"],
            json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-24T09:00:00Z"}])
        );
        assert_eq!(bind(&mut bound, &binding, ""), Err("pod web is already assigned to node \"n\"".into()));
        let mut gated = pod();
        gated["spec"]["schedulingGates"] = json!([{"name": "a.b/c"}]);
        assert_eq!(bind(&mut gated, &binding, ""), Err("pod web has non-empty .spec.schedulingGates".into()));
    }

    #[test]
    fn ephemeral_containers_are_only_added() {
        let debug = |image: &str| json!([{"name": "debug", "image": image, "imagePullPolicy": "Always", "terminationMessagePolicy": "File"}]);
        let old = pod();
        let mut written = pod();
        written["spec"]["ephemeralContainers"] = debug("a");
        written["spec"]["priority"] = json!(1);
        let added = with_ephemeral_containers_of(&written, &old);
        assert!(added["spec"].get("priority").is_none());
        assert_eq!(messages(&validate_ephemeral_containers_update(&added, &old)), [""; 0]);
        let mut changed = added.clone();
        changed["spec"]["ephemeralContainers"] = debug("b");
        let errors = messages(&validate_ephemeral_containers_update(&changed, &added));
        assert!(errors[0].starts_with(
            "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debug\" may not be changed\n"
        ));
        assert_eq!(
            messages(&validate_ephemeral_containers_update(&old, &added)),
            ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"debug\" may not be removed\n"]
        );
    }

    #[test]
    fn a_resize_changes_amounts_of_cpu_and_memory() {
        let with = |resources: Value| {
            let mut pod = pod();
            pod["spec"]["containers"][0]["resources"] = resources;
            pod
        };
        let old = with(json!({"requests": {"cpu": "1"}}));
        let resize = |resources: Value| {
            let written = with(resources);
            messages(&validate_resize(&with_resources_of(&written, &old), &old))
        };
        assert_eq!(resize(json!({"requests": {"cpu": "2"}})), [""; 0]);
        assert_eq!(
            resize(json!({"requests": {"cpu": "2", "ephemeral-storage": "1Gi"}})),
            ["spec: Forbidden: only cpu and memory resources are mutable"]
        );
        assert_eq!(
            resize(json!({"requests": {"memory": "1Gi"}})),
            ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]
        );
        assert_eq!(
            resize(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}})),
            ["spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing"]
        );
    }
}
