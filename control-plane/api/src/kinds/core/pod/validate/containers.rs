//! Rules for containers: those of all, and those of regular, init and ephemeral ones.

use std::collections::BTreeSet;

use serde_json::Value;

use super::names::{check_required, one_of, one_of_optional};
use super::{Surroundings, env, mounts, probes, security};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::core::pod::{is_sidecar, resources};
use crate::kinds::tree::{integer, is_empty, items, length, text};
use crate::names;

/// Every container of a pod.
pub(super) fn validate_all(spec: &Value, around: &Surroundings<'_>, path: &Path) -> ErrorList {
    let mut errors = validate_regular(&spec["containers"], around, &path.child("containers"));
    errors.extend(validate_init(spec, around, &path.child("initContainers")));
    errors.extend(validate_ephemeral(spec, around, &path.child("ephemeralContainers")));
    errors
}

/// Upstream's `validateContainerOnlyForPod`.
pub(super) fn validate_only_for_pod(container: &Value, path: &Path) -> Option<Error> {
    let image = text(&container["image"]);
    (image.trim().len() != image.len())
        .then(|| Error::invalid(&path.child("image"), image, "must not have leading or trailing whitespace"))
}

fn validate_regular(containers: &Value, around: &Surroundings<'_>, path: &Path) -> ErrorList {
    let containers = items(containers);
    if containers.is_empty() {
        return vec![Error::required(path, "")];
    }
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let at = path.index(index);
        errors.extend(validate_common(container, around, &at));
        let name = text(&container["name"]);
        if !seen.insert(name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        }
        errors.extend(probes::validate_lifecycle_and_probes(container, around.grace_period, &at));
        errors.extend(validate_restart_policy(container, &at));
    }
    errors.extend(validate_host_ports(containers, path));
    errors
}

fn validate_init(spec: &Value, around: &Surroundings<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: BTreeSet<&str> =
        items(&spec["containers"]).iter().map(|container| text(&container["name"])).collect();
    for (index, container) in items(&spec["initContainers"]).iter().enumerate() {
        let at = path.index(index);
        errors.extend(validate_common(container, around, &at));
        if container["restartPolicy"].is_null() {
            if length(&container["restartPolicyRules"]) > 0 {
                errors.push(rules_without_policy(&at));
            }
        } else {
            errors.extend(validate_restart_policy(container, &at));
        }
        let name = text(&container["name"]);
        if seen.contains(name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        } else if !name.is_empty() {
            seen.insert(name);
        }
        errors.extend(validate_host_ports(std::slice::from_ref(container), path));
        if is_sidecar(container) {
            errors.extend(probes::validate_lifecycle_and_probes(container, around.grace_period, &at));
            continue;
        }
        for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
            if !container[field].is_null() {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.push(Error::forbidden(&at.child(field), detail));
            }
        }
        for (index, policy) in items(&container["resizePolicy"]).iter().enumerate() {
            if policy["restartPolicy"] == "RestartContainer" {
                let at = at.child("resizePolicy").index(index).child("restartPolicy");
                let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                errors.push(Error::invalid(&at, "RestartContainer", detail));
            }
        }
    }
    errors
}

fn validate_ephemeral(spec: &Value, around: &Surroundings<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let lasting = items(&spec["containers"]).iter().chain(items(&spec["initContainers"]));
    let others: BTreeSet<&str> = lasting.map(|container| text(&container["name"])).collect();
    let mut seen = others.clone();
    for (index, container) in items(&spec["ephemeralContainers"]).iter().enumerate() {
        let at = path.index(index);
        errors.extend(validate_common(container, around, &at));
        errors.extend(validate_only_for_pod(container, &at));
        let name = text(&container["name"]);
        if !seen.insert(name) {
            errors.push(Error::duplicate(&at.child("name"), name));
        }
        let target = text(&container["targetContainerName"]);
        if !target.is_empty() && !others.contains(target) {
            errors.push(Error::not_found(&at.child("targetContainerName"), target));
        }
        for field in FORBIDDEN_FOR_EPHEMERAL {
            if !is_empty(&container[field]) {
                errors.push(Error::forbidden(&at.child(field), FORBIDDEN_DETAIL));
            }
        }
        for (index, mount) in items(&container["volumeMounts"]).iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !text(&mount[field]).is_empty() {
                    let at = at.child("volumeMounts").index(index).child(field);
                    errors.push(Error::forbidden(&at, FORBIDDEN_DETAIL));
                }
            }
        }
    }
    errors
}

const FORBIDDEN_DETAIL: &str = "cannot be set for an Ephemeral Container";

/// Fields of a container that a container for debugging has no use for.
const FORBIDDEN_FOR_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

/// Upstream's `validateContainerCommon`.
fn validate_common(container: &Value, around: &Surroundings<'_>, path: &Path) -> ErrorList {
    let mut errors = check_required(container, "name", path, names::is_dns1123_label);
    if text(&container["image"]).is_empty() {
        errors.push(Error::required(&path.child("image"), ""));
    }
    let policies = ["File", "FallbackToLogsOnError"];
    errors.extend(one_of(&container["terminationMessagePolicy"], &policies, &path.child("terminationMessagePolicy")));
    errors.extend(validate_ports(&container["ports"], &path.child("ports")));
    errors.extend(env::validate(&container["env"], &path.child("env")));
    errors.extend(env::validate_from(&container["envFrom"], &path.child("envFrom")));
    errors.extend(mounts::validate(container, &around.volumes, path));
    errors.extend(validate_pull_policy(&container["imagePullPolicy"], &path.child("imagePullPolicy")));
    let at = path.child("resources");
    errors.extend(resources::validate_container_requirements(&container["resources"], &around.claims, &at));
    errors.extend(validate_resize_policy(container, around.restart_policy, &path.child("resizePolicy")));
    let at = path.child("securityContext");
    errors.extend(security::validate_container_context(&container["securityContext"], around.host_users, &at));
    errors
}

/// Upstream's `validatePullPolicy`.
pub(super) fn validate_pull_policy(policy: &Value, path: &Path) -> Option<Error> {
    one_of(policy, &["Always", "IfNotPresent", "Never"], path)
}

fn validate_ports(ports: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (index, port) in items(ports).iter().enumerate() {
        let path = path.index(index);
        let name = text(&port["name"]);
        if !name.is_empty() {
            let messages = names::is_port_name(name);
            if messages.is_empty() && !seen.insert(name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
            errors.extend(messages.into_iter().map(|message| Error::invalid(&path.child("name"), name, message)));
        }
        for field in ["containerPort", "hostPort"] {
            let number = integer(&port[field]);
            if number != 0 {
                let at = path.child(field);
                errors.extend(names::is_port_number(number).into_iter().map(|m| Error::invalid(&at, number, m)));
            } else if field == "containerPort" {
                errors.push(Error::required(&path.child(field), ""));
            }
        }
        errors.extend(one_of(&port["protocol"], &["SCTP", "TCP", "UDP"], &path.child("protocol")));
    }
    errors
}

/// Upstream's `checkHostPortConflicts`.
fn validate_host_ports(containers: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        let at = path.index(index).child("ports");
        for (index, port) in items(&container["ports"]).iter().enumerate() {
            let number = integer(&port["hostPort"]);
            if number == 0 {
                continue;
            }
            let key = format!("{}/{}/{number}", text(&port["protocol"]), text(&port["hostIP"]));
            if seen.contains(&key) {
                errors.push(Error::duplicate(&at.index(index).child("hostPort"), key));
            } else {
                seen.insert(key);
            }
        }
    }
    errors
}

fn validate_resize_policy(container: &Value, pod_policy: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (index, policy) in items(&container["resizePolicy"]).iter().enumerate() {
        let (resource, restart) = (text(&policy["resourceName"]), text(&policy["restartPolicy"]));
        if !seen.insert(resource) {
            errors.push(Error::duplicate(&path.index(index), resource));
        }
        errors.extend(one_of(&policy["resourceName"], &["cpu", "memory"], path));
        errors.extend(one_of(&policy["restartPolicy"], &["NotRequired", "RestartContainer"], path));
        if pod_policy == "Never" && restart != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.push(Error::invalid(path, restart, detail));
        }
    }
    errors
}

fn rules_without_policy(path: &Path) -> Error {
    Error::required(&path.child("restartPolicy"), "must specify restartPolicy when restart rules are used")
}

/// Upstream's `validateContainerRestartPolicy` (KEP-5307).
fn validate_restart_policy(container: &Value, path: &Path) -> ErrorList {
    let rules = items(&container["restartPolicyRules"]);
    let mut errors = ErrorList::new();
    if container["restartPolicy"].is_null() {
        if rules.is_empty() {
            return errors;
        }
        errors.push(rules_without_policy(path));
    }
    let policies = ["Always", "Never", "OnFailure"];
    errors.extend(one_of_optional(&container["restartPolicy"], &policies, &path.child("restartPolicy")));
    let path = path.child("restartPolicyRules");
    if rules.len() > 20 {
        errors.push(Error::too_many(&path, rules.len(), 20));
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        let action = text(&rule["action"]);
        let actions = ["Restart", "RestartAllContainers"];
        if !actions.contains(&action) {
            errors.push(Error::not_supported(&path.child("action"), action, &actions));
        }
        let (codes, at) = (&rule["exitCodes"], path.child("exitCodes"));
        if codes.is_null() {
            errors.push(Error::required(&at, "must be specified"));
            continue;
        }
        let operator = text(&codes["operator"]);
        if !matches!(operator, "In" | "NotIn") {
            errors.push(Error::not_supported(&at.child("operator"), operator, &["In", "NotIn"]));
        }
        if length(&codes["values"]) > 255 {
            errors.push(Error::too_many(&at.child("values"), length(&codes["values"]), 255));
        }
    }
    errors
}
