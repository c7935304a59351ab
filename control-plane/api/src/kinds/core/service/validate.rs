//! What is wrong with a Service: `validateService` and what it calls. Addresses and ports that are still to be given are not missed here.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{is_externally_accessible, is_headless, needs_health_check};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::core::endpoints::{all, validate_app_protocol, validate_endpoint_ip, validate_protocol};
use crate::kinds::tree::{integer, is_empty, items, text};
use crate::meta::validate_labels;
use crate::names::{
    is_cidr, is_dns1123_label, is_dns1123_subdomain, is_ip, is_port_name, is_port_number, is_qualified_name,
};

const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const LOAD_BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const MAX_AFFINITY_SECONDS: i64 = 86_400;

/// Everything that does not compare with an older object; `old` lends what it was allowed to hold.
pub(super) fn validate(service: &Value, old: Option<&Value>) -> ErrorList {
    let spec = &service["spec"];
    let path = Path::new("spec");
    let old_spec = old.map_or(&Value::Null, |old| &old["spec"]);
    let mut errors = validate_topology_annotations(service);
    errors.extend(validate_type_union(service));
    errors.extend(validate_ports(service));
    errors.extend(validate_labels(&spec["selector"], &path.child("selector")));
    errors.extend(validate_affinity(spec));
    errors.extend(validate_cluster_ips(service, old_spec));
    for (index, ip) in items(&spec["externalIPs"]).iter().enumerate() {
        let path = path.child("externalIPs").index(index);
        let found = validate_ip(ip, &old_spec["externalIPs"], &path);
        errors.extend(if found.is_empty() { validate_endpoint_ip(text(ip), &path) } else { found });
    }
    errors.extend(one_of(
        &spec["type"],
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        &path.child("type"),
    ));
    errors.extend(validate_port_pairs(spec));
    errors.extend(validate_source_ranges(service, old));
    if !spec["allocateLoadBalancerNodePorts"].is_null() && spec["type"] != "LoadBalancer" {
        errors.push(Error::forbidden(&path.child("allocateLoadBalancerNodePorts"), LOAD_BALANCER_ONLY));
    }
    errors.extend(validate_load_balancer_class(spec));
    errors.extend(validate_external_traffic_policy(service));
    errors.extend(validate_internal_traffic_policy(spec));
    if let Some(distribution) = spec["trafficDistribution"].as_str() {
        const KNOWN: &[&str] = &["PreferClose", "PreferSameZone", "PreferSameNode"];
        if !KNOWN.contains(&distribution) {
            errors.push(Error::not_supported(&path.child("trafficDistribution"), distribution, KNOWN));
        }
    }
    errors
}

/// What may not change (`ValidateServiceUpdate`).
pub(super) fn validate_change(service: &Value, old: &Value) -> ErrorList {
    let path = Path::new("spec");
    let mut errors = validate_address_change(service, old);
    errors.extend(validate_family_change(service, old));
    let class = |service: &Value| service["spec"]["loadBalancerClass"].clone();
    if old["spec"]["type"] == "LoadBalancer"
        && service["spec"]["type"] == "LoadBalancer"
        && class(old) != class(service)
    {
        let message = "may not change once set";
        errors.push(Error::invalid(&path.child("loadBalancerClass"), class(service), message));
    }
    let port = |service: &Value| integer(&service["spec"]["healthCheckNodePort"]);
    if needs_health_check(old) && needs_health_check(service) && port(old) != port(service) {
        errors.push(Error::forbidden(&path.child("healthCheckNodePort"), "field is immutable"));
    }
    errors
}

/// What is wrong with the status (`ValidateLoadBalancerStatus`).
pub(super) fn validate_status(service: &Value, old: &Value) -> ErrorList {
    let list = Path::new("status").child("loadBalancer").child("ingress");
    let ingress = items(&service["status"]["loadBalancer"]["ingress"]);
    if service["spec"]["type"] != "LoadBalancer" && !ingress.is_empty() {
        return vec![Error::forbidden(&list, "may only be used when `spec.type` is 'LoadBalancer'")];
    }
    let known: Vec<&Value> =
        items(&old["status"]["loadBalancer"]["ingress"]).iter().map(|ingress| &ingress["ip"]).collect();
    let mut errors = ErrorList::new();
    for (index, ingress) in ingress.iter().enumerate() {
        let path = list.index(index);
        let (ip, hostname) = (text(&ingress["ip"]), text(&ingress["hostname"]));
        if !ip.is_empty() && !known.contains(&&ingress["ip"]) {
            errors.extend(all(&path.child("ip"), ip, is_ip(ip)));
        }
        match ingress["ipMode"].as_str() {
            None if !ip.is_empty() => {
                errors.push(Error::required(&path.child("ipMode"), "must be specified when `ip` is set"));
            }
            Some(_) if ip.is_empty() => {
                errors.push(Error::forbidden(&path.child("ipMode"), "may not be specified when `ip` is not set"));
            }
            Some(mode) if !matches!(mode, "VIP" | "Proxy") => {
                errors.push(Error::not_supported(&path.child("ipMode"), mode, &["Proxy", "VIP"]));
            }
            Some(_) | None => {}
        }
        if !hostname.is_empty() {
            errors.extend(all(&path.child("hostname"), hostname, is_dns1123_subdomain(hostname)));
            if hostname.parse::<IpAddr>().is_ok() {
                let message = "must be a DNS name, not an IP address";
                errors.push(Error::invalid(&path.child("hostname"), hostname, message));
            }
        }
    }
    errors
}

fn validate_topology_annotations(service: &Value) -> ErrorList {
    let annotations = &service["metadata"]["annotations"];
    let (hints, mode) = (annotations[TOPOLOGY_HINTS].as_str(), annotations[TOPOLOGY_MODE].as_str());
    match (hints, mode) {
        (Some(hints), Some(mode)) if hints != mode => {
            let path = Path::new("metadata").child("annotations").key(TOPOLOGY_MODE);
            let message = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
            vec![Error::invalid(&path, mode, message)]
        }
        _ => ErrorList::new(),
    }
}

fn validate_type_union(service: &Value) -> ErrorList {
    let spec = &service["spec"];
    let path = Path::new("spec");
    let mut errors = ErrorList::new();
    let type_ = text(&spec["type"]);
    if is_empty(&spec["ports"]) && !is_headless(service) && type_ != "ExternalName" {
        errors.push(Error::required(&path.child("ports"), ""));
    }
    match type_ {
        "LoadBalancer" | "NodePort" if is_headless(service) => {
            let message = format!("may not be set to 'None' for {type_} services");
            errors.push(Error::invalid(&path.child("clusterIPs").index(0), "None", message));
        }
        "ExternalName" => {
            let message = "may not be set for ExternalName services";
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !is_empty(&spec[field]) {
                    errors.push(Error::forbidden(&path.child(field), message));
                }
            }
            let name = text(&spec["externalName"]);
            let name = name.strip_suffix('.').unwrap_or(name);
            let path = path.child("externalName");
            if name.is_empty() {
                errors.push(Error::required(&path, ""));
            } else {
                errors.extend(all(&path, name, is_dns1123_subdomain(name)));
            }
        }
        _ => {}
    }
    errors
}

fn validate_ports(service: &Value) -> ErrorList {
    let list = Path::new("spec").child("ports");
    let ports = items(&service["spec"]["ports"]);
    let mut errors = ErrorList::new();
    let mut names = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = list.index(index);
        let name = text(&port["name"]);
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(Error::required(&path.child("name"), ""));
            }
        } else {
            errors.extend(all(&path.child("name"), name, is_dns1123_label(name)));
            if names.contains(&name) {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
            names.push(name);
        }
        let number = |field: &str, value: i64| {
            let path = path.child(field);
            is_port_number(value).into_iter().map(move |message| Error::invalid(&path, value, message))
        };
        errors.extend(number("port", integer(&port["port"])));
        errors.extend(validate_protocol(&port["protocol"], &path));
        match port["targetPort"].as_str() {
            Some(name) => errors.extend(all(&path.child("targetPort"), name, is_port_name(name))),
            None => errors.extend(number("targetPort", integer(&port["targetPort"]))),
        }
        errors.extend(validate_app_protocol(port, &path));
    }
    errors
}

/// Node ports where there are none, and pairs of protocol and port that are there twice.
fn validate_port_pairs(spec: &Value) -> ErrorList {
    let list = Path::new("spec").child("ports");
    let ports = items(&spec["ports"]);
    let mut errors = ErrorList::new();
    if spec["type"] == "ClusterIP" {
        let message = "may not be used when `type` is 'ClusterIP'";
        let with_node_port = ports.iter().enumerate().filter(|(_, port)| integer(&port["nodePort"]) != 0);
        errors.extend(with_node_port.map(|(index, _)| Error::forbidden(&list.index(index).child("nodePort"), message)));
    }
    let earlier = |index: usize, field: &str| {
        let pair = |port: &Value| (text(&port["protocol"]).to_owned(), integer(&port[field]));
        ports[..index].iter().any(|port| pair(port) == pair(&ports[index]))
    };
    for (index, port) in ports.iter().enumerate() {
        let node_port = integer(&port["nodePort"]);
        if node_port != 0 && earlier(index, "nodePort") {
            errors.push(Error::duplicate(&list.index(index).child("nodePort"), node_port));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        if earlier(index, "port") {
            let mut error = Error::duplicate(&list.index(index), Value::Null);
            error.value = Some(format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{},\"TargetPort\":0,\"NodePort\":0}}",
                json!(text(&port["protocol"])),
                integer(&port["port"])
            ));
            errors.push(error);
        }
    }
    errors
}

fn validate_affinity(spec: &Value) -> ErrorList {
    let path = Path::new("spec");
    let mut errors = one_of(&spec["sessionAffinity"], &["ClientIP", "None"], &path.child("sessionAffinity"));
    let configuration = &spec["sessionAffinityConfig"];
    let path = path.child("sessionAffinityConfig");
    match text(&spec["sessionAffinity"]) {
        "ClientIP" => {
            let required = "when session affinity type is ClientIP";
            let seconds_path = path.child("clientIP").child("timeoutSeconds");
            if configuration.is_null() {
                errors.push(Error::required(&path, required));
            } else if configuration["clientIP"].is_null() {
                errors.push(Error::required(&path.child("clientIP"), required));
            } else if let Some(seconds) = configuration["clientIP"]["timeoutSeconds"].as_i64() {
                if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) {
                    let message = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                    errors.push(Error::invalid(&seconds_path, seconds, message));
                }
            } else {
                errors.push(Error::required(&seconds_path, required));
            }
        }
        "None" if !configuration.is_null() => {
            errors.push(Error::forbidden(&path, "must not be set when session affinity is None"));
        }
        _ => {}
    }
    errors
}

/// How clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy go together (`ValidateServiceClusterIPsRelatedFields`).
fn validate_cluster_ips(service: &Value, old_spec: &Value) -> ErrorList {
    let spec = &service["spec"];
    if spec["type"] == "ExternalName" {
        return ErrorList::new();
    }
    let path = Path::new("spec");
    let list = path.child("clusterIPs");
    let ips = items(&spec["clusterIPs"]);
    let shown = || Value::from(ips);
    let mut errors = ErrorList::new();
    match (text(&spec["clusterIP"]), ips) {
        ("", []) => {}
        ("", _) => errors.push(Error::invalid(&list, shown(), "must be empty when `clusterIP` is not specified")),
        (_, []) => errors.push(Error::required(&list, "")),
        (ip, [first, ..]) if first != ip => {
            errors.push(Error::invalid(&list, shown(), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    let families = items(&spec["ipFamilies"]);
    for (index, family) in families.iter().enumerate() {
        let path = path.child("ipFamilies").index(index);
        if !matches!(text(family), "IPv4" | "IPv6") {
            errors.push(Error::not_supported(&path, family.clone(), &["IPv4", "IPv6"]));
        }
        if families[..index].contains(family) {
            errors.push(Error::duplicate(&path, family.clone()));
        }
    }
    if let Some(policy) = spec["ipFamilyPolicy"].as_str() {
        const POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
        if !POLICIES.contains(&policy) {
            errors.push(Error::not_supported(&path.child("ipFamilyPolicy"), policy, POLICIES));
        }
    }
    let mut broken = false;
    for (index, ip) in ips.iter().enumerate() {
        if index == 0 && ip == "None" {
            if ips.len() > 1 {
                broken = true;
                errors.push(Error::invalid(&list, shown(), "'None' must be the first and only value"));
            }
            continue;
        }
        let found = validate_ip(ip, &old_spec["clusterIPs"], &list.index(index));
        broken |= !found.is_empty();
        errors.extend(found);
    }
    if ips.len() > 2 {
        errors.push(Error::invalid(&list, shown(), "may only hold up to 2 values"));
    }
    if broken {
        return errors;
    }
    let is_v6 = |ip: &Value| text(ip).contains(':');
    if ips.len() > 1 && !(ips.iter().any(is_v6) && ips.iter().any(|ip| !is_v6(ip))) {
        errors.push(Error::invalid(&list, shown(), "may specify no more than one IP for each IP family"));
    }
    if !is_headless(service) {
        for (index, (ip, family)) in ips.iter().zip(families).enumerate() {
            if (family == "IPv4" && is_v6(ip)) || (family == "IPv6" && !is_v6(ip)) {
                let message = format!("expected an {} value as indicated by `ipFamilies[{index}]`", text(family));
                errors.push(Error::invalid(&list.index(index), ip.clone(), message));
            }
        }
    }
    errors
}

/// An address that was there before may stay, whatever it looks like.
fn validate_ip(ip: &Value, known: &Value, path: &Path) -> ErrorList {
    if items(known).contains(ip) { ErrorList::new() } else { all(path, text(ip), is_ip(text(ip))) }
}

fn validate_source_ranges(service: &Value, old: Option<&Value>) -> ErrorList {
    let spec = &service["spec"];
    let is_load_balancer = spec["type"] == "LoadBalancer";
    let ranges = items(&spec["loadBalancerSourceRanges"]);
    let mut errors = ErrorList::new();
    if !ranges.is_empty() {
        let path = Path::new("spec").child("LoadBalancerSourceRanges");
        if !is_load_balancer {
            errors.push(Error::forbidden(&path, LOAD_BALANCER_ONLY));
        }
        let known: Vec<&str> = old
            .map_or(&[][..], |old| items(&old["spec"]["loadBalancerSourceRanges"]))
            .iter()
            .map(|range| text(range).trim())
            .collect();
        for (index, range) in ranges.iter().enumerate() {
            let range = text(range).trim();
            if !known.contains(&range) {
                errors.extend(all(&path.index(index), range, is_cidr(range)));
            }
        }
    } else if let Some(annotation) = service["metadata"]["annotations"][SOURCE_RANGES].as_str() {
        let path = Path::new("metadata").child("annotations").key(SOURCE_RANGES);
        if !is_load_balancer {
            errors.push(Error::forbidden(&path, LOAD_BALANCER_ONLY));
        }
        let before = old.and_then(|old| old["metadata"]["annotations"][SOURCE_RANGES].as_str());
        if before != Some(annotation) && !annotation.trim().is_empty() {
            let ranges = annotation.trim().split(',').map(str::trim);
            errors.extend(ranges.flat_map(|range| all(&path, range, is_cidr(range))));
        }
    }
    errors
}

fn validate_load_balancer_class(spec: &Value) -> ErrorList {
    let path = Path::new("spec").child("loadBalancerClass");
    match spec["loadBalancerClass"].as_str() {
        None => ErrorList::new(),
        Some(class) if spec["type"] == "LoadBalancer" => all(&path, class, is_qualified_name(class)),
        Some(_) => vec![Error::forbidden(&path, LOAD_BALANCER_ONLY)],
    }
}

fn validate_external_traffic_policy(service: &Value) -> ErrorList {
    let spec = &service["spec"];
    let path = Path::new("spec");
    let mut errors = ErrorList::new();
    let policy = text(&spec["externalTrafficPolicy"]);
    if is_externally_accessible(service) {
        errors.extend(one_of(
            &spec["externalTrafficPolicy"],
            &["Cluster", "Local"],
            &path.child("externalTrafficPolicy"),
        ));
    } else if !policy.is_empty() {
        let message = "may only be set for externally-accessible services";
        errors.push(Error::invalid(&path.child("externalTrafficPolicy"), policy, message));
    }
    let port = integer(&spec["healthCheckNodePort"]);
    let path = path.child("healthCheckNodePort");
    if port != 0 && !needs_health_check(service) {
        let message = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(Error::invalid(&path, port, message));
    } else if port != 0 {
        errors.extend(is_port_number(port).into_iter().map(|message| Error::invalid(&path, port, message)));
    }
    errors
}

fn validate_internal_traffic_policy(spec: &Value) -> ErrorList {
    let path = Path::new("spec").child("internalTrafficPolicy");
    match spec["internalTrafficPolicy"].as_str() {
        None if matches!(text(&spec["type"]), "NodePort" | "LoadBalancer" | "ClusterIP") => {
            vec![Error::required(&path, "")]
        }
        None | Some("Cluster" | "Local") => ErrorList::new(),
        Some(other) => vec![Error::not_supported(&path, other, &["Cluster", "Local"])],
    }
}

/// A required value of an enumeration.
fn one_of(value: &Value, known: &[&str], path: &Path) -> ErrorList {
    match text(value) {
        "" => vec![Error::required(path, "")],
        value if known.contains(&value) => ErrorList::new(),
        other => vec![Error::not_supported(path, other, known)],
    }
}

/// The first address stays; the second may come and go (`validateUpgradeDowngradeClusterIPs`).
fn validate_address_change(service: &Value, old: &Value) -> ErrorList {
    let is_external = |service: &Value| service["spec"]["type"] == "ExternalName";
    if is_external(service) || is_external(old) || (is_headless(service) && is_headless(old)) {
        return ErrorList::new();
    }
    let (before, after) = (items(&old["spec"]["clusterIPs"]), items(&service["spec"]["clusterIPs"]));
    let path = Path::new("spec").child("clusterIPs");
    let changed = |index: usize| Error::invalid(&path.index(index), after, "may not change once set");
    let mut errors = ErrorList::new();
    if before.len() == after.len() {
        let differing = before.iter().zip(after).enumerate().filter(|(_, (before, after))| before != after);
        errors.extend(differing.map(|(index, _)| changed(index)));
        return errors;
    }
    if before.len() > after.len() && after.is_empty() {
        errors.push(Error::invalid(&path.index(0), after, "primary clusterIP can not be unset"));
    }
    if !before.is_empty() && !after.is_empty() && before[0] != after[0] {
        errors.push(changed(0));
    }
    if before.len() > after.len() && after.len() == 1 {
        errors.extend(validate_release(service, "clusterIP"));
    }
    errors
}

/// As of the addresses, but for the families (`validateUpgradeDowngradeIPFamilies`).
fn validate_family_change(service: &Value, old: &Value) -> ErrorList {
    let is_external = |service: &Value| service["spec"]["type"] == "ExternalName";
    if is_external(service) || is_external(old) || is_headless(service) || is_headless(old) {
        return ErrorList::new();
    }
    let (before, after) = (items(&old["spec"]["ipFamilies"]), items(&service["spec"]["ipFamilies"]));
    let path = Path::new("spec").child("ipFamilies").index(0);
    let mut errors = ErrorList::new();
    if before.len() == after.len() {
        let differing = before.iter().zip(after).filter(|(before, after)| before != after);
        errors.extend(differing.map(|_| Error::invalid(&path, after, "may not change once set")));
        return errors;
    }
    let ips = &service["spec"]["clusterIPs"];
    if before.len() > after.len() && is_empty(ips) {
        errors.push(Error::invalid(&path, after, "primary ipFamily can not be unset"));
    }
    if !before.is_empty() && !after.is_empty() && before[0] != after[0] {
        errors.push(Error::invalid(&path, ips.clone(), "may not change once set"));
    }
    if before.len() > after.len() && after.len() == 1 {
        errors.extend(validate_release(service, "ipFamily"));
    }
    errors
}

fn validate_release(service: &Value, what: &str) -> Option<Error> {
    let policy = &service["spec"]["ipFamilyPolicy"];
    let message = format!("must be set to 'SingleStack' when releasing the secondary {what}");
    let path = Path::new("spec").child("ipFamilyPolicy");
    (policy != "SingleStack").then(|| Error::invalid(&path, policy.clone(), message))
}
