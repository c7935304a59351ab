//! What the workloads share: a selector that fits the template of their pods, and counts that are numbers or percentages.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::kinds::core::pod::{template_warnings, validate_pod_template};
use crate::kinds::tree::{length, semantically_equal, text};
use crate::meta::{name, validate_label_selector};
use crate::names::is_dns1123_label;
use crate::selector::LabelSelector;

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

/// `validateNonnegativeField`
pub(in crate::kinds) fn not_negative(spec: &Value, field: &str) -> ErrorList {
    let count = spec[field].as_i64().filter(|count| *count < 0);
    count.map(|count| Error::invalid(&Path::new("spec").child(field), count, NOT_NEGATIVE)).into_iter().collect()
}

/// A selector is there, is well formed, and selects the template's pods; the template is one that can run for good.
/// `kind` is the word in the message about an empty selector.
pub(in crate::kinds) fn validate_selector_and_template(spec: &Value, kind: &str) -> ErrorList {
    let path = Path::new("spec");
    let selector = &spec["selector"];
    let mut errors = ErrorList::new();
    if selector.is_null() {
        errors.push(Error::required(&path.child("selector"), ""));
    } else {
        errors.extend(validate_label_selector(selector, &path.child("selector")));
        if is_empty_selector(selector) {
            let message = format!("empty selector is invalid for {kind}");
            errors.push(Error::invalid(&path.child("selector"), selector.clone(), message));
        }
    }
    match LabelSelector::from_object(selector) {
        Err(_) => errors.push(Error::invalid(&path.child("selector"), selector.clone(), "invalid label selector")),
        Ok(parsed) => errors.extend(validate_template(spec, &parsed, &path.child("template"))),
    }
    errors
}

/// Whether a selector is there and says nothing.
pub(in crate::kinds) fn is_empty_selector(selector: &Value) -> bool {
    ["matchLabels", "matchExpressions"].iter().all(|field| length(&selector[*field]) == 0)
}

/// The pods of a workload run for good: they are always restarted, and have no deadline. `kind` is the word in the message.
pub(in crate::kinds) fn validate_endless(template: &Value, kind: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let policy = text(&template["spec"]["restartPolicy"]);
    if policy != "Always" {
        errors.push(Error::not_supported(&path.child("spec").child("restartPolicy"), policy, &["Always"]));
    }
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let message = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(Error::forbidden(&path.child("spec").child("activeDeadlineSeconds"), message));
    }
    errors
}

/// The counts of a status are none that is below zero.
pub(in crate::kinds) fn counts_not_negative(status: &Value, fields: &[&str]) -> ErrorList {
    let path = Path::new("status");
    let negative = fields.iter().filter_map(|field| {
        let count = status[*field].as_i64().filter(|count| *count < 0)?;
        Some(Error::invalid(&path.child(field), count, NOT_NEGATIVE))
    });
    negative.collect()
}

/// `IsDecremented` of `status.collisionCount`
pub(in crate::kinds) fn collisions_only_grow(object: &Value, old: &Value) -> ErrorList {
    let [new, old] = [object, old].map(|object| object["status"]["collisionCount"].as_i64());
    match (new, old) {
        (new, Some(old)) if new.is_none_or(|new| new < old) => {
            let path = Path::new("status").child("collisionCount");
            vec![Error::invalid(&path, new.unwrap_or(0), "cannot be decremented")]
        }
        _ => ErrorList::new(),
    }
}

/// `ValidatePodTemplateSpecForReplicaSet`
fn validate_template(spec: &Value, selector: &LabelSelector, path: &Path) -> ErrorList {
    let template = &spec["template"];
    let mut errors = ErrorList::new();
    let labels = &template["metadata"]["labels"];
    // An absent selector selects nothing, an empty one everything.
    if !selector.is_everything() && !selector.matches_object(labels) {
        let shown = if labels.is_object() { labels.clone() } else { json!(null) };
        let message = "`selector` does not match template `labels`";
        errors.push(Error::invalid(&path.child("metadata").child("labels"), shown, message));
    }
    errors.extend(validate_pod_template(template, path));
    errors.extend(validate_endless(template, "ReplicaSet", path));
    errors
}

/// The selector of a workload is for good.
pub(in crate::kinds) fn immutable_selector(object: &Value, old: &Value) -> ErrorList {
    let (new, old) = (&object["spec"]["selector"], &old["spec"]["selector"]);
    if semantically_equal(new, old) {
        return ErrorList::new();
    }
    vec![Error::invalid(&Path::new("spec").child("selector"), new.clone(), "field is immutable")]
}

/// What a client should know of the name of a new workload, and of a template that is new or changed.
pub(in crate::kinds) fn warnings(object: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    let messages = old.map_or_else(|| is_dns1123_label(name(object)), |_| Vec::new());
    if !messages.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [{}]",
            messages.join(" ")
        ));
    }
    if old.is_none_or(|old| object["metadata"]["generation"] != old["metadata"]["generation"]) {
        warnings.extend(template_warnings(&object["spec"]["template"], &Path::new("spec").child("template")));
    }
    warnings
}

/// `ValidatePositiveIntOrPercent`
pub(in crate::kinds) fn int_or_percent(value: &Value, path: &Path) -> ErrorList {
    match value {
        Value::String(percent) => {
            let digits = percent.strip_suffix('%').filter(|digits| !digits.is_empty());
            if digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())) {
                return ErrorList::new();
            }
            let message = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
            vec![Error::invalid(path, percent.as_str(), message)]
        }
        Value::Number(number) => match number.as_i64().filter(|count| *count < 0) {
            Some(count) => vec![Error::invalid(path, count, NOT_NEGATIVE)],
            None => ErrorList::new(),
        },
        _ => ErrorList::new(),
    }
}

/// `IsNotMoreThan100Percent`
pub(in crate::kinds) fn at_most_all(value: &Value, path: &Path) -> ErrorList {
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')).and_then(|digits| digits.parse::<u64>().ok());
    if percent.is_some_and(|percent| percent > 100) {
        return vec![Error::invalid(path, value.clone(), "must not be greater than 100%")];
    }
    ErrorList::new()
}

/// Whether a count or percentage is none at all (`getIntOrPercentValue`).
pub(in crate::kinds) fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.strip_suffix('%').is_some_and(|digits| digits.parse() == Ok(0)),
        other => other.as_i64().unwrap_or(0) == 0,
    }
}
