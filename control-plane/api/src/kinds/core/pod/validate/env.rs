//! Rules for the environment of a container.

use serde_json::Value;

use super::names::{check, check_required, no_backsteps, required};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::{items, text};
use crate::names;
use crate::quantity::Quantity;

/// Upstream's `ValidateEnv`.
pub(super) fn validate(variables: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, variable) in items(variables).iter().enumerate() {
        let path = path.index(index);
        errors.extend(check_required(variable, "name", &path, names::is_relaxed_env_var_name));
        errors.extend(validate_value_from(variable, &path.child("valueFrom")));
    }
    errors
}

/// Upstream's `ValidateEnvFrom`.
pub(super) fn validate_from(sources: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, source) in items(sources).iter().enumerate() {
        let at = path.index(index);
        let prefix = text(&source["prefix"]);
        if !prefix.is_empty() {
            errors.extend(check(prefix, &at.child("prefix"), names::is_relaxed_env_var_name));
        }
        let kinds = ["configMapRef", "secretRef"];
        let given: Vec<&str> = kinds.into_iter().filter(|kind| !source[*kind].is_null()).collect();
        for kind in &given {
            let name = |name: &str| names::name_is_dns_subdomain(name, true);
            errors.extend(check_required(&source[*kind], "name", &at.child(kind), name));
        }
        match given.len() {
            0 => errors.push(Error::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(Error::invalid(path, "", "may not have more than one field specified at a time")),
        }
    }
    errors
}

fn validate_value_from(variable: &Value, path: &Path) -> ErrorList {
    let source = &variable["valueFrom"];
    let mut errors = ErrorList::new();
    if source.is_null() {
        return errors;
    }
    let kinds = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let mut count = 0;
    for kind in kinds.into_iter().filter(|kind| !source[*kind].is_null()) {
        count += 1;
        let (reference, at) = (&source[kind], path.child(kind));
        errors.extend(match kind {
            "fieldRef" => validate_field_reference(reference, &ENV_FIELDS, &at),
            "resourceFieldRef" => validate_resource_reference(reference, false, &at),
            "fileKeyRef" => validate_file_key(reference, &at),
            _ => validate_key_selector(reference, &at),
        });
    }
    if count == 0 {
        let detail =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.push(Error::invalid(path, "", detail));
    } else if !text(&variable["value"]).is_empty() {
        errors.push(Error::invalid(path, "", "may not be specified when `value` is not empty"));
    } else if count > 1 {
        errors.push(Error::invalid(path, "", "may not have more than one field specified at a time"));
    }
    errors
}

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields that the downward API gives to files.
pub(super) const VOLUME_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Fields of which the downward API knows at all (`ConvertDownwardAPIFieldLabel`).
const KNOWN_FIELDS: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Upstream's `validateObjectFieldSelector`; `allowed` is in the order of the message.
pub(super) fn validate_field_reference(reference: &Value, allowed: &[&str], path: &Path) -> ErrorList {
    for field in ["apiVersion", "fieldPath"] {
        if text(&reference[field]).is_empty() {
            return vec![Error::required(&path.child(field), "")];
        }
    }
    let (version, field_path) = (text(&reference["apiVersion"]), text(&reference["fieldPath"]));
    let failed = |reason: String| {
        let detail = format!("error converting fieldPath: {reason}");
        vec![Error::invalid(&path.child("fieldPath"), field_path, detail)]
    };
    if version != "v1" {
        return failed(format!("unsupported pod version: {version}"));
    }
    match subscripted(field_path) {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            check(&key, path, names::is_qualified_name)
        }
        Some(("metadata.labels", key)) => check(key, path, names::is_qualified_name),
        Some(_) => failed(format!("field label does not support subscript: {field_path}")),
        None => {
            let field = if field_path == "spec.host" { "spec.nodeName" } else { field_path };
            if !KNOWN_FIELDS.contains(&field) {
                return failed(format!("field label not supported: {field_path}"));
            }
            let unsupported = !allowed.contains(&field);
            let error = unsupported.then(|| Error::not_supported(&path.child("fieldPath"), field, allowed));
            error.into_iter().collect()
        }
    }
}

/// Splits `metadata.labels['key']`.
fn subscripted(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['").filter(|(field, _)| !field.is_empty())
}

/// Upstream's `validateContainerResourceFieldSelector`; in a volume the container must be named.
pub(super) fn validate_resource_reference(reference: &Value, in_volume: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let resource = text(&reference["resource"]);
    let known = [
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if in_volume && text(&reference["containerName"]).is_empty() {
        errors.push(Error::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(Error::required(&path.child("resource"), ""));
    } else if !known.contains(&resource) && !huge {
        errors.push(Error::not_supported(&path.child("resource"), resource, &known));
    }
    errors.extend(validate_divisor(reference, resource, &path.child("divisor")));
    errors
}

fn validate_divisor(reference: &Value, resource: &str, path: &Path) -> Option<Error> {
    let divisor = Quantity::from_value(&reference["divisor"]).unwrap_or_default();
    if divisor.is_zero() {
        return None;
    }
    let shown = divisor.to_string();
    let kind = resource.trim_start_matches("limits.").trim_start_matches("requests.");
    if kind == "cpu" {
        let detail = "only divisor's values 1m and 1 are supported with the cpu resource";
        return (!matches!(shown.as_str(), "1m" | "1")).then(|| Error::invalid(path, resource, detail));
    }
    let name = match kind {
        "memory" => "memory",
        "ephemeral-storage" => "local ephemeral storage",
        _ if kind.starts_with("hugepages-") => "hugepages",
        _ => return None,
    };
    let valid = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    (!valid.contains(&shown.as_str())).then(|| {
        let detail = format!("only divisor's values {} are supported with the {name} resource", valid.join(", "));
        Error::invalid(path, resource, detail)
    })
}

/// A key of a ConfigMap or Secret.
fn validate_key_selector(selector: &Value, path: &Path) -> ErrorList {
    let mut errors = check(text(&selector["name"]), &path.child("name"), names::is_dns1123_subdomain);
    errors.extend(check_required(selector, "key", path, names::is_config_map_key));
    errors
}

/// A key of a file of variables in a volume (KEP-3721).
fn validate_file_key(selector: &Value, path: &Path) -> ErrorList {
    let mut errors = check_required(selector, "key", path, names::is_relaxed_env_var_name);
    errors.extend(check_required(selector, "volumeName", path, names::is_dns1123_label));
    errors.extend(required(selector, &["path"], path));
    errors.extend(no_backsteps(text(&selector["path"]), &path.child("path")));
    errors
}
