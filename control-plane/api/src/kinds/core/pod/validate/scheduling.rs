//! Rules for what decides where a pod runs: affinity, tolerations, spreading, gates.

use std::collections::BTreeSet;

use serde_json::Value;

use super::names::{check, one_of_optional};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::{entries, integer, items, length, text};
use crate::meta::{validate_label_key, validate_label_selector};
use crate::names;

/// Upstream's `validateAffinity`.
pub(super) fn validate_affinity(affinity: &Value, path: &Path) -> ErrorList {
    let mut errors = validate_node_affinity(&affinity["nodeAffinity"], &path.child("nodeAffinity"));
    for kind in ["podAffinity", "podAntiAffinity"] {
        errors.extend(validate_pod_affinity(&affinity[kind], &path.child(kind)));
    }
    errors
}

/// Upstream's `ValidateNodeSelector`: at least one term, each of requirements on labels or on the node's name.
#[must_use]
pub fn validate_node_selector(selector: &Value, path: &Path) -> ErrorList {
    let path = path.child("nodeSelectorTerms");
    let terms = items(&selector["nodeSelectorTerms"]);
    if terms.is_empty() {
        return vec![Error::required(&path, "must have at least one node selector term")];
    }
    let terms = terms.iter().enumerate();
    terms.flat_map(|(index, term)| validate_node_term(term, true, &path.index(index))).collect()
}

/// Upstream's `ValidateTolerations`.
#[must_use]
pub fn validate_tolerations(tolerations: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, toleration) in items(tolerations).iter().enumerate() {
        errors.extend(validate_toleration(toleration, &path.index(index)));
    }
    errors
}

/// Readiness gates and scheduling gates of the spec at `path`.
pub(super) fn validate_gates(spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, gate) in items(&spec["readinessGates"]).iter().enumerate() {
        let at = path.child("readinessGates").index(index).child("conditionType");
        errors.extend(check(text(&gate["conditionType"]), &at, names::is_qualified_name));
    }
    let mut seen = BTreeSet::new();
    for (index, gate) in items(&spec["schedulingGates"]).iter().enumerate() {
        let (name, at) = (text(&gate["name"]), path.child("schedulingGates").index(index));
        errors.extend(check(name, &at, names::is_qualified_name));
        if !seen.insert(name) {
            errors.push(Error::duplicate(&at, name));
        }
    }
    errors
}

/// Upstream's `validateTopologySpreadConstraints`.
pub(super) fn validate_topology_spread(constraints: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let all = items(constraints);
    for (index, constraint) in all.iter().enumerate() {
        let path = path.index(index);
        let (key, action) = (text(&constraint["topologyKey"]), text(&constraint["whenUnsatisfiable"]));
        errors.extend(positive(&constraint["maxSkew"], &path.child("maxSkew")));
        if key.is_empty() {
            errors.push(Error::required(&path.child("topologyKey"), "can not be empty"));
        }
        if !matches!(action, "DoNotSchedule" | "ScheduleAnyway") {
            let at = path.child("whenUnsatisfiable");
            errors.push(Error::not_supported(&at, action, &["DoNotSchedule", "ScheduleAnyway"]));
        }
        let same = |other: &Value| text(&other["topologyKey"]) == key && text(&other["whenUnsatisfiable"]) == action;
        if all[index + 1..].iter().any(same) {
            let at = path.child("{topologyKey, whenUnsatisfiable}");
            errors.push(Error::duplicate(&at, format!("{{{key}, {action}}}")));
        }
        if let Some(domains) = constraint["minDomains"].as_i64() {
            let at = path.child("minDomains");
            errors.extend(positive(&constraint["minDomains"], &at));
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(Error::invalid(&at, domains, detail));
            }
        }
        for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            errors.extend(one_of_optional(&constraint[field], &["Honor", "Ignore"], &path.child(field)));
        }
        errors.extend(validate_label_keys(constraint, &path));
        errors.extend(validate_label_selector(&constraint["labelSelector"], &path.child("labelSelector")));
    }
    errors
}

fn positive(value: &Value, path: &Path) -> Option<Error> {
    let number = integer(value);
    (number <= 0).then(|| Error::invalid(path, number, "must be greater than zero"))
}

fn validate_toleration(toleration: &Value, path: &Path) -> ErrorList {
    let field = |name: &str| text(&toleration[name]);
    let (key, operator, value, effect) = (field("key"), field("operator"), field("value"), field("effect"));
    let (operator_path, effect_path) = (path.child("operator"), path.child("effect"));
    let mut errors = ErrorList::new();
    if !key.is_empty() {
        errors.extend(validate_label_key(key, &path.child("key")));
    }
    if key.is_empty() && operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(Error::invalid(&operator_path, operator, detail));
    }
    if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(Error::invalid(&effect_path, effect, detail));
    }
    match operator {
        "" | "Equal" => {
            let messages = names::is_label_value(value);
            if !messages.is_empty() {
                errors.push(Error::invalid(&operator_path, value, messages.join(";")));
            }
        }
        "Exists" if !value.is_empty() => {
            errors.push(Error::invalid(&operator_path, value, "value must be empty when `operator` is 'Exists'"));
        }
        "Exists" => {}
        "Lt" | "Gt" => errors.push(Error::not_supported(&operator_path, operator, &["Equal", "Exists", "Lt", "Gt"])),
        _ => errors.push(Error::not_supported(&operator_path, operator, &["Equal", "Exists"])),
    }
    if !effect.is_empty() {
        let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        errors.extend(one_of_optional(&toleration["effect"], &effects, &effect_path));
    }
    errors
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn validate_node_affinity(affinity: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if !affinity[REQUIRED].is_null() {
        errors.extend(validate_node_selector(&affinity[REQUIRED], &path.child(REQUIRED)));
    }
    for (index, term) in items(&affinity[PREFERRED]).iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        errors.extend(validate_weight(term, &path));
        // Upstream lets any value into a mere preference.
        errors.extend(validate_node_term(&term["preference"], false, &path.child("preference")));
    }
    errors
}

fn validate_pod_affinity(affinity: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, term) in items(&affinity[REQUIRED]).iter().enumerate() {
        errors.extend(validate_pod_term(term, &path.child(REQUIRED).index(index)));
    }
    for (index, weighted) in items(&affinity[PREFERRED]).iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        errors.extend(validate_weight(weighted, &path));
        errors.extend(validate_pod_term(&weighted["podAffinityTerm"], &path.child("podAffinityTerm")));
    }
    errors
}

fn validate_weight(weighted: &Value, path: &Path) -> Option<Error> {
    let weight = integer(&weighted["weight"]);
    (!(1..=100).contains(&weight)).then(|| Error::invalid(&path.child("weight"), weight, "must be in the range 1-100"))
}

fn validate_pod_term(term: &Value, path: &Path) -> ErrorList {
    let mut errors = validate_label_selector(&term["labelSelector"], &path.child("labelSelector"));
    errors.extend(validate_label_selector(&term["namespaceSelector"], &path.child("namespaceSelector")));
    for namespace in items(&term["namespaces"]).iter().map(text) {
        errors.extend(check(namespace, &path.child("namespace"), names::is_dns1123_label));
    }
    errors.extend(validate_label_keys(term, path));
    let (key, at) = (text(&term["topologyKey"]), path.child("topologyKey"));
    if key.is_empty() {
        errors.push(Error::required(&at, "can not be empty"));
    }
    errors.extend(validate_label_key(key, &at));
    errors
}

/// Upstream's `ValidateMatchLabelKeysAndMismatchLabelKeys`. The selector already holds what the server made from `matchLabelKeys`, so a key
/// that the author put there as well is in it twice.
fn validate_label_keys(term: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let selector = &term["labelSelector"];
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let at = path.child(field);
        if length(&term[field]) == 0 {
            continue;
        }
        if selector.is_null() {
            errors.push(Error::forbidden(&at, "must not be specified when labelSelector is not set"));
            continue;
        }
        for (index, key) in items(&term[field]).iter().map(text).enumerate() {
            errors.extend(validate_label_key(key, &at.index(index)));
        }
    }
    let matching: Vec<&str> = items(&term["matchLabelKeys"]).iter().map(text).collect();
    let mut seen: BTreeSet<&str> = entries(&selector["matchLabels"]).map(|(key, _)| key).collect();
    for key in items(&selector["matchExpressions"]).iter().map(|expression| text(&expression["key"])) {
        let position = matching.iter().rposition(|matched| *matched == key);
        if let Some(index) = position.filter(|_| seen.contains(key)) {
            let detail = "exists in both matchLabelKeys and labelSelector";
            errors.push(Error::invalid(&path.index(index), key, detail));
        }
        seen.insert(key);
    }
    let mismatching: BTreeSet<&str> = items(&term["mismatchLabelKeys"]).iter().map(text).collect();
    for (index, key) in matching.into_iter().enumerate().filter(|(_, key)| mismatching.contains(key)) {
        let at = path.child("matchLabelKeys").index(index);
        errors.push(Error::invalid(&at, key, "exists in both matchLabelKeys and mismatchLabelKeys"));
    }
    errors
}

fn validate_node_term(term: &Value, check_values: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, requirement) in items(&term["matchExpressions"]).iter().enumerate() {
        let at = path.child("matchExpressions").index(index);
        errors.extend(validate_node_requirement(requirement, check_values, &at));
    }
    for (index, requirement) in items(&term["matchFields"]).iter().enumerate() {
        errors.extend(validate_node_field(requirement, &path.child("matchFields").index(index)));
    }
    errors
}

fn validate_node_requirement(requirement: &Value, check_values: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (operator, values, at) = (text(&requirement["operator"]), items(&requirement["values"]), path.child("values"));
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(Error::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Error::forbidden(&at, detail));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.push(Error::required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'"));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        _ => errors.push(Error::invalid(&path.child("operator"), operator, "not a valid selector operator")),
    }
    errors.extend(validate_label_key(text(&requirement["key"]), &path.child("key")));
    if check_values {
        for (index, value) in values.iter().map(text).enumerate() {
            errors.extend(check(value, &at.index(index), names::is_label_value));
        }
    }
    errors
}

fn validate_node_field(requirement: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (operator, values) = (text(&requirement["operator"]), items(&requirement["values"]));
    match operator {
        "In" | "NotIn" if values.len() != 1 => {
            let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
            errors.push(Error::required(&path.child("values"), detail));
        }
        "In" | "NotIn" => {}
        _ => errors.push(Error::invalid(&path.child("operator"), operator, "not a valid selector operator")),
    }
    let key = text(&requirement["key"]);
    if key != "metadata.name" {
        errors.push(Error::invalid(&path.child("key"), key, "not a valid field selector key"));
        return errors;
    }
    for (index, value) in values.iter().map(text).enumerate() {
        errors.extend(check(value, &path.child("values").index(index), names::is_dns1123_subdomain));
    }
    errors
}
