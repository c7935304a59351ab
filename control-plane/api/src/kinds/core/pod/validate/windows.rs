//! Rules for pods of Windows nodes. Skep has no such nodes; its API takes and checks the fields as upstream does.

use serde_json::Value;

use super::names::check_optional;
use crate::field::{Error, ErrorList, Path};
use crate::kinds::core::pod::containers_with_path;
use crate::kinds::tree::{flag, is_empty};
use crate::names;

/// Upstream's `validateWindowsSecurityContextOptions`.
pub(super) fn validate_options(options: &Value, path: &Path) -> ErrorList {
    let mut errors = check_optional(options, "gmsaCredentialSpecName", path, names::is_dns1123_subdomain);
    if let Some(spec) = options["gmsaCredentialSpec"].as_str() {
        let at = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(Error::invalid(&at, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > 64 * 1024 {
            errors.push(Error::invalid(&at, spec, "gmsaCredentialSpec size must be under 64 KiB"));
        }
    }
    if let Some(user) = options["runAsUserName"].as_str() {
        let at = path.child("runAsUserName");
        errors.extend(user_name_errors(user).into_iter().map(|detail| Error::invalid(&at, user, detail)));
    }
    errors
}

/// Upstream's `validateWindowsHostProcessPod`.
pub(super) fn validate_host_process(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let of_pod = spec["securityContext"]["windowsOptions"]["hostProcess"].as_bool();
    let containers = containers_with_path(spec, path);
    let mut count = 0;
    for (container, at) in &containers {
        let own = container["securityContext"]["windowsOptions"]["hostProcess"].as_bool();
        if let (Some(pod), Some(own)) = (of_pod, own)
            && pod != own
        {
            let at = at.child("securityContext").child("windowsOptions").child("hostProcess");
            let detail = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.push(Error::invalid(&at, own, detail));
        }
        count += usize::from(own.or(of_pod).unwrap_or(false));
    }
    if count == 0 {
        return errors;
    }
    if count != containers.len() {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(Error::invalid(path, "", detail));
    }
    if !flag(&spec["hostNetwork"]) {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(Error::invalid(&path.child("hostNetwork"), false, detail));
    }
    errors
}

/// Upstream's `validateWindows`: what only Linux knows is not set.
pub(super) fn validate_no_linux_fields(spec: &Value, path: &Path) -> ErrorList {
    const OF_POD: [&str; 11] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "sysctls",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ];
    const OF_CONTAINER: [&str; 10] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    let forbidden = |owner: &Value, fields: &[&str], at: &Path| -> ErrorList {
        let set = fields.iter().filter(|field| !owner[**field].is_null());
        set.map(|field| Error::forbidden(&at.child(field), "cannot be set for a windows pod")).collect()
    };
    let mut errors = forbidden(&spec["securityContext"], &OF_POD, &path.child("securityContext"));
    errors.extend(forbidden(spec, &["hostUsers"], path));
    let namespaces = ["hostPID", "hostIPC"].into_iter().filter(|field| !is_empty(&spec[*field]));
    errors.extend(namespaces.map(|field| Error::forbidden(&path.child(field), "cannot be set for a windows pod")));
    errors.extend(forbidden(spec, &["shareProcessNamespace"], path));
    for (container, at) in containers_with_path(spec, path) {
        errors.extend(forbidden(&container["securityContext"], &OF_CONTAINER, &at.child("securityContext")));
    }
    errors
}

/// `DOMAIN\user` as Active Directory has it.
fn user_name_errors(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string"];
    }
    if name.bytes().any(|c| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters"];
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec!["runAsUserName cannot contain more than one backslash"],
    };
    let mut errors = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= 256) {
        errors.push("runAsUserName's Domain length must be under 256 characters");
    }
    if domain.is_some_and(|domain| !is_net_bios(domain) && !is_dns(domain)) {
        errors.push("runAsUserName's Domain doesn't match the NetBios nor the DNS format");
    }
    if user.is_empty() {
        errors.push("runAsUserName's User cannot be empty");
    } else if user.len() > 104 {
        errors.push("runAsUserName's User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        errors.push("runAsUserName's User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        errors.push("runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
    errors
}

fn is_net_bios(domain: &str) -> bool {
    let count = domain.chars().count();
    let forbidden = ['\\', '/', ':', '*', '?', '"', '<', '>', '|'];
    (1..=15).contains(&count) && !domain.starts_with('.') && !domain.contains(forbidden)
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| {
        let plain = |c: u8| c.is_ascii_alphanumeric();
        label.len() <= 63
            && label.bytes().all(|c| plain(c) || c == b'-')
            && label.bytes().next().is_some_and(plain)
            && label.bytes().last().is_some_and(plain)
    })
}
