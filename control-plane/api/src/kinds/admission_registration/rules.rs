//! Which requests a webhook or a policy is about: rules, selectors and match conditions, with their defaults.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::{fill, items, items_mut, text};
use crate::meta::{validate_label_selector, validate_qualified_name};
use crate::names::is_path_segment;

pub(super) const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
pub(super) const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
pub(super) const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const CONDITIONS: usize = 64;

/// Fills in the scope of each rule below `parent.field`.
pub(super) fn default_rules(parent: &mut Value, field: &str) {
    for rule in items_mut(parent, field) {
        fill(rule, "scope", "*");
    }
}

/// Fills in what a `MatchResources` leaves out, where there is one.
pub(super) fn default_match_resources(parent: &mut Value, field: &str) {
    let Some(resources) = parent.get_mut(field).filter(|resources| resources.is_object()) else { return };
    fill(resources, "matchPolicy", "Equivalent");
    fill(resources, "namespaceSelector", json!({}));
    fill(resources, "objectSelector", json!({}));
    default_rules(resources, "resourceRules");
    default_rules(resources, "excludeResourceRules");
}

/// A value of an enumeration, where there is one.
pub(super) fn one_of(value: &Value, valid: &[&str], path: &Path) -> ErrorList {
    match value.as_str() {
        Some(given) if !valid.contains(&given) => vec![Error::not_supported(path, given, valid)],
        _ => ErrorList::new(),
    }
}

/// A value of an enumeration that must be there.
pub(super) fn required_one_of(value: &Value, valid: &[&str], path: &Path) -> ErrorList {
    match value.as_str() {
        None => vec![Error::required(path, "")],
        Some(_) => one_of(value, valid, path),
    }
}

/// `validateRuleWithOperations`
pub(super) fn validate_rule(rule: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let operations = items(&rule["operations"]);
    let at = path.child("operations");
    if operations.is_empty() {
        errors.push(Error::required(&at, ""));
    }
    if operations.len() > 1 && has_wildcard(operations) {
        let message = "if '*' is present, must not specify other operations";
        errors.push(Error::invalid(&at, rule["operations"].clone(), message));
    }
    for (index, operation) in operations.iter().enumerate() {
        errors.extend(one_of(operation, OPERATIONS, &at.index(index)));
    }
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let list = items(&rule[field]);
        let at = path.child(field);
        if list.is_empty() {
            errors.push(Error::required(&at, ""));
        }
        if list.len() > 1 && has_wildcard(list) {
            let message = format!("if '*' is present, must not specify other {what}");
            errors.push(Error::invalid(&at, rule[field].clone(), message));
        }
        if field == "apiVersions" {
            let empty = list.iter().enumerate().filter(|(_, version)| text(version).is_empty());
            errors.extend(empty.map(|(index, _)| Error::required(&at.index(index), "")));
        }
    }
    errors.extend(validate_resources(&rule["resources"], &path.child("resources")));
    errors.extend(one_of(&rule["scope"], SCOPES, &path.child("scope")));
    errors
}

fn has_wildcard(list: &[Value]) -> bool {
    list.iter().any(|item| text(item) == "*")
}

fn validate_resources(resources: &Value, path: &Path) -> ErrorList {
    let list = items(resources);
    let mut errors = ErrorList::new();
    if list.is_empty() {
        errors.push(Error::required(path, ""));
    }
    let (mut whole_resources, mut everywhere): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut without_subresource = false;
    for (index, resource) in list.iter().map(text).enumerate() {
        let at = path.index(index);
        if resource.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        let Some((name, subresource)) = resource.split_once('/') else {
            // As upstream: only the last one without a subresource counts.
            without_subresource = resource != "*";
            continue;
        };
        if whole_resources.contains(&name) {
            let message = format!("if '{name}/*' is present, must not specify {resource}");
            errors.push(Error::invalid(&at, resource, message));
        }
        if everywhere.contains(&subresource) {
            let message = format!("if '*/{subresource}' is present, must not specify {resource}");
            errors.push(Error::invalid(&at, resource, message));
        }
        if subresource == "*" {
            whole_resources.push(name);
        }
        if name == "*" {
            everywhere.push(subresource);
        }
    }
    if list.len() > 1 && list.iter().any(|resource| text(resource) == "*/*") {
        let message = "if '*/*' is present, must not specify other resources";
        errors.push(Error::invalid(path, resources.clone(), message));
    }
    if has_wildcard(list) && without_subresource {
        let message = "if '*' is present, must not specify other resources without subresources";
        errors.push(Error::invalid(path, resources.clone(), message));
    }
    errors
}

/// `validateMatchResources`: the resources of a policy or of a binding.
pub(super) fn validate_match_resources(resources: &Value, path: &Path) -> ErrorList {
    let mut errors = required_one_of(&resources["matchPolicy"], MATCH_POLICIES, &path.child("matchPolicy"));
    for field in ["namespaceSelector", "objectSelector"] {
        let at = path.child(field);
        if resources[field].is_null() {
            errors.push(Error::required(&at, ""));
        } else {
            errors.extend(validate_label_selector(&resources[field], &at));
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for (index, rule) in items(&resources[field]).iter().enumerate() {
            let at = path.child(field).index(index);
            errors.extend(validate_resource_names(&rule["resourceNames"], &at.child("resourceNames")));
            errors.extend(validate_rule(rule, &at));
        }
    }
    errors
}

fn validate_resource_names(names: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let names = items(names);
    for (index, name) in names.iter().enumerate() {
        let at = path.index(index);
        errors.extend(is_path_segment(text(name), false).into_iter().map(|why| Error::invalid(&at, text(name), why)));
        if names[..index].contains(name) {
            errors.push(Error::duplicate(&at, text(name)));
        }
    }
    errors
}

/// `validateMatchConditions`; `expression` says what is wrong with one.
pub(super) fn validate_match_conditions(
    conditions: &Value,
    path: &Path,
    expression: &dyn Fn(&str, &Path) -> ErrorList,
) -> ErrorList {
    let conditions = items(conditions);
    let mut errors = ErrorList::new();
    if conditions.len() > CONDITIONS {
        errors.push(Error::too_many(path, conditions.len(), CONDITIONS));
    }
    for (index, condition) in conditions.iter().enumerate() {
        let at = path.index(index);
        let trimmed = text(&condition["expression"]).trim();
        if trimmed.is_empty() {
            errors.push(Error::required(&at.child("expression"), ""));
        } else {
            errors.extend(expression(trimmed, &at.child("expression")));
        }
        let name = text(&condition["name"]);
        if name.is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        } else {
            errors.extend(validate_qualified_name(name, &at.child("name")));
            if conditions[..index].iter().any(|other| text(&other["name"]) == name) {
                errors.push(Error::duplicate(&at.child("name"), name));
            }
        }
    }
    errors
}
