//! Rules for resource requirements: upstream's `validateResourceRequirements` and the names of resources (pkg/apis/core/helper).

use std::collections::BTreeSet;

use serde_json::Value;

use super::qos::{self, is_pod_level_resource};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::{entries, items, text};
use crate::names;
use crate::quantity::Quantity;

/// Whether a name is of the native namespace: no slash, or `kubernetes.io/`.
#[must_use]
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether requests may be below limits.
#[must_use]
pub fn is_overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// Whether it is a resource that a device plugin or an operator brought, counted in whole numbers.
#[must_use]
pub fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::is_qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether it is `hugepages-<size>`.
#[must_use]
pub fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Upstream's `ValidateContainerResourceRequirements`.
#[must_use]
pub fn validate_container_requirements(resources: &Value, claims: &BTreeSet<&str>, path: &Path) -> ErrorList {
    validate_requirements(resources, validate_container_name, claims, path)
}

/// Upstream's `validatePodResources`: requirements of the pod as a whole, and that they cover those of its containers.
#[must_use]
pub fn validate_pod_requirements(spec: &Value, claims: &BTreeSet<&str>, path: &Path) -> ErrorList {
    let resources = &spec["resources"];
    let path = path.child("resources");
    if resources.is_null() {
        return ErrorList::new();
    }
    if spec["os"]["name"] == "windows" {
        return vec![Error::forbidden(&path, "may not be set for a windows pod")];
    }
    let mut errors = ErrorList::new();
    if !resources["claims"].is_null() {
        let detail = "claims may not be set for Resources at pod-level";
        errors.push(Error::forbidden(&path.child("claims"), detail));
    }
    errors.extend(validate_requirements(resources, validate_pod_name, claims, &path));
    errors.extend(validate_consistency(spec, &path));
    errors
}

/// Upstream's `ValidateResourceQuantityValue`: a quantity that is not negative, and whole where only whole ones exist.
#[must_use]
pub fn validate_quantity(name: &str, value: &Value, path: &Path) -> ErrorList {
    let quantity = match Quantity::from_value(value) {
        Ok(quantity) => quantity,
        Err(error) => return vec![Error::invalid(path, value.clone(), error.to_string())],
    };
    let mut errors = ErrorList::new();
    if quantity.is_negative() {
        errors.push(Error::invalid(path, quantity.to_string(), "must be greater than or equal to 0"));
    }
    if (COUNTED.contains(&name) || is_extended(name)) && quantity.milli_value() % 1000 != 0 {
        errors.push(Error::invalid(path, quantity.to_string(), "must be an integer"));
    }
    errors
}

/// Standard resources that are counted in whole numbers.
const COUNTED: [&str; 9] = [
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

/// Standard resources that are measured.
const MEASURED: [&str; 11] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "storage",
    "requests.storage",
];

/// Upstream's `validateResourceName`.
#[must_use]
pub fn validate_name(name: &str, path: &Path) -> ErrorList {
    let messages = names::is_qualified_name(name);
    if !messages.is_empty() {
        return messages.into_iter().map(|message| Error::invalid(path, name, message)).collect();
    }
    let standard = MEASURED.contains(&name)
        || COUNTED.contains(&name)
        || is_huge_pages(name)
        || name.starts_with("requests.hugepages-");
    if name.contains('/') || standard {
        return ErrorList::new();
    }
    vec![Error::invalid(path, name, "must be a standard resource type or fully qualified")]
}

fn validate_container_name(name: &str, path: &Path) -> ErrorList {
    let mut errors = validate_name(name, path);
    if !name.contains('/') {
        if !(matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name)) {
            errors.push(Error::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(Error::invalid(path, name, "doesn't follow extended resource name standard"));
    }
    errors
}

fn validate_pod_name(name: &str, path: &Path) -> ErrorList {
    let errors = validate_name(name, path);
    if errors.is_empty() && !is_pod_level_resource(name) {
        return vec![Error::not_supported(path, name, &["cpu", "hugepages-", "memory"])];
    }
    errors
}

fn validate_requirements(
    resources: &Value,
    check_name: fn(&str, &Path) -> ErrorList,
    claims: &BTreeSet<&str>,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    let limits = &resources["limits"];
    for (name, value) in entries(limits) {
        let at = limits_path.key(name);
        errors.extend(check_name(name, &at));
        errors.extend(validate_quantity(name, value, &at));
        errors.extend(validate_huge_pages(name, value, &at));
    }
    for (name, value) in entries(&resources["requests"]) {
        let at = requests_path.key(name);
        errors.extend(check_name(name, &at));
        errors.extend(validate_quantity(name, value, &at));
        let request = Quantity::from_value(value).unwrap_or_default();
        match limits.get(name).and_then(|limit| Quantity::from_value(limit).ok()) {
            Some(limit) if request != limit && !is_overcommit_allowed(name) => {
                let detail = format!("must be equal to {name} limit of {limit}");
                errors.push(Error::invalid(&requests_path, request.to_string(), detail));
            }
            Some(limit) if request > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                errors.push(Error::invalid(&requests_path, request.to_string(), detail));
            }
            None if !is_overcommit_allowed(name) => {
                errors.push(Error::required(&limits_path, "Limit must be set for non overcommitable resources"));
            }
            Some(_) | None => {}
        }
        errors.extend(validate_huge_pages(name, value, &at));
    }
    let named = || entries(limits).chain(entries(&resources["requests"])).map(|(name, _)| name);
    if named().any(is_huge_pages) && !named().any(|name| name == "cpu" || name == "memory") {
        errors.push(Error::forbidden(path, "HugePages require cpu or memory"));
    }
    errors.extend(validate_claims(&resources["claims"], claims, &path.child("claims")));
    errors
}

fn validate_huge_pages(name: &str, value: &Value, path: &Path) -> Option<Error> {
    let size: Quantity = name.strip_prefix("hugepages-")?.parse().unwrap_or_default();
    let quantity = Quantity::from_value(value).ok()?;
    let divisible = size > Quantity::ZERO && size.is_whole() && quantity.value() % size.value() == 0;
    (!divisible).then(|| {
        let detail = format!("{quantity} is not positive integer multiple of {name}");
        Error::invalid(path, quantity.to_string(), detail)
    })
}

/// Upstream's `validateResourceClaimNames`: each names a claim of the pod, once.
fn validate_claims(list: &Value, pod_claims: &BTreeSet<&str>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (index, claim) in items(list).iter().enumerate() {
        let (path, name, request) = (path.index(index), text(&claim["name"]), text(&claim["request"]));
        if name.is_empty() {
            errors.push(Error::required(&path, ""));
            continue;
        }
        if seen.contains(name) {
            errors.push(Error::duplicate(&path, name));
        } else {
            let mut key = name.to_owned();
            if !request.is_empty() {
                let at = path.child("request");
                errors.extend(names::is_dns1123_label(request).into_iter().map(|m| Error::invalid(&at, request, m)));
                key = format!("{name}/{request}");
            }
            let of_this_claim = format!("{name}/");
            if seen.contains(&key) {
                errors.push(Error::duplicate(&path, key.as_str()));
            } else if request.is_empty() && seen.iter().any(|other| other.starts_with(&of_this_claim)) {
                errors.push(Error::duplicate(&path, name));
            }
            seen.insert(key);
        }
        if !pod_claims.contains(name) {
            let mut error = Error::not_found(&path, name);
            error.detail = "must be one of the names in pod.spec.resourceClaims".into();
            if pod_claims.is_empty() {
                error.detail.push_str(" which is empty");
            } else {
                let known: Vec<&str> = pod_claims.iter().copied().collect();
                error.detail.push_str(&format!(": {}", known.join(", ")));
            }
            errors.push(error);
        }
    }
    errors
}

/// Upstream's `validatePodResourceConsistency`.
fn validate_consistency(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let requests = qos::resource_list(&spec["resources"]["requests"]);
    for (name, needed) in qos::container_requests(spec) {
        if let Some(request) = requests.get(&name).filter(|request| needed > **request) {
            let detail = format!("must be greater than or equal to aggregate container requests of {needed}");
            errors.push(Error::invalid(&path.child("requests").key(&name), request.to_string(), detail));
        }
    }
    let limits = qos::resource_list(&spec["resources"]["limits"]);
    for (name, needed) in qos::container_limits(spec).into_iter().filter(|(name, _)| is_huge_pages(name)) {
        if let Some(limit) = limits.get(&name).filter(|limit| needed > **limit) {
            let detail = format!("must be greater than or equal to aggregate container limits of {needed}");
            errors.push(Error::invalid(&path.child("limits").key(&name), limit.to_string(), detail));
        }
    }
    for (index, container) in items(&spec["containers"]).iter().enumerate() {
        for (name, limit) in qos::resource_list(&container["resources"]["limits"]) {
            if let Some(pod_limit) = limits.get(&name).filter(|pod_limit| limit > **pod_limit) {
                let at = path.child("containers").index(index).key(&name).child("limits");
                let detail = format!("must be less than or equal to pod limits of {pod_limit}");
                errors.push(Error::invalid(&at, limit.to_string(), detail));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(resources: &Value) -> Vec<String> {
        let errors = validate_container_requirements(resources, &BTreeSet::from(["gpu"]), &Path::new("resources"));
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn requirements_are_told_what_is_wrong() {
        let table = [
            (json!({}), vec![]),
            (json!({"limits": {"cpu": "1", "a.b/c": "2"}, "requests": {"cpu": "500m", "a.b/c": "2"}}), vec![]),
            (
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
                vec!["resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1"],
            ),
            (
                json!({"limits": {"a.b/c": "1"}, "requests": {"a.b/c": "2"}}),
                vec!["resources.requests: Invalid value: \"2\": must be equal to a.b/c limit of 1"],
            ),
            (
                json!({"requests": {"a.b/c": "2"}}),
                vec!["resources.limits: Required value: Limit must be set for non overcommitable resources"],
            ),
            (
                json!({"requests": {"cpu": "-1"}}),
                vec!["resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
            (
                json!({"limits": {"a.b/c": "500m"}}),
                vec!["resources.limits[a.b/c]: Invalid value: \"500m\": must be an integer"],
            ),
            (
                json!({"limits": {"gold": "1"}}),
                vec![
                    "resources.limits[gold]: Invalid value: \"gold\": must be a standard resource type or fully qualified",
                    "resources.limits[gold]: Invalid value: \"gold\": must be a standard resource for containers",
                ],
            ),
            (
                json!({"limits": {"hugepages-2Mi": "2Mi"}}),
                vec!["resources: Forbidden: HugePages require cpu or memory"],
            ),
            (
                json!({"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}}),
                vec![
                    "resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
                ],
            ),
            (
                json!({"claims": [{"name": "tpu"}]}),
                vec![
                    "resources.claims[0]: Not found: \"tpu\": must be one of the names in pod.spec.resourceClaims: gpu",
                ],
            ),
            (
                json!({"claims": [{"name": "gpu", "request": "a"}, {"name": "gpu"}]}),
                vec!["resources.claims[1]: Duplicate value: \"gpu\""],
            ),
        ];
        for (resources, expected) in table {
            assert_eq!(messages(&resources), expected, "{resources}");
        }
    }
}
