//! ServiceCIDR and IPAddress: the networks that Services get their addresses from, and the addresses that are taken.

use serde_json::{Value, json};

use super::V1;
use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::declaration::{Column, Kind, Scope, Strategy};
use crate::kinds::fields::{form, optional, path_segment, required};
use crate::kinds::tree::{IMMUTABLE, immutable, items, text};
use crate::kinds::{Subresource, WriteContext, names};
use crate::names::{is_canonical_cidr, is_canonical_ip, is_dns1123_subdomain, parse_cidr_sloppy};

/// `networking.k8s.io/v1 ServiceCIDR`
#[must_use]
pub fn service_cidr() -> Kind {
    Kind {
        scope: Scope::Cluster,
        subresources: vec![Subresource::Status],
        has_generation: true,
        columns: vec![Column::name(), Column::new("CIDRs", "string", "The networks."), Column::age()],
        ..Kind::new(V1, "ServiceCIDR", "servicecidrs", "io.k8s.api.networking.v1.ServiceCIDR", ServiceCidr)
    }
}

struct ServiceCidr;

impl Strategy for ServiceCidr {
    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({});
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        validate_cidrs(&object["spec"])
    }

    /// A second network may be added; what is there stays.
    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let path = Path::new("spec").child("cidrs");
        let [new, old] = [object, old].map(|object| items(&object["spec"]["cidrs"]));
        if new.len() != old.len() && (old.len(), new.len()) != (1, 2) {
            return vec![Error::invalid(&path, object["spec"]["cidrs"].clone(), IMMUTABLE)];
        }
        let changed = old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new);
        let mut errors: ErrorList =
            changed.map(|(index, (_, new))| Error::invalid(&path.index(index), new.clone(), IMMUTABLE)).collect();
        if new.len() > old.len() {
            errors.extend(validate_cidrs(&object["spec"]));
        }
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let cidrs: Vec<&str> = items(&object["spec"]["cidrs"]).iter().map(text).collect();
        vec![name_cell(object), cidrs.join(",").into(), age_cell(object, now)]
    }
}

fn validate_cidrs(spec: &Value) -> ErrorList {
    let path = Path::new("spec").child("cidrs");
    let cidrs = items(&spec["cidrs"]);
    match cidrs.len() {
        0 => return vec![Error::required(&path, "at least one CIDR required")],
        1 | 2 => {}
        _ => return vec![Error::invalid(&path, spec.clone(), "may only hold up to 2 values")],
    }
    let each = cidrs.iter().enumerate();
    let mut errors: ErrorList =
        each.flat_map(|(index, cidr)| form(text(cidr), &path.index(index), is_canonical_cidr)).collect();
    let families: Vec<bool> =
        cidrs.iter().filter_map(|cidr| parse_cidr_sloppy(text(cidr))).map(|(address, _)| address.is_ipv4()).collect();
    if let [a, b] = families[..]
        && a == b
    {
        let message = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(Error::invalid(&path, spec["cidrs"].clone(), message));
    }
    errors
}

/// `networking.k8s.io/v1 IPAddress`
#[must_use]
pub fn ip_address() -> Kind {
    Kind {
        short_names: names(&["ip"]),
        scope: Scope::Cluster,
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("ParentRef", "string", "The object that has the address."),
            Column::age(),
        ],
        ..Kind::new(V1, "IPAddress", "ipaddresses", "io.k8s.api.networking.v1.IPAddress", IpAddress)
    }
}

struct IpAddress;

impl Strategy for IpAddress {
    fn validate_create(&self, object: &Value) -> ErrorList {
        let path = Path::new("spec").child("parentRef");
        let parent = &object["spec"]["parentRef"];
        if parent.is_null() {
            return vec![Error::required(&path, "")];
        }
        let mut errors = optional(parent, "group", &path, is_dns1123_subdomain);
        errors.extend(required(parent, "resource", &path, path_segment));
        errors.extend(required(parent, "name", &path, path_segment));
        errors.extend(optional(parent, "namespace", &path, path_segment));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let path = Path::new("spec").child("parentRef");
        immutable(&object["spec"]["parentRef"], &old["spec"]["parentRef"], &path)
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let parent = &object["spec"]["parentRef"];
        let shown = if parent.is_object() {
            let mut shown = text(&parent["resource"]).to_owned();
            for (mark, field) in [(".", "group"), ("/", "namespace"), ("/", "name")] {
                if field == "name" || !text(&parent[field]).is_empty() {
                    shown.push_str(mark);
                    shown.push_str(text(&parent[field]));
                }
            }
            shown
        } else {
            "<none>".to_owned()
        };
        vec![name_cell(object), shown.into(), age_cell(object, now)]
    }

    fn validate_name(&self, name: &str, _: bool) -> Vec<String> {
        is_canonical_ip(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages};

    #[test]
    fn networks_are_one_a_family_and_only_added() {
        for (cidrs, expected) in [
            (json!(["10.0.0.0/16", "fd00::/64"]), vec![]),
            (json!([]), vec!["spec.cidrs: Required value: at least one CIDR required"]),
            (
                json!(["10.0.0.0/16", "10.1.0.0/16"]),
                vec![
                    "spec.cidrs: Invalid value: [\"10.0.0.0/16\",\"10.1.0.0/16\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
                ],
            ),
        ] {
            assert_eq!(messages(&ServiceCidr.validate_create(&json!({"spec": {"cidrs": cidrs}}))), expected);
        }
        let cidrs = |list: Value| json!({"spec": {"cidrs": list}});
        let old = cidrs(json!(["10.0.0.0/16"]));
        assert!(ServiceCidr.validate_update(&cidrs(json!(["10.0.0.0/16", "fd00::/64"])), &old).is_empty());
        assert_eq!(
            messages(&ServiceCidr.validate_update(&cidrs(json!(["10.1.0.0/16"])), &old)),
            ["spec.cidrs[0]: Invalid value: \"10.1.0.0/16\": field is immutable"]
        );
    }

    #[test]
    fn an_address_belongs_to_something() {
        let object = json!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": {
            "resource": "services", "namespace": "default", "name": "kubernetes",
        }}});
        assert_eq!(messages(&IpAddress.validate_create(&object)), Vec::<String>::new());
        assert_eq!(IpAddress.row(&object, NOW)[1], "services/default/kubernetes");
        assert_eq!(messages(&IpAddress.validate_create(&json!({}))), ["spec.parentRef: Required value"]);
    }
}
