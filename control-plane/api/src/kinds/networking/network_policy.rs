//! NetworkPolicy: who may reach pods, and whom they may reach.

use serde_json::{Value, json};

use super::V1;
use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell, selector_cell};
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::fields::{form, one_of};
use crate::kinds::names;
use crate::kinds::tree::{fill, fill_text, items, items_mut, length, text};
use crate::meta::validate_label_selector;
use crate::names::{is_cidr, is_port_name, is_port_number, masked, parse_cidr_sloppy};

/// `networking.k8s.io/v1 NetworkPolicy`
#[must_use]
pub fn network_policy() -> Kind {
    Kind {
        short_names: names(&["netpol"]),
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Pod-Selector", "string", "Selects the pods that it is for."),
            Column::age(),
        ],
        ..Kind::new(V1, "NetworkPolicy", "networkpolicies", "io.k8s.api.networking.v1.NetworkPolicy", NetworkPolicy)
    }
}

/// A direction of traffic: the rules' field, and the field of the other side's peers.
const DIRECTIONS: [(&str, &str); 2] = [("ingress", "from"), ("egress", "to")];

struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        fill(spec, "podSelector", json!({}));
        if length(&spec["policyTypes"]) == 0 {
            let mut types = json!(["Ingress"]);
            if length(&spec["egress"]) > 0 {
                types = json!(["Ingress", "Egress"]);
            }
            spec["policyTypes"] = types;
        }
        for (rules, _) in DIRECTIONS {
            for rule in items_mut(spec, rules) {
                for port in items_mut(rule, "ports") {
                    fill_text(port, "protocol", "TCP");
                }
            }
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let (spec, path) = (&object["spec"], Path::new("spec"));
        let mut errors = validate_label_selector(&spec["podSelector"], &path.child("podSelector"));
        for (rules, peers) in DIRECTIONS {
            for (index, rule) in items(&spec[rules]).iter().enumerate() {
                let at = path.child(rules).index(index);
                for (index, port) in items(&rule["ports"]).iter().enumerate() {
                    errors.extend(validate_port(port, &at.child("ports").index(index)));
                }
                for (index, peer) in items(&rule[peers]).iter().enumerate() {
                    errors.extend(validate_peer(peer, &at.child(peers).index(index)));
                }
            }
        }
        let (types, at) = (items(&spec["policyTypes"]), path.child("policyTypes"));
        if types.len() > 2 {
            let message = "may not specify more than two policyTypes";
            errors.push(Error::invalid(&at, spec["policyTypes"].clone(), message));
            return errors;
        }
        for (index, type_) in types.iter().enumerate() {
            if !["Ingress", "Egress"].contains(&text(type_)) {
                errors.push(Error::not_supported(&at.index(index), type_.clone(), &["Ingress", "Egress"]));
            }
        }
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![name_cell(object), selector_cell(&object["spec"]["podSelector"]), age_cell(object, now)]
    }
}

fn validate_port(port: &Value, path: &Path) -> ErrorList {
    let mut errors: ErrorList = one_of(port, "protocol", path, &["TCP", "UDP", "SCTP"]).into_iter().collect();
    let end = port["endPort"].as_i64();
    let at = path.child("endPort");
    match &port["port"] {
        Value::Number(number) => {
            let number = number.as_i64().unwrap_or_default();
            let wrong = is_port_number(number).into_iter();
            errors.extend(wrong.map(|message| Error::invalid(&path.child("port"), number, message)));
            if let Some(end) = end {
                if end < number {
                    errors.push(Error::invalid(&at, end, "must be greater than or equal to `port`"));
                }
                errors.extend(is_port_number(end).into_iter().map(|message| Error::invalid(&at, end, message)));
            }
        }
        Value::String(name) => {
            if let Some(end) = end {
                errors.push(Error::invalid(&at, end, "may not be specified when `port` is non-numeric"));
            }
            errors.extend(form(name, &path.child("port"), is_port_name));
        }
        _ => {
            if let Some(end) = end {
                errors.push(Error::invalid(&at, end, "may not be specified when `port` is not specified"));
            }
        }
    }
    errors
}

fn validate_peer(peer: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut count = 0;
    for field in ["podSelector", "namespaceSelector"].iter().filter(|field| peer[**field].is_object()) {
        count += 1;
        errors.extend(validate_label_selector(&peer[*field], &path.child(field)));
    }
    let block = &peer["ipBlock"];
    if block.is_object() {
        count += 1;
        errors.extend(validate_block(block, &path.child("ipBlock")));
    }
    if count == 0 {
        errors.push(Error::required(path, "must specify a peer"));
    } else if count > 1 && block.is_object() {
        errors.push(Error::forbidden(path, "may not specify both ipBlock and another peer"));
    }
    errors
}

/// `ValidateIPBlock`
fn validate_block(block: &Value, path: &Path) -> ErrorList {
    let cidr = text(&block["cidr"]);
    if cidr.is_empty() {
        return vec![Error::required(&path.child("cidr"), "")];
    }
    let mut errors = form(cidr, &path.child("cidr"), is_cidr);
    let Some((network, length)) = parse_cidr_sloppy(cidr) else { return errors };
    for (index, except) in items(&block["except"]).iter().enumerate() {
        let at = path.child("except").index(index);
        errors.extend(form(text(except), &at, is_cidr));
        let Some((address, inner)) = parse_cidr_sloppy(text(except)) else { continue };
        let inside = address.is_ipv4() == network.is_ipv4() && masked(address, length) == masked(network, length);
        if !inside || length >= inner {
            errors.push(Error::invalid(&at, except.clone(), "must be a strict subset of `cidr`"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages};

    #[test]
    fn mistakes_are_named() {
        for (spec, expected) in [
            (json!({"ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80, "endPort": 90}]}]}), vec![]),
            (
                json!({"ingress": [{"from": [{}]}]}),
                vec!["spec.ingress[0].from[0]: Required value: must specify a peer"],
            ),
            (
                json!({"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]}),
                vec![
                    "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
                ],
            ),
            (
                json!({"ingress": [{"ports": [{"port": "http", "endPort": 90}]}]}),
                vec![
                    "spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric",
                ],
            ),
        ] {
            let mut object = json!({"metadata": {"name": "p"}, "spec": spec});
            NetworkPolicy.default(&mut object);
            assert_eq!(messages(&NetworkPolicy.validate_create(&object)), expected);
        }
    }

    #[test]
    fn a_policy_is_for_ingress_and_for_egress_where_it_has_rules() {
        let mut object = json!({"spec": {"egress": [{"ports": [{"port": 53}]}]}});
        NetworkPolicy.default(&mut object);
        assert_eq!(object["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(object["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
        assert_eq!(NetworkPolicy.row(&object, NOW)[1], "<none>");
    }
}
