//! ResourceQuota: how much the objects of a namespace may use together.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::core::V1;
use crate::kinds::core::pod::resources::validate_quantity;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::fields::form;
use crate::kinds::tree::{IMMUTABLE, entries, items, length, text};
use crate::kinds::{Subresource, WriteContext, names};
use crate::names::is_qualified_name;

/// `v1 ResourceQuota`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["quota"]),
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::new("Request", "string", "What is used of what may be requested."),
            Column::new("Limit", "string", "What is used of what may be limits."),
            Column::age(),
        ],
        ..Kind::new(V1, "ResourceQuota", "resourcequotas", "io.k8s.api.core.v1.ResourceQuota", ResourceQuota)
    }
}

/// The resources without a slash in their names that a quota may limit (`standardQuotaResources`).
const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
    "storage",
];
/// The scopes that a quota may have, in upstream's order.
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({});
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let (spec, path) = (&object["spec"], Path::new("spec"));
        let mut errors = validate_list(&spec["hard"], &path.child("hard"));
        errors.extend(validate_scopes(spec, &path.child("scopes")));
        if spec["scopeSelector"].is_object() {
            errors.extend(validate_selector(spec, &path.child("scopeSelector").child("matchExpressions")));
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate_create(object);
        let scopes = |object: &Value| {
            let mut scopes: Vec<String> =
                items(&object["spec"]["scopes"]).iter().map(|scope| text(scope).to_owned()).collect();
            scopes.sort_unstable();
            scopes.dedup();
            scopes
        };
        if scopes(object) != scopes(old) {
            let at = Path::new("spec").child("scopes");
            errors.push(Error::invalid(&at, object["spec"]["scopes"].clone(), IMMUTABLE));
        }
        errors
    }

    fn validate_status_update(&self, object: &Value, _: &Value) -> ErrorList {
        let path = Path::new("status");
        ["hard", "used"].iter().flat_map(|list| validate_list(&object["status"][*list], &path.child(list))).collect()
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let status = &object["status"];
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in entries(&status["hard"]) {
            let used = status["used"][name].as_str().unwrap_or("0");
            let shown = format!("{name}: {used}/{}", text(hard));
            if name.starts_with("limits.") { limits.push(shown) } else { requests.push(shown) }
        }
        vec![name_cell(object), requests.join(", ").into(), limits.join(", ").into(), age_cell(object, now)]
    }
}

fn validate_list(list: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (name, quantity) in entries(list) {
        let at = path.key(name);
        let wrong = form(name, &at, is_qualified_name);
        let is_standard =
            STANDARD.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
        if wrong.is_empty() && !name.contains('/') && !is_standard {
            errors.push(Error::invalid(&at, name, "must be a standard resource type or fully qualified"));
            errors.push(Error::invalid(&at, name, "must be a standard resource for quota"));
        }
        errors.extend(wrong);
        errors.extend(validate_quantity(name, quantity, &at));
    }
    errors
}

/// Whether a scope can be of use for what a quota limits (`IsResourceQuotaScopeValidForResource`).
fn fits(scope: &str, resource: &str) -> bool {
    const COMPUTE: [&str; 6] = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ if SCOPES.contains(&scope) => resource == "pods" || COMPUTE.contains(&resource),
        _ => true,
    }
}

fn conflicting(scopes: &[&str]) -> usize {
    let pairs = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
    pairs.iter().filter(|pair| pair.iter().all(|scope| scopes.contains(scope))).count()
}

fn validate_scopes(spec: &Value, path: &Path) -> ErrorList {
    let scopes: Vec<&str> = items(&spec["scopes"]).iter().map(text).collect();
    let invalid = |message: &str| Error::invalid(path, spec["scopes"].clone(), message);
    let mut errors = ErrorList::new();
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            errors.push(invalid("unsupported scope"));
        }
        let unfit = entries(&spec["hard"]).filter(|(name, _)| STANDARD.contains(name) && !fits(scope, name));
        errors.extend(unfit.map(|_| invalid("unsupported scope applied to resource")));
    }
    errors.extend((0..conflicting(&scopes)).map(|_| invalid("conflicting scopes")));
    errors
}

fn validate_selector(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let requirements = items(&spec["scopeSelector"]["matchExpressions"]);
    for requirement in requirements {
        let scope = text(&requirement["scopeName"]);
        let operator = text(&requirement["operator"]);
        if !SCOPES.contains(&scope) {
            errors.push(Error::invalid(&path.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in entries(&spec["hard"]).filter(|(name, _)| STANDARD.contains(name) && !fits(scope, name)) {
            let message = "unsupported scope applied to resource";
            errors.push(Error::invalid(path, spec["scopeSelector"].clone(), message));
        }
        let by_value = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if SCOPES.contains(&scope) && !by_value && operator != "Exists" {
            let message = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(Error::invalid(&path.child("operator"), operator, message));
        }
        let values = &requirement["values"];
        match operator {
            "In" | "NotIn" if length(values) == 0 => {
                let message = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(Error::required(&path.child("values"), message));
            }
            "Exists" | "DoesNotExist" if length(values) > 0 => {
                let message = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(Error::invalid(&path.child("values"), values.clone(), message));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => errors.push(Error::invalid(&path.child("operator"), operator, "not a valid selector operator")),
        }
    }
    let scopes: Vec<&str> = requirements.iter().map(|requirement| text(&requirement["scopeName"])).collect();
    let conflicts =
        (0..conflicting(&scopes)).map(|_| Error::invalid(path, spec["scopes"].clone(), "conflicting scopes"));
    errors.extend(conflicts);
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages};

    #[test]
    fn mistakes_are_named() {
        for (spec, expected) in [
            (json!({"hard": {"pods": "5", "requests.cpu": "1", "count/jobs.batch": "2"}}), vec![]),
            (
                json!({"hard": {"apples": "5"}}),
                vec![
                    "spec.hard[apples]: Invalid value: \"apples\": must be a standard resource type or fully qualified",
                    "spec.hard[apples]: Invalid value: \"apples\": must be a standard resource for quota",
                ],
            ),
            (
                json!({"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}),
                vec!["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"],
            ),
            (
                json!({"hard": {"services": "1"}, "scopes": ["Terminating"]}),
                vec!["spec.scopes: Invalid value: [\"Terminating\"]: unsupported scope applied to resource"],
            ),
        ] {
            assert_eq!(messages(&ResourceQuota.validate_create(&json!({ "spec": spec }))), expected);
        }
    }

    #[test]
    fn a_row_tells_use_from_limits() {
        let object = json!({"metadata": {"name": "q"}, "status": {
            "hard": {"limits.cpu": "2", "pods": "5"}, "used": {"pods": "1"},
        }});
        assert_eq!(ResourceQuota.row(&object, NOW)[..3], ["q", "pods: 1/5", "limits.cpu: 0/2"]);
    }
}
