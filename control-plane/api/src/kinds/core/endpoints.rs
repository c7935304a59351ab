//! Endpoints: where a Service's backends are, in the form before EndpointSlice.

use std::net::IpAddr;

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell, or_none};
use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::names;
use crate::kinds::tree::{fill_text, integer, items, items_mut, semantically_equal, text};
use crate::names::{is_dns1123_label, is_dns1123_subdomain, is_ip, is_port_number, is_qualified_name, parse_ip_sloppy};

/// `v1 Endpoints`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["ep"]),
        create_on_update: true,
        columns: vec![
            Column::name(),
            Column::new("Endpoints", "string", "The ready addresses and their ports."),
            Column::age(),
        ],
        ..Kind::new(V1, "Endpoints", "endpoints", "io.k8s.api.core.v1.Endpoints", Endpoints)
    }
}

/// The protocols of ports, sorted.
pub(in crate::kinds) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

struct Endpoints;

impl Strategy for Endpoints {
    fn default(&self, object: &mut Value) {
        for subset in items_mut(object, "subsets") {
            for port in items_mut(subset, "ports") {
                fill_text(port, "protocol", "TCP");
            }
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let path = Path::new("subsets");
        let subsets = items(&object["subsets"]).iter().enumerate();
        subsets.flat_map(|(index, subset)| validate_subset(subset, &path.index(index))).collect()
    }

    /// What was stored under older rules may stay.
    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        if semantically_equal(&object["subsets"], &old["subsets"]) {
            return ErrorList::new();
        }
        self.validate_create(object)
    }

    fn warnings(&self, _: &Value, _: Option<&Value>) -> Vec<String> {
        vec!["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned()]
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![name_cell(object), or_none(shown(&object["subsets"])), age_cell(object, now)]
    }
}

fn validate_subset(subset: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let lists = ["addresses", "notReadyAddresses"];
    if lists.iter().all(|list| items(&subset[*list]).is_empty()) {
        errors.push(Error::required(path, "must specify `addresses` or `notReadyAddresses`"));
    }
    for list in lists {
        for (index, address) in items(&subset[list]).iter().enumerate() {
            errors.extend(validate_address(address, &path.child(list).index(index)));
        }
    }
    let ports = items(&subset["ports"]);
    for (index, port) in ports.iter().enumerate() {
        errors.extend(validate_port(port, ports.len() > 1, &path.child("ports").index(index)));
    }
    errors
}

fn validate_address(address: &Value, path: &Path) -> ErrorList {
    let ip = text(&address["ip"]);
    let mut errors = all(&path.child("ip"), ip, is_ip(ip));
    let hostname = text(&address["hostname"]);
    if !hostname.is_empty() {
        errors.extend(all(&path.child("hostname"), hostname, is_dns1123_label(hostname)));
    }
    if let Some(node) = address["nodeName"].as_str() {
        errors.extend(all(&path.child("nodeName"), node, is_dns1123_subdomain(node)));
    }
    errors.extend(validate_endpoint_ip(ip, &path.child("ip")));
    errors
}

/// Addresses that no endpoint may have, since they mean another machine to everyone (`ValidateEndpointIP`).
pub(in crate::kinds) fn validate_endpoint_ip(ip: &str, path: &Path) -> ErrorList {
    let Some(address) = parse_ip_sloppy(ip) else {
        return vec![Error::invalid(path, ip, "must be a valid IP address")];
    };
    let (link_local, link_local_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            (first & 0xffc0 == 0xfe80, first & 0xff0f == 0xff02)
        }
    };
    let found = [
        (address.is_unspecified(), format!("may not be unspecified ({ip})")),
        (address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (link_local_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()),
    ];
    found.into_iter().filter(|(wrong, _)| *wrong).map(|(_, message)| Error::invalid(path, ip, message)).collect()
}

fn validate_port(port: &Value, needs_name: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let name = text(&port["name"]);
    if !name.is_empty() {
        errors.extend(all(&path.child("name"), name, is_dns1123_label(name)));
    } else if needs_name {
        errors.push(Error::required(&path.child("name"), ""));
    }
    let number = integer(&port["port"]);
    errors
        .extend(is_port_number(number).into_iter().map(|message| Error::invalid(&path.child("port"), number, message)));
    errors.extend(validate_protocol(&port["protocol"], path));
    errors.extend(validate_app_protocol(port, path));
    errors
}

/// What is wrong with the protocol of the port at `path`.
pub(in crate::kinds) fn validate_protocol(protocol: &Value, path: &Path) -> Option<Error> {
    let path = path.child("protocol");
    match text(protocol) {
        "" => Some(Error::required(&path, "")),
        known if PROTOCOLS.contains(&known) => None,
        other => Some(Error::not_supported(&path, other, PROTOCOLS)),
    }
}

/// What is wrong with the application protocol of a port.
pub(in crate::kinds) fn validate_app_protocol(port: &Value, path: &Path) -> ErrorList {
    let Some(protocol) = port["appProtocol"].as_str() else { return ErrorList::new() };
    all(&path.child("appProtocol"), protocol, is_qualified_name(protocol))
}

/// One error for each message about a value.
pub(in crate::kinds) fn all(path: &Path, value: &str, messages: Vec<String>) -> ErrorList {
    messages.into_iter().map(|message| Error::invalid(path, value, message)).collect()
}

/// The first three ready addresses, with their ports, and how many more there are (`formatEndpoints`).
fn shown(subsets: &Value) -> String {
    let mut all = Vec::new();
    for subset in items(subsets) {
        let addresses = || items(&subset["addresses"]).iter().map(|address| text(&address["ip"]));
        let ports = items(&subset["ports"]);
        if ports.is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in ports {
            let port = integer(&port["port"]);
            all.extend(
                addresses().map(|ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }),
            );
        }
    }
    match &all[..] {
        [a, b, c, rest @ ..] if !rest.is_empty() => format!("{a},{b},{c} + {} more...", rest.len()),
        _ => all.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages};
    use serde_json::json;

    fn subset(subset: &Value) -> Vec<String> {
        messages(&kind().strategy.validate_create(&json!({"subsets": [subset]})))
    }

    #[test]
    fn ports_speak_tcp_unless_told() {
        let mut object = json!({"subsets": [{"ports": [{"port": 1}, {"port": 2, "protocol": "UDP"}]}]});
        kind().strategy.default(&mut object);
        assert_eq!(object["subsets"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(object["subsets"][0]["ports"][1]["protocol"], "UDP");
    }

    #[test]
    fn subsets_have_addresses_and_valid_ports() {
        for (value, expected) in [
            (json!({"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80, "protocol": "TCP"}]}), vec![]),
            (json!({}), vec!["subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`"]),
            (
                json!({"addresses": [{"ip": "127.0.0.1"}]}),
                vec![
                    "subsets[0].addresses[0].ip: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                ],
            ),
            (
                json!({"addresses": [{"ip": "nowhere"}]}),
                vec![
                    "subsets[0].addresses[0].ip: Invalid value: \"nowhere\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                    "subsets[0].addresses[0].ip: Invalid value: \"nowhere\": must be a valid IP address",
                ],
            ),
            (
                json!({"addresses": [{"ip": "fe80::1"}]}),
                vec![
                    "subsets[0].addresses[0].ip: Invalid value: \"fe80::1\": may not be in the link-local range (169.254.0.0/16, fe80::/10)",
                ],
            ),
            (
                json!({"addresses": [{"ip": "1.1.1.1"}], "ports": [{"port": 0, "protocol": "X"}]}),
                vec![
                    "subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "subsets[0].ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
        ] {
            assert_eq!(subset(&value), expected);
        }
    }

    #[test]
    fn what_was_stored_may_stay() {
        let old = json!({"subsets": [{}]});
        assert!(kind().strategy.validate_update(&old, &old).is_empty());
    }

    #[test]
    fn a_row_shows_three_endpoints() {
        let object = json!({
            "metadata": {"name": "e"},
            "subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}, {"port": 90}]}],
        });
        let cells = kind().strategy.row(&object, NOW);
        assert_eq!(cells[1], "10.0.0.1:80,[fd00::1]:80,10.0.0.1:90 + 1 more...");
        assert_eq!(kind().strategy.row(&json!({}), NOW)[1], "<none>");
    }
}
