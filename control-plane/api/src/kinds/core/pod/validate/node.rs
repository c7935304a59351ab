//! Rules for what a pod shares with its node and its network: host ports, DNS, host names, the operating system.

use serde_json::Value;

use super::names::check;
use super::windows;
use crate::field::{Error, ErrorList, Path};
use crate::kinds::core::pod::containers_with_path;
use crate::kinds::tree::{flag, integer, items, length, text};
use crate::names;

/// Upstream's `validatePodHostNetworkDeps`. In a template the port may still be missing.
pub(super) fn validate_host_ports(spec: &Value, in_pod: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if !flag(&spec["hostNetwork"]) {
        return errors;
    }
    for (index, container) in items(&spec["containers"]).iter().enumerate() {
        let at = path.child("containers").index(index).child("ports");
        for (index, port) in items(&container["ports"]).iter().enumerate() {
            let (host, own) = (integer(&port["hostPort"]), integer(&port["containerPort"]));
            if (in_pod || host != 0) && host != own {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(Error::invalid(&at.index(index).child("hostPort"), host, detail));
            }
        }
    }
    errors
}

/// Upstream's `validatePodDNSConfig`; the limits are those of the C library's resolver.
pub(super) fn validate_dns_config(spec: &Value, path: &Path) -> ErrorList {
    let config = &spec["dnsConfig"];
    let (servers, searches) = (&config["nameservers"], &config["searches"]);
    let (servers_path, searches_path) = (path.child("nameservers"), path.child("searches"));
    if spec["dnsPolicy"] == "None" {
        if config.is_null() {
            return vec![Error::required(path, "must provide `dnsConfig` when `dnsPolicy` is None")];
        }
        if length(servers) == 0 {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return vec![Error::required(&servers_path, detail)];
        }
    }
    let mut errors = ErrorList::new();
    if length(servers) > 3 {
        errors.push(Error::invalid(&servers_path, servers.clone(), "must not have more than 3 nameservers"));
    }
    for (index, server) in items(servers).iter().map(text).enumerate() {
        errors.extend(check(server, &servers_path.index(index), names::is_ip));
    }
    if length(searches) > 32 {
        errors.push(Error::invalid(&searches_path, searches.clone(), "must not have more than 32 search paths"));
    }
    let joined: Vec<&str> = items(searches).iter().map(text).collect();
    if joined.join(" ").len() > 2048 {
        let detail = "must not have more than 2048 characters (including spaces) in the search list";
        errors.push(Error::invalid(&searches_path, searches.clone(), detail));
    }
    for (index, search) in joined.into_iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        errors.extend(check(search, &searches_path.index(index), names::is_dns1123_subdomain_with_underscore));
    }
    for (index, option) in items(&config["options"]).iter().enumerate() {
        if text(&option["name"]).is_empty() {
            errors.push(Error::required(&path.child("options").index(index), "must not be empty"));
        }
    }
    errors
}

/// Upstream's `ValidateHostAliases`.
pub(super) fn validate_host_aliases(aliases: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, alias) in items(aliases).iter().enumerate() {
        let path = path.index(index);
        errors.extend(check(text(&alias["ip"]), &path.child("ip"), names::is_ip));
        for (index, name) in items(&alias["hostnames"]).iter().map(text).enumerate() {
            errors.extend(check(name, &path.child("hostnames").index(index), names::is_dns1123_subdomain));
        }
    }
    errors
}

/// Upstream's `validatePodHostName` (KEP-4762).
pub(super) fn validate_hostname_override(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(name) = spec["hostnameOverride"].as_str() else { return errors };
    let at = path.child("hostnameOverride");
    for field in ["setHostnameAsFQDN", "hostNetwork"] {
        if flag(&spec[field]) {
            errors.push(Error::forbidden(&at, format!("may not be specified when {field} is true")));
        }
    }
    if name.len() > 64 {
        errors.push(Error::too_long(&at, 64));
    }
    errors.extend(check(name, &at, names::is_dns1123_subdomain));
    errors
}

/// Upstream's `validateOS`, and that fields of the other system are not set.
pub(super) fn validate_os(spec: &Value, path: &Path) -> ErrorList {
    if spec["os"].is_null() {
        return ErrorList::new();
    }
    match text(&spec["os"]["name"]) {
        "" => vec![Error::required(&path.child("os").child("name"), "")],
        "windows" => windows::validate_no_linux_fields(spec, path),
        "linux" => {
            let detail = "windows options cannot be set for a linux pod";
            let owners = std::iter::once((spec, path.clone())).chain(containers_with_path(spec, path));
            let set = owners.filter(|(owner, _)| !owner["securityContext"]["windowsOptions"].is_null());
            set.map(|(_, at)| Error::forbidden(&at.child("securityContext").child("windowsOptions"), detail)).collect()
        }
        other => vec![Error::not_supported(&path.child("os"), other, &["linux", "windows"])],
    }
}
