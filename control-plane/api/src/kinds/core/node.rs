//! Node: a machine that runs pods.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::core::V1;
use crate::kinds::core::endpoints::all;
use crate::kinds::declaration::{Column, Kind, Scope, Strategy, Subresource, WriteContext};
use crate::kinds::names;
use crate::kinds::tree::{entries, flag, integer, items, remove, text};
use crate::names::{is_cidr, is_label_value, is_qualified_name};
use crate::quantity::Quantity;

/// `v1 Node`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["no"]),
        scope: Scope::Cluster,
        subresources: vec![Subresource::Proxy, Subresource::Status],
        selectable: names(&["spec.unschedulable"]),
        columns: vec![
            Column::name(),
            Column::new("Status", "string", "Whether it is ready, and whether it takes new pods."),
            Column::new("Roles", "string", "The roles that its labels name."),
            Column::age(),
            Column::new("Version", "string", "The version of its kubelet."),
            Column::new("Internal-IP", "string", "Its first address of type InternalIP.").wide(),
            Column::new("External-IP", "string", "Its first address of type ExternalIP.").wide(),
            Column::new("OS-Image", "string", "Its operating system.").wide(),
            Column::new("Kernel-Version", "string", "Its kernel and architecture.").wide(),
            Column::new("Container-Runtime", "string", "Its container runtime and version.").wide(),
        ],
        ..Kind::new(V1, "Node", "nodes", "io.k8s.api.core.v1.Node", Node)
    }
}

/// The effects of taints, in upstream's order.
pub(in crate::kinds) const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

struct Node;

/// A node may be created with its status, as kubelets do.
impl Strategy for Node {
    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        drop_configuration_source(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &WriteContext<'_>) {
        if old["spec"]["configSource"].is_null() {
            drop_configuration_source(object);
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = validate_taints(object);
        errors.extend(validate_status(object));
        errors.extend(validate_pod_cidrs(object));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate_create(object);
        errors.extend(validate_change(object, old));
        errors
    }

    fn validate_status_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = validate_status(object);
        errors.extend(validate_change(object, old));
        errors
    }

    fn warnings(&self, object: &Value, _: Option<&Value>) -> Vec<String> {
        let spec = &object["spec"];
        let mut warnings = Vec::new();
        if !spec["configSource"].is_null() {
            warnings.push("spec.configSource: the feature is removed".to_owned());
        }
        if !text(&spec["externalID"]).is_empty() {
            warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        warnings
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let information = &object["status"]["nodeInfo"];
        let known = |field: &str| match text(&information[field]) {
            "" => "<unknown>".to_owned(),
            value => value.to_owned(),
        };
        let mut kernel = known("kernelVersion");
        if !text(&information["architecture"]).is_empty() {
            kernel = format!("{kernel} ({})", text(&information["architecture"]));
        }
        vec![
            name_cell(object),
            condition(object).into(),
            roles(object).into(),
            age_cell(object, now),
            text(&information["kubeletVersion"]).into(),
            address(object, "InternalIP").into(),
            address(object, "ExternalIP").into(),
            known("osImage").into(),
            kernel.into(),
            known("containerRuntimeVersion").into(),
        ]
    }

    fn selectable(&self, object: &Value) -> Vec<String> {
        vec![flag(&object["spec"]["unschedulable"]).to_string()]
    }
}

/// Dynamic kubelet configuration is gone (KEP-281).
fn drop_configuration_source(object: &mut Value) {
    if let Some(spec) = object.get_mut("spec") {
        remove(spec, "configSource");
    }
}

/// Upstream shows the taints' path below `metadata`, and so do we: clients see it.
fn validate_taints(object: &Value) -> ErrorList {
    let list = Path::new("metadata").child("taints");
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for (index, taint) in items(&object["spec"]["taints"]).iter().enumerate() {
        let path = list.index(index);
        let (key, value, effect) = (text(&taint["key"]), text(&taint["value"]), text(&taint["effect"]));
        errors.extend(all(&path.child("key"), key, is_qualified_name(key)));
        let messages = is_label_value(value);
        if !messages.is_empty() {
            errors.push(Error::invalid(&path.child("value"), value, messages.join(";")));
        }
        if effect.is_empty() {
            errors.push(Error::required(&path.child("effect"), ""));
        } else if !TAINT_EFFECTS.contains(&effect) {
            errors.push(Error::not_supported(&path.child("effect"), effect, TAINT_EFFECTS));
        }
        if !seen.insert((key, effect)) {
            let mut error = Error::duplicate(&path, taint.clone());
            error.value = Some(format!(
                "{{\"Key\":{},\"Value\":{},\"Effect\":{},\"TimeAdded\":{}}}",
                json!(key),
                json!(value),
                json!(effect),
                taint["timeAdded"]
            ));
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
    }
    errors
}

fn validate_status(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let status = &object["status"];
    for list in ["capacity", "allocatable"] {
        for (resource, quantity) in entries(&status[list]) {
            let path = Path::new("status").child(list).child(resource);
            errors.extend(validate_quantity(resource, quantity, &path));
        }
    }
    let swap = &status["nodeInfo"]["swap"]["capacity"];
    if !swap.is_null() && integer(swap) <= 0 {
        let path = Path::new("metadata").child("nodeSwapStatus").child("capacity");
        errors.push(Error::invalid(&path, integer(swap), "must be greater than 0"));
    }
    errors.extend(validate_features(&status["declaredFeatures"]));
    errors
}

fn validate_quantity(resource: &str, value: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let quantity = match Quantity::from_value(value) {
        Ok(quantity) => quantity,
        Err(error) => return vec![Error::invalid(path, value.clone(), error.to_string())],
    };
    if quantity.milli_value() < 0 {
        errors.push(Error::invalid(path, quantity.to_string(), "must be greater than or equal to 0"));
    }
    if is_counted(resource) && quantity.milli_value() % 1000 != 0 {
        errors.push(Error::invalid(path, quantity.to_string(), "must be an integer"));
    }
    errors
}

/// Pods and extended resources come in whole numbers (`IsIntegerResourceName`).
fn is_counted(resource: &str) -> bool {
    const COUNTED: &[&str] = &[
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ];
    let extended = resource.split_once('/').is_some_and(|(domain, _)| {
        domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io") && !resource.starts_with("requests.")
    });
    COUNTED.contains(&resource) || extended
}

fn validate_features(features: &Value) -> ErrorList {
    let list = Path::new("status").child("declaredFeatures");
    let mut errors = ErrorList::new();
    let mut before: Option<&str> = None;
    for (index, feature) in items(features).iter().enumerate() {
        let (feature, path) = (text(feature), list.index(index));
        match before {
            Some(before) if before == feature => errors.push(Error::duplicate(&path, feature)),
            Some(before) if before > feature => {
                errors.push(Error::invalid(&path, feature, "list must be sorted alphabetically"));
            }
            Some(_) | None => {}
        }
        if feature.len() > 253 {
            let message = format!("invalid feature name {}: must be no more than 253 characters", json!(feature));
            errors.push(Error::invalid(&path, feature, message));
        } else if !is_feature_name(feature) {
            let message = format!(
                "invalid feature name {}: must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes",
                json!(feature)
            );
            errors.push(Error::invalid(&path, feature, message));
        }
        before = Some(feature);
    }
    errors
}

fn is_feature_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.split('/').all(|segment| {
            segment.starts_with(|first: char| first.is_ascii_alphabetic())
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

fn validate_pod_cidrs(object: &Value) -> ErrorList {
    let path = Path::new("spec").child("podCIDRs");
    let cidrs = items(&object["spec"]["podCIDRs"]);
    let mut errors = ErrorList::new();
    for (index, cidr) in cidrs.iter().enumerate() {
        errors.extend(all(&path.index(index), text(cidr), is_cidr(text(cidr))));
    }
    if cidrs.len() > 1 {
        let (v6, v4): (Vec<&str>, Vec<&str>) = cidrs.iter().map(text).partition(|cidr| cidr.contains(':'));
        if v4.len() != 1 || v6.len() != 1 {
            let message = "may specify no more than one CIDR for each IP family";
            errors.push(Error::invalid(&path, object["spec"]["podCIDRs"].clone(), message));
        }
    }
    errors
}

/// What may not change, and addresses that are there twice (`ValidateNodeUpdate`).
fn validate_change(object: &Value, old: &Value) -> ErrorList {
    let spec = Path::new("spec");
    let mut errors = ErrorList::new();
    let addresses = items(&object["status"]["addresses"]);
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            let mut error = Error::duplicate(&Path::new("status").child("addresses").index(index), address.clone());
            let (type_, address) = (json!(text(&address["type"])), json!(text(&address["address"])));
            error.value = Some(format!("{{\"Type\":{type_},\"Address\":{address}}}"));
            errors.push(error);
        }
    }
    let (before, after) = (items(&old["spec"]["podCIDRs"]), items(&object["spec"]["podCIDRs"]));
    if !before.is_empty() && before != after {
        let message = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(Error::forbidden(&spec.child("podCIDRs"), message));
    }
    let (before, after) = (text(&old["spec"]["providerID"]), text(&object["spec"]["providerID"]));
    if !before.is_empty() && before != after {
        let message =
            if after.is_empty() { "field cannot be cleared once set" } else { "field cannot be modified once set" };
        errors.push(Error::invalid(&spec.child("providerID"), Value::Null, message));
    }
    if text(&old["spec"]["externalID"]) != text(&object["spec"]["externalID"]) {
        errors.push(Error::forbidden(&spec.child("externalID"), "may not be updated"));
    }
    errors
}

fn condition(object: &Value) -> String {
    let ready = items(&object["status"]["conditions"]).iter().rfind(|condition| condition["type"] == "Ready");
    let mut shown = match ready.map(|condition| text(&condition["status"])) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if flag(&object["spec"]["unschedulable"]) {
        shown.push_str(",SchedulingDisabled");
    }
    shown
}

fn roles(object: &Value) -> String {
    let mut roles = BTreeSet::new();
    for (key, value) in entries(&object["metadata"]["labels"]) {
        let role = match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => role,
            None if key == "kubernetes.io/role" => text(value),
            None => "",
        };
        if !role.is_empty() {
            roles.insert(role);
        }
    }
    if roles.is_empty() { "<none>".to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn address(object: &Value, type_: &str) -> String {
    let mut addresses = items(&object["status"]["addresses"]).iter();
    let found = addresses.find(|address| address["type"] == type_);
    found.map_or("<none>", |address| text(&address["address"])).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    fn base() -> Value {
        json!({
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}},
            "spec": {"podCIDRs": ["10.0.0.0/24"], "providerID": "p://1", "unschedulable": true},
            "status": {
                "capacity": {"cpu": "4", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
                "nodeInfo": {"kubeletVersion": "v1.37.0", "osImage": "Debian", "kernelVersion": "6.18", "architecture": "amd64"},
            },
        })
    }

    #[test]
    fn specs_and_status_are_checked() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (
                json!({"spec": {"taints": [{"key": "a", "effect": "Go"}]}}),
                vec![
                    "metadata.taints[0].effect: Unsupported value: \"Go\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ],
            ),
            (
                json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "value": "b", "effect": "NoSchedule"}]}}),
                vec![
                    "metadata.taints[1]: Duplicate value: {\"Key\":\"a\",\"Value\":\"b\",\"Effect\":\"NoSchedule\",\"TimeAdded\":null}: taints must be unique by key and effect pair",
                ],
            ),
            (
                json!({"status": {"capacity": {"pods": "1500m", "memory": "-1"}}}),
                vec![
                    "status.capacity.memory: Invalid value: \"-1\": must be greater than or equal to 0",
                    "status.capacity.pods: Invalid value: \"1500m\": must be an integer",
                ],
            ),
            (
                json!({"spec": {"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}}),
                vec![
                    "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each IP family",
                ],
            ),
            (json!({"spec": {"podCIDRs": ["10.0.0.0/24", "fd00::/64"]}}), vec![]),
            (
                json!({"status": {"declaredFeatures": ["B", "A"]}}),
                vec!["status.declaredFeatures[1]: Invalid value: \"A\": list must be sorted alphabetically"],
            ),
        ] {
            assert_eq!(messages(&kind().strategy.validate_create(&mutated(&base(), &mutation))), expected);
        }
    }

    #[test]
    fn what_the_cluster_gave_a_node_stays() {
        for (mutation, expected) in [
            (json!({"spec": {"unschedulable": false}}), vec![]),
            (
                json!({"spec": {"podCIDRs": ["10.0.1.0/24"]}}),
                vec!["spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"],
            ),
            (
                json!({"spec": {"providerID": null}}),
                vec!["spec.providerID: Invalid value: null: field cannot be cleared once set"],
            ),
            (
                json!({"status": {"addresses": [{"type": "A", "address": "x"}, {"type": "A", "address": "x"}]}}),
                vec!["status.addresses[1]: Duplicate value: {\"Type\":\"A\",\"Address\":\"x\"}"],
            ),
        ] {
            assert_eq!(
                messages(&kind().strategy.validate_status_update(&mutated(&base(), &mutation), &base())),
                expected
            );
        }
    }

    #[test]
    fn a_row_shows_state_and_system() {
        assert_eq!(
            kind().strategy.row(&base(), NOW),
            [
                "n",
                "Ready,SchedulingDisabled",
                "edge,worker",
                "<unknown>",
                "v1.37.0",
                "192.0.2.1",
                "<none>",
                "Debian",
                "6.18 (amd64)",
                "<unknown>",
            ]
        );
        assert_eq!(kind().strategy.row(&json!({}), NOW)[1], "Unknown");
        assert_eq!(kind().strategy.selectable(&base()), ["true"]);
    }
}
