//! The group `discovery.k8s.io`: EndpointSlice, where backends of a Service are.

use std::net::IpAddr;

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::cells::{age_cell, first_three, name_cell};
use crate::kinds::core::endpoints::{all, validate_app_protocol, validate_endpoint_ip, validate_protocol};
use crate::kinds::declaration::{Column, Kind, Strategy, WriteContext};
use crate::kinds::tree::{fill, immutable, items, items_mut, length, remove, semantically_equal, text};
use crate::meta::validate_labels;
use crate::names::{is_canonical_ip, is_dns1123_label, is_dns1123_subdomain, is_ip, is_label_value};

/// `discovery.k8s.io/v1 EndpointSlice`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("AddressType", "string", "What its addresses are: IPv4, IPv6 or FQDN."),
            Column::new("Ports", "string", "The ports of every endpoint."),
            Column::new("Endpoints", "string", "The addresses."),
            Column::age(),
        ],
        ..Kind::new(
            GroupVersion::new("discovery.k8s.io", "v1"),
            "EndpointSlice",
            "endpointslices",
            "io.k8s.api.discovery.v1.EndpointSlice",
            EndpointSlice,
        )
    }
}

const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_TOPOLOGY_LABELS: usize = 16;
const MAX_HINTS: usize = 8;

struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn default(&self, object: &mut Value) {
        for port in items_mut(object, "ports") {
            fill(port, "name", "");
            fill(port, "protocol", "TCP");
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        drop_topology(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &WriteContext<'_>) {
        if !semantically_equal(&object["endpoints"], &old["endpoints"]) {
            drop_topology(object);
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = validate_slice(object);
        errors.extend(validate_endpoints(object));
        errors
    }

    /// Endpoints that were stored under older rules may stay.
    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = validate_slice(object);
        if !semantically_equal(&object["endpoints"], &old["endpoints"]) {
            errors.extend(validate_endpoints(object));
        }
        errors.extend(immutable(&object["addressType"], &old["addressType"], &Path::new("addressType")));
        errors
    }

    fn warnings(&self, object: &Value, _: Option<&Value>) -> Vec<String> {
        if object["addressType"] == "FQDN" {
            return vec!["spec.addressType: FQDN endpoints are deprecated".to_owned()];
        }
        Vec::new()
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let ports: Vec<String> = items(&object["ports"]).iter().map(shown_port).collect();
        let endpoints = items(&object["endpoints"]).iter();
        let addresses: Vec<String> =
            endpoints.flat_map(|endpoint| items(&endpoint["addresses"])).map(|ip| text(ip).to_owned()).collect();
        vec![
            name_cell(object),
            text(&object["addressType"]).into(),
            first_three(&ports).into(),
            first_three(&addresses).into(),
            age_cell(object, now),
        ]
    }
}

/// The field is of the version before v1, and can only be read (`dropTopologyOnV1`).
fn drop_topology(object: &mut Value) {
    for endpoint in items_mut(object, "endpoints") {
        remove(endpoint, "deprecatedTopology");
    }
}

fn shown_port(port: &Value) -> String {
    match (port["port"].as_i64(), port["name"].as_str()) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) => name.to_owned(),
        (None, None) => "*".to_owned(),
    }
}

fn validate_slice(object: &Value) -> ErrorList {
    const TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
    let path = Path::new("addressType");
    let mut errors = ErrorList::new();
    match text(&object["addressType"]) {
        "" => errors.push(Error::required(&path, "")),
        type_ if !TYPES.contains(&type_) => errors.push(Error::not_supported(&path, type_, TYPES)),
        _ => {}
    }
    errors.extend(validate_ports(&object["ports"]));
    errors
}

fn validate_ports(ports: &Value) -> ErrorList {
    let list = Path::new("ports");
    let ports = items(ports);
    if ports.len() > MAX_PORTS {
        return vec![Error::too_many(&list, ports.len(), MAX_PORTS)];
    }
    let mut errors = ErrorList::new();
    let mut names = std::collections::HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = list.index(index);
        let name = text(&port["name"]);
        if !name.is_empty() {
            errors.extend(all(&path.child("name"), name, is_dns1123_label(name)));
        }
        if !names.insert(name) {
            errors.push(Error::duplicate(&path.child("name"), name));
        }
        errors.extend(validate_protocol(&port["protocol"], &path));
        errors.extend(validate_app_protocol(port, &path));
    }
    errors
}

fn validate_endpoints(object: &Value) -> ErrorList {
    let list = Path::new("endpoints");
    let endpoints = items(&object["endpoints"]);
    if endpoints.len() > MAX_ENDPOINTS {
        return vec![Error::too_many(&list, endpoints.len(), MAX_ENDPOINTS)];
    }
    let type_ = text(&object["addressType"]);
    endpoints
        .iter()
        .zip(0..)
        .flat_map(|(endpoint, index)| validate_endpoint(endpoint, type_, &list.index(index)))
        .collect()
}

fn validate_endpoint(endpoint: &Value, type_: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let list = path.child("addresses");
    let addresses = items(&endpoint["addresses"]);
    if addresses.is_empty() {
        errors.push(Error::required(&list, "must contain at least 1 address"));
    } else if addresses.len() > MAX_ADDRESSES {
        errors.push(Error::too_many(&list, addresses.len(), MAX_ADDRESSES));
    }
    for (index, address) in addresses.iter().enumerate() {
        errors.extend(validate_address(text(address), type_, &list, index));
    }
    if let Some(node) = endpoint["nodeName"].as_str() {
        errors.extend(all(&path.child("nodeName"), node, is_dns1123_subdomain(node)));
    }
    let topology = &endpoint["deprecatedTopology"];
    if length(topology) > MAX_TOPOLOGY_LABELS {
        errors.push(Error::too_many(&path.child("deprecatedTopology"), length(topology), MAX_TOPOLOGY_LABELS));
    }
    errors.extend(validate_labels(topology, &path.child("deprecatedTopology")));
    if let Some(hostname) = endpoint["hostname"].as_str() {
        errors.extend(all(&path.child("hostname"), hostname, is_dns1123_label(hostname)));
    }
    errors.extend(validate_hints(&endpoint["hints"], &path.child("hints")));
    errors
}

fn validate_address(address: &str, type_: &str, list: &Path, index: usize) -> ErrorList {
    let path = list.index(index);
    let (messages, wanted, is_wanted): (_, _, fn(&IpAddr) -> bool) = match type_ {
        "IPv4" => (is_ip(address), "must be an IPv4 address", IpAddr::is_ipv4),
        "IPv6" => (is_canonical_ip(address), "must be an IPv6 address", IpAddr::is_ipv6),
        "FQDN" => return validate_domain(address, &path),
        _ => return ErrorList::new(),
    };
    if !messages.is_empty() {
        return all(&path, address, messages);
    }
    let mut errors = ErrorList::new();
    if !address.parse().is_ok_and(|address| is_wanted(&address)) {
        errors.push(Error::invalid(list, address, wanted));
    }
    errors.extend(validate_endpoint_ip(address, &path));
    errors
}

/// `IsFullyQualifiedDomainName`
fn validate_domain(name: &str, path: &Path) -> ErrorList {
    if name.is_empty() {
        return vec![Error::required(path, "")];
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let messages = is_dns1123_subdomain(name);
    if !messages.is_empty() {
        return vec![Error::invalid(path, name, messages.join(","))];
    }
    if !name.contains('.') {
        let message = "should be a domain with at least two segments separated by dots";
        return vec![Error::invalid(path, name, message)];
    }
    let wrong = name.split('.').find(|label| !is_dns1123_label(label).is_empty());
    wrong.map(|label| Error::invalid(path, label, is_dns1123_label(label).join(","))).into_iter().collect()
}

fn validate_hints(hints: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    type Check = fn(&str) -> Vec<String>;
    let checks: [(&str, Check); 2] = [("forZones", is_label_value), ("forNodes", is_dns1123_subdomain)];
    for (field, check) in checks {
        let list = path.child(field);
        let hints = items(&hints[field]);
        if hints.len() > MAX_HINTS {
            errors.push(Error::too_many(&list, hints.len(), MAX_HINTS));
            return errors;
        }
        let mut seen = std::collections::HashSet::new();
        for (index, hint) in hints.iter().enumerate() {
            let path = list.index(index).child("name");
            let name = text(&hint["name"]);
            if !seen.insert(name) {
                errors.push(Error::duplicate(&path, name));
            }
            errors.extend(all(&path, name, check(name)));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};
    use serde_json::json;

    fn base() -> Value {
        json!({
            "metadata": {"name": "s", "creationTimestamp": "2026-11-24T08:59:50Z"}, "addressType": "IPv4",
            "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "n"}],
        })
    }

    #[test]
    fn ports_have_a_name_and_a_protocol() {
        let mut object = json!({"ports": [{"port": 80}]});
        kind().strategy.default(&mut object);
        assert_eq!(object, json!({"ports": [{"port": 80, "name": "", "protocol": "TCP"}]}));
    }

    #[test]
    fn addresses_are_of_the_type() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (json!({"addressType": ""}), vec!["addressType: Required value"]),
            (
                json!({"addressType": "MAC"}),
                vec!["addressType: Unsupported value: \"MAC\": supported values: \"FQDN\", \"IPv4\", \"IPv6\""],
            ),
            (
                json!({"addressType": "IPv6"}),
                vec!["endpoints[0].addresses: Invalid value: \"10.0.0.1\": must be an IPv6 address"],
            ),
            (
                json!({"addressType": "FQDN", "endpoints": [{"addresses": ["local"]}]}),
                vec![
                    "endpoints[0].addresses[0]: Invalid value: \"local\": should be a domain with at least two segments separated by dots",
                ],
            ),
            (
                json!({"endpoints": [{}]}),
                vec!["endpoints[0].addresses: Required value: must contain at least 1 address"],
            ),
            (
                json!({"endpoints": [{"addresses": vec!["10.0.0.1"; 101]}]}),
                vec!["endpoints[0].addresses: Too many: 101: must have at most 100 items"],
            ),
            (
                json!({"ports": [{"name": "a", "protocol": "TCP"}, {"name": "a", "protocol": "UDP"}]}),
                vec!["ports[1].name: Duplicate value: \"a\""],
            ),
            (
                json!({"endpoints": [{"addresses": ["10.0.0.1"], "hints": {"forZones": [{"name": "z"}, {"name": "z"}]}}]}),
                vec!["endpoints[0].hints.forZones[1].name: Duplicate value: \"z\""],
            ),
        ] {
            assert_eq!(messages(&kind().strategy.validate_create(&mutated(&base(), &mutation))), expected);
        }
    }

    #[test]
    fn the_type_stays() {
        let object = mutated(&base(), &json!({"addressType": "IPv6", "endpoints": []}));
        assert_eq!(
            messages(&kind().strategy.validate_update(&object, &base())),
            ["addressType: Invalid value: \"IPv6\": field is immutable"]
        );
    }

    #[test]
    fn old_topology_can_not_be_written() {
        let mut object =
            mutated(&base(), &json!({"endpoints": [{"addresses": ["10.0.0.1"], "deprecatedTopology": {"a": "b"}}]}));
        kind().strategy.prepare_create(&mut object, &WriteContext { now: "", user: "" });
        assert!(object["endpoints"][0]["deprecatedTopology"].is_null());
    }

    #[test]
    fn a_row_shows_three_of_each() {
        assert_eq!(kind().strategy.row(&base(), NOW), ["s", "IPv4", "80", "10.0.0.1", "10s"]);
        let many = mutated(
            &base(),
            &json!({"ports": [], "endpoints": [{"addresses": ["1.0.0.1", "1.0.0.2"]}, {"addresses": ["1.0.0.3", "1.0.0.4"]}]}),
        );
        assert_eq!(kind().strategy.row(&many, NOW)[2], "<unset>");
        assert_eq!(kind().strategy.row(&many, NOW)[3], "1.0.0.1,1.0.0.2,1.0.0.3 + 1 more...");
    }
}
