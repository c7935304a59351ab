//! Rules for `metav1.LabelSelector` (k8s.io/apimachinery/pkg/apis/meta/v1/validation).

use serde_json::Value;

use super::validate::{validate_label_key, validate_labels};
use crate::field::{Error, ErrorList, Path};
use crate::names;

/// Upstream's `ValidateLabelSelector`; an absent selector (`null`) is valid.
#[must_use]
pub fn validate_label_selector(selector: &Value, path: &Path) -> ErrorList {
    let mut errors = validate_labels(&selector["matchLabels"], &path.child("matchLabels"));
    let expressions = selector["matchExpressions"].as_array().map_or(&[][..], Vec::as_slice);
    let at = path.child("matchExpressions");
    for (index, requirement) in expressions.iter().enumerate() {
        errors.extend(validate_label_selector_requirement(requirement, &at.index(index)));
    }
    errors
}

/// Upstream's `ValidateLabelSelectorRequirement`.
#[must_use]
pub fn validate_label_selector_requirement(requirement: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let values = requirement["values"].as_array().map_or(&[][..], Vec::as_slice);
    let operator = requirement["operator"].as_str().unwrap_or_default();
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(Error::required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Error::forbidden(&path.child("values"), detail));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => errors.push(Error::invalid(&path.child("operator"), operator, "not a valid selector operator")),
    }
    errors.extend(validate_label_key(requirement["key"].as_str().unwrap_or_default(), &path.child("key")));
    for (index, value) in values.iter().filter_map(Value::as_str).enumerate() {
        let at = path.child("values").index(index);
        errors.extend(names::is_label_value(value).into_iter().map(|message| Error::invalid(&at, value, message)));
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn messages(selector: &Value) -> Vec<String> {
        validate_label_selector(selector, &Path::new("spec.selector")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_selector_is_checked_in_every_part() {
        assert!(messages(&Value::Null).is_empty());
        assert!(
            messages(&json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}))
                .is_empty()
        );
        assert_eq!(
            messages(&json!({"matchExpressions": [{"key": "a", "operator": "In"}]})),
            [
                "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
            ]
        );
        assert_eq!(
            messages(&json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]})),
            [
                "spec.selector.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            ]
        );
        assert_eq!(
            messages(&json!({"matchExpressions": [{"key": "a", "operator": "Like"}]})),
            ["spec.selector.matchExpressions[0].operator: Invalid value: \"Like\": not a valid selector operator"]
        );
        assert_eq!(messages(&json!({"matchLabels": {"a": "-"}})).len(), 1);
    }
}
