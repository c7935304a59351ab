//! What may be written to the status of a pod: upstream's `ValidatePodStatusUpdate`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;

use super::annotations;
use super::names::check;
use crate::field::{Error, ErrorList, ErrorType, Path};
use crate::kinds::tree::{immutable, integer, items, length, text};
use crate::names;

/// What is wrong with a status that replaces that of `old`.
pub(in crate::kinds::core::pod) fn validate_status_update(pod: &Value, old: &Value) -> ErrorList {
    let (status, before, path) = (&pod["status"], &old["status"], Path::new("status"));
    let mut errors = annotations::validate_update(pod, old, &Path::new("metadata").child("annotations"));
    errors.extend(validate_conditions(&status["conditions"], &path.child("conditions")));
    if pod["spec"]["nodeName"] != old["spec"]["nodeName"] {
        errors.push(Error::forbidden(&path.child("nodeName"), "may not be changed directly"));
    }
    errors.extend(validate_nomination(status, old, &path.child("nominatedNodeName")));
    errors.extend(observed_generation(status, &path));
    errors.extend(immutable(&status["qosClass"], &before["qosClass"], &path.child("qosClass")));
    for (list, containers) in [
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", ""),
    ] {
        let specs = items(&old["spec"][containers]);
        errors.extend(validate_transitions(&status[list], &before[list], &old["spec"], specs, &path.child(list)));
    }
    errors.extend(validate_claim_statuses(pod, &path.child("resourceClaimStatuses")));
    errors.extend(validate_pod_ips(status, before, &path.child("podIPs")));
    errors.extend(validate_host_ips(status, before, &path.child("hostIPs")));
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        errors.extend(validate_users(&status[list], &pod["spec"], &path.child(list)));
    }
    let list = "ephemeralContainerStatuses";
    for (index, container) in items(&status[list]).iter().enumerate() {
        if length(&container["allocatedResourcesStatus"]) > 0 {
            let at = path.child(list).index(index).child("allocatedResourcesStatus");
            errors.push(Error::forbidden(&at, "must not be specified in container status"));
        }
    }
    errors
}

fn observed_generation(owner: &Value, path: &Path) -> Option<Error> {
    let generation = integer(&owner["observedGeneration"]);
    (generation < 0)
        .then(|| Error::invalid(&path.child("observedGeneration"), generation, "must be a non-negative integer"))
}

fn validate_conditions(conditions: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, condition) in items(conditions).iter().enumerate() {
        let (kind, at) = (text(&condition["type"]), path.index(index));
        errors.extend(observed_generation(condition, &at));
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            errors.extend(check(kind, &at.child("Type"), names::is_qualified_name));
        }
    }
    errors
}

fn validate_nomination(status: &Value, old: &Value, path: &Path) -> ErrorList {
    let (node, before) = (text(&status["nominatedNodeName"]), text(&old["status"]["nominatedNodeName"]));
    if node.is_empty() || node == before {
        return ErrorList::new();
    }
    let mut errors = check(node, path, names::is_dns1123_subdomain);
    if !text(&old["spec"]["nodeName"]).is_empty() {
        errors.push(Error::forbidden(path, "may not be set on pods that are already bound to a node"));
    }
    errors
}

/// A container that has ended for good does not come back. `specs` is empty for ephemeral containers, which never restart.
fn validate_transitions(new: &Value, old: &Value, spec: &Value, specs: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if !specs.is_empty() && any_restarts_all(spec) {
        return errors;
    }
    for (index, before) in items(old).iter().enumerate() {
        let ended = &before["state"]["terminated"];
        let comes_back =
            items(new).iter().any(|new| new["name"] == before["name"] && new["state"]["terminated"].is_null());
        if ended.is_null() || !comes_back {
            continue;
        }
        let container = specs.iter().find(|container| container["name"] == before["name"]);
        if !container.is_some_and(|container| should_restart(container, spec, integer(&ended["exitCode"]))) {
            let at = path.index(index).child("state");
            errors.push(Error::forbidden(&at, "may not be transitioned to non-terminated state"));
        }
    }
    errors
}

/// Upstream's `AllContainersCouldRestart`.
fn any_restarts_all(spec: &Value) -> bool {
    let mut containers = items(&spec["initContainers"]).iter().chain(items(&spec["containers"]));
    containers.any(|c| items(&c["restartPolicyRules"]).iter().any(|rule| rule["action"] == "RestartAllContainers"))
}

/// Upstream's `ContainerShouldRestart`: the container's rules, its policy, then the pod's.
fn should_restart(container: &Value, spec: &Value, exit_code: i64) -> bool {
    let matches = |rule: &Value| {
        let listed = items(&rule["exitCodes"]["values"]).iter().any(|value| integer(value) == exit_code);
        match text(&rule["exitCodes"]["operator"]) {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    };
    let own = text(&container["restartPolicy"]);
    if !own.is_empty() {
        let rule = items(&container["restartPolicyRules"]).iter().find(|rule| matches(rule));
        if rule.is_some_and(|rule| matches!(text(&rule["action"]), "Restart" | "RestartAllContainers")) {
            return true;
        }
    }
    let policy = if matches!(own, "Always" | "OnFailure" | "Never") { own } else { text(&spec["restartPolicy"]) };
    match policy {
        "OnFailure" => exit_code != 0,
        "Never" => false,
        _ => true,
    }
}

fn validate_claim_statuses(pod: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (index, status) in items(&pod["status"]["resourceClaimStatuses"]).iter().enumerate() {
        let (name, at) = (text(&status["name"]), path.index(index).child("name"));
        if !items(&pod["spec"]["resourceClaims"]).iter().any(|claim| text(&claim["name"]) == name) {
            errors.push(Error::invalid(&at, name, "must match the name of an entry in `spec.resourceClaims`"));
        }
        if !seen.insert(name) {
            errors.push(Error::duplicate(&at, name));
        }
        if let Some(claim) = status["resourceClaimName"].as_str() {
            let at = path.index(index).child("resourceClaimName");
            errors.extend(check(claim, &at, names::is_dns1123_subdomain));
        }
    }
    errors
}

fn validate_pod_ips(status: &Value, before: &Value, path: &Path) -> ErrorList {
    let mut errors = validate_ips(&status["podIPs"], &before["podIPs"], path);
    errors.extend(validate_families(&status["podIPs"], path));
    let (single, first) = (text(&status["podIP"]), text(&status["podIPs"][0]["ip"]));
    if single.is_empty() != (length(&status["podIPs"]) == 0) {
        let detail = "podIP and podIPs must either both be set or both be unset";
        errors.push(Error::invalid(path, status["podIPs"].clone(), detail));
    } else if single != first {
        errors.push(Error::invalid(&path.index(0).child("ip"), first, "must be equal to `podIP`"));
    }
    errors
}

fn validate_host_ips(status: &Value, before: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if length(&status["hostIPs"]) == 0 {
        return errors;
    }
    let first = text(&status["hostIPs"][0]["ip"]);
    if text(&status["hostIP"]) != first {
        errors.push(Error::invalid(&path.index(0).child("ip"), first, "must be equal to `hostIP`"));
    }
    errors.extend(validate_ips(&status["hostIPs"], &before["hostIPs"], path));
    errors.extend(validate_families(&status["hostIPs"], path));
    errors
}

/// New addresses must be valid; those that were there may stay.
fn validate_ips(list: &Value, before: &Value, path: &Path) -> ErrorList {
    let known: Vec<&str> = items(before).iter().map(|entry| text(&entry["ip"])).collect();
    let entries = items(list).iter().map(|entry| text(&entry["ip"])).enumerate();
    entries
        .filter(|(_, ip)| !known.contains(ip))
        .flat_map(|(index, ip)| check(ip, &path.index(index), names::is_ip))
        .collect()
}

/// At most one address of each family.
fn validate_families(list: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if length(list) < 2 {
        return errors;
    }
    let shown = items(list).iter().map(|entry| text(&entry["ip"]));
    let parsed: Vec<Option<IpAddr>> = shown.clone().map(names::parse_ip_sloppy).collect();
    if let Some((index, ip)) = shown.enumerate().find(|(index, _)| parsed[*index].is_none()) {
        let detail = format!("failed to check for dual stack with error:invalid IP[{index}]: {ip}");
        errors.push(Error { kind: ErrorType::Internal, field: path.clone(), value: None, detail });
    }
    if !matches!(parsed[..], [Some(a), Some(b)] if a.is_ipv4() != b.is_ipv4()) {
        errors.push(Error::invalid(path, list.clone(), "may specify no more than one IP for each IP family"));
    }
    errors
}

fn validate_users(statuses: &Value, spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let windows = spec["os"]["name"] == "windows";
    for (index, status) in items(statuses).iter().enumerate() {
        let (user, at) = (&status["user"]["linux"], path.index(index).child("user").child("linux"));
        if user.is_null() {
            continue;
        }
        if windows {
            errors.push(Error::forbidden(&at, "cannot be set for a windows pod"));
            continue;
        }
        let (uid, gid) = (integer(&user["uid"]), integer(&user["gid"]));
        let most = i64::from(u32::MAX);
        errors.extend(names::in_range(uid, 0, most).into_iter().map(|m| Error::invalid(&at.child("uid"), uid, m)));
        errors.extend(names::is_group_id(gid).into_iter().map(|m| Error::invalid(&at.child("gid"), gid, m)));
        for (index, gid) in items(&user["supplementalGroups"]).iter().map(integer).enumerate() {
            let at = at.child("supplementalGroups").index(index);
            errors.extend(names::is_group_id(gid).into_iter().map(|message| Error::invalid(&at, gid, message)));
        }
    }
    errors
}
