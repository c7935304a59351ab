//! Rules for security contexts of pods and containers.

use std::collections::BTreeSet;

use serde_json::Value;

use super::names::{check_number, descending, one_of_optional};
use super::windows;
use crate::field::{Error, ErrorList, Path};
use crate::kinds::core::pod::containers_with_path;
use crate::kinds::tree::{flag, items, length, text};
use crate::names;

/// Upstream's `validatePodSpecSecurityContext`.
pub(super) fn validate_pod_context(spec: &Value, path: &Path) -> ErrorList {
    let context = &spec["securityContext"];
    let mut errors = check_number(context, "fsGroup", path, names::is_group_id);
    errors.extend(check_number(context, "runAsUser", path, names::is_user_id));
    errors.extend(check_number(context, "runAsGroup", path, names::is_group_id));
    for (index, group) in items(&context["supplementalGroups"]).iter().filter_map(Value::as_i64).enumerate() {
        let at = path.child("supplementalGroups").index(index);
        errors.extend(names::is_group_id(group).into_iter().map(|message| Error::invalid(&at, group, message)));
    }
    errors.extend(validate_sysctls(spec, &path.child("sysctls")));
    let change = ["Always", "OnRootMismatch"];
    errors.extend(one_of_optional(&context["fsGroupChangePolicy"], &change, &path.child("fsGroupChangePolicy")));
    errors.extend(validate_seccomp(&context["seccompProfile"], &path.child("seccompProfile")));
    errors.extend(windows::validate_options(&context["windowsOptions"], &path.child("windowsOptions")));
    errors.extend(validate_app_armor(&context["appArmorProfile"], &path.child("appArmorProfile")));
    for (field, supported) in
        [("supplementalGroupsPolicy", ["Merge", "Strict"]), ("seLinuxChangePolicy", ["MountOption", "Recursive"])]
    {
        errors.extend(one_of_optional(&context[field], &supported, &path.child(field)));
    }
    errors
}

/// Upstream's `ValidateSecurityContext`.
pub(super) fn validate_container_context(context: &Value, host_users: bool, path: &Path) -> ErrorList {
    let mut errors = check_number(context, "runAsUser", path, names::is_user_id);
    errors.extend(check_number(context, "runAsGroup", path, names::is_group_id));
    let (mount, at) = (&context["procMount"], path.child("procMount"));
    errors.extend(one_of_optional(mount, &["Default", "Unmasked"], &at));
    if host_users && mount == "Unmasked" {
        errors.push(Error::invalid(&at, "Unmasked", "`hostUsers` must be false to use `Unmasked`"));
    }
    errors.extend(validate_seccomp(&context["seccompProfile"], &path.child("seccompProfile")));
    if context["allowPrivilegeEscalation"] == false {
        if flag(&context["privileged"]) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(Error::invalid(path, context.clone(), detail));
        }
        for _ in items(&context["capabilities"]["add"]).iter().filter(|capability| *capability == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(Error::invalid(path, context.clone(), detail));
        }
    }
    errors.extend(windows::validate_options(&context["windowsOptions"], &path.child("windowsOptions")));
    errors.extend(validate_app_armor(&context["appArmorProfile"], &path.child("appArmorProfile")));
    errors
}

/// Upstream's `validateHostUsers`: a user namespace of its own goes with no other namespace of the host.
pub(super) fn validate_host_users(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if spec["hostUsers"] != false {
        return errors;
    }
    let detail = "when `hostUsers` is false";
    // The capitals are upstream's.
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if flag(&spec[field]) {
            errors.push(Error::forbidden(&path.child(shown), detail));
        }
    }
    for (container, at) in containers_with_path(spec, path) {
        if length(&container["volumeDevices"]) > 0 {
            errors.push(Error::forbidden(&at.child("volumeDevices"), detail));
        }
    }
    errors
}

fn validate_seccomp(profile: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if profile.is_null() {
        return errors;
    }
    let kind = text(&profile["type"]);
    if kind.is_empty() {
        errors.push(Error::required(&path.child("type"), "type is required when seccompProfile is set"));
    }
    errors.extend(
        one_of_optional(&profile["type"], &["Localhost", "RuntimeDefault", "Unconfined"], &path.child("type"))
            .filter(|_| !kind.is_empty()),
    );
    let at = path.child("localhostProfile");
    match profile["localhostProfile"].as_str() {
        None if kind == "Localhost" => {
            errors.push(Error::required(&at, "must be set when seccomp type is Localhost"));
        }
        Some(file) if kind == "Localhost" => errors.extend(descending(file, &at)),
        Some(_) => {
            errors.push(Error::invalid(&at, profile.clone(), "can only be set when seccomp type is Localhost"));
        }
        None => {}
    }
    errors
}

/// Upstream's `ValidateAppArmorProfileField`.
fn validate_app_armor(profile: &Value, path: &Path) -> ErrorList {
    const LOCALHOST: &str = "must be set when AppArmor type is Localhost";
    let mut errors = ErrorList::new();
    if profile.is_null() {
        return errors;
    }
    let (kind, at) = (text(&profile["type"]), path.child("localhostProfile"));
    match (kind, profile["localhostProfile"].as_str()) {
        ("Localhost", None) => errors.push(Error::required(&at, LOCALHOST)),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.push(Error::invalid(&at, name, "must not be padded with whitespace"));
            } else if name.is_empty() {
                errors.push(Error::required(&at, LOCALHOST));
            }
            if name.len() > 4095 {
                errors.push(Error::too_long(&at, 4095));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errors.push(Error::invalid(&at, name, "can only be set when AppArmor type is Localhost"));
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.push(Error::required(&path.child("type"), "type is required when appArmorProfile is set")),
        (other, _) => {
            let types = ["Localhost", "RuntimeDefault", "Unconfined"];
            errors.push(Error::not_supported(&path.child("type"), other, &types));
        }
    }
    errors
}

fn validate_sysctls(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (index, sysctl) in items(&spec["securityContext"]["sysctls"]).iter().enumerate() {
        let (name, at) = (text(&sysctl["name"]), path.index(index).child("name"));
        if name.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if !is_sysctl_name(name) {
            let detail = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
            errors.push(Error::invalid(&at, name, detail));
        } else if seen.contains(name) {
            errors.push(Error::duplicate(&at, name));
        }
        let shared = match namespace_of(name) {
            Some("net") => "hostNetwork",
            Some("ipc") => "hostIPC",
            _ => "",
        };
        if flag(&spec[shared]) {
            errors.push(Error::invalid(&at, name, format!("may not be specified when '{shared}' is true")));
        }
        seen.insert(name);
    }
    errors
}

fn is_sysctl_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let segment = |part: &str| {
        part.bytes().all(|c| plain(c) || c == b'-' || c == b'_')
            && part.bytes().next().is_some_and(plain)
            && part.bytes().last().is_some_and(plain)
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

/// The kernel namespace of a sysctl (component-helpers/node/util/sysctl); the first separator says whether dots or slashes separate.
fn namespace_of(name: &str) -> Option<&'static str> {
    let dotted = match name.find(['.', '/']) {
        Some(first) if name.as_bytes()[first] == b'/' => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    };
    let ipc = [
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
        "kernel.shm",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.msg",
    ];
    if ipc.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        return Some("ipc");
    }
    dotted.starts_with("net.").then_some("net")
}
