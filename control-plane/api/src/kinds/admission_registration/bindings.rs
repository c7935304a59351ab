//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding.

use serde_json::Value;

use super::rules::{default_match_resources, validate_match_resources};
use super::{declaration, warnings_of_name};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::tree::{entries, items, text};
use crate::meta::validate_label_selector;
use crate::names::{is_path_segment, name_is_dns_subdomain};

/// `admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding`
#[must_use]
pub fn validating_admission_policy_binding() -> Kind {
    Kind {
        columns: columns(),
        ..declaration(
            "ValidatingAdmissionPolicyBinding",
            "validatingadmissionpolicybindings",
            "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
            Binding { mutating: false },
        )
    }
}

/// `admissionregistration.k8s.io/v1 MutatingAdmissionPolicyBinding`
#[must_use]
pub fn mutating_admission_policy_binding() -> Kind {
    Kind {
        columns: columns(),
        ..declaration(
            "MutatingAdmissionPolicyBinding",
            "mutatingadmissionpolicybindings",
            "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
            Binding { mutating: true },
        )
    }
}

fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::new("PolicyName", "string", "The policy that is put to use."),
        Column::new("ParamRef", "string", "The parameters that the policy gets."),
        Column::age(),
    ]
}

const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];

struct Binding {
    mutating: bool,
}

impl Strategy for Binding {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) {
            default_match_resources(spec, "matchResources");
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let spec = &object["spec"];
        let path = Path::new("spec");
        let mut errors = ErrorList::new();
        let policy = text(&spec["policyName"]);
        let at = path.child("policyName");
        if policy.is_empty() {
            errors.push(Error::required(&at, ""));
        } else {
            errors.extend(name_is_dns_subdomain(policy, false).into_iter().map(|why| Error::invalid(&at, policy, why)));
        }
        if !spec["paramRef"].is_null() {
            errors.extend(validate_param_ref(&spec["paramRef"], &path.child("paramRef")));
        }
        if !spec["matchResources"].is_null() {
            errors.extend(validate_match_resources(&spec["matchResources"], &path.child("matchResources")));
        }
        if !self.mutating {
            errors.extend(validate_actions(&spec["validationActions"], &path.child("validationActions")));
        }
        errors
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings_of_name(object)
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let spec = &object["spec"];
        vec![
            name_cell(object),
            text(&spec["policyName"]).into(),
            param_cell(&spec["paramRef"]).into(),
            age_cell(object, now),
        ]
    }
}

fn validate_param_ref(reference: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let name = text(&reference["name"]);
    let has_selector = !reference["selector"].is_null();
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    if !name.is_empty() {
        let at = path.child("name");
        errors.extend(is_path_segment(name, false).into_iter().map(|why| Error::invalid(&at, name, why)));
        if has_selector {
            errors.push(Error::forbidden(&at, EXCLUSIVE));
        }
    }
    if has_selector {
        let at = path.child("selector");
        errors.extend(validate_label_selector(&reference["selector"], &at));
        if !name.is_empty() {
            errors.push(Error::forbidden(&at, EXCLUSIVE));
        }
    }
    if name.is_empty() && !has_selector {
        errors.push(Error::required(path, "one of name or selector must be specified"));
    }
    let at = path.child("parameterNotFoundAction");
    match text(&reference["parameterNotFoundAction"]) {
        "" => errors.push(Error::required(&at, "")),
        "Deny" | "Allow" => {}
        other => errors.push(Error::not_supported(&at, other, &["Deny", "Allow"])),
    }
    errors
}

fn validate_actions(actions: &Value, path: &Path) -> ErrorList {
    let list: Vec<&str> = items(actions).iter().map(text).collect();
    let mut errors = ErrorList::new();
    for (index, action) in list.iter().enumerate() {
        let at = path.index(index);
        if !ACTIONS.contains(action) {
            errors.push(Error::not_supported(&at, *action, ACTIONS));
        }
        if list[..index].contains(action) {
            errors.push(Error::duplicate(&at, *action));
        }
    }
    if list.contains(&"Deny") && list.contains(&"Warn") {
        let message = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(Error::invalid(path, actions.clone(), message));
    }
    if list.is_empty() {
        errors.push(Error::required(path, "at least one validation action is required"));
    }
    errors
}

fn param_cell(reference: &Value) -> String {
    let name = text(&reference["name"]);
    if !name.is_empty() {
        let namespace = text(&reference["namespace"]);
        return format!("{}/{name}", if namespace.is_empty() { "*" } else { namespace });
    }
    if reference["selector"].is_null() { "<unset>".to_owned() } else { selector_as_go(&reference["selector"]) }
}

/// A label selector as Go's generated `String` prints it.
fn selector_as_go(selector: &Value) -> String {
    let labels: String =
        entries(&selector["matchLabels"]).map(|(key, value)| format!("{key}: {},", text(value))).collect();
    let requirements: String = items(&selector["matchExpressions"])
        .iter()
        .map(|requirement| {
            let values: Vec<&str> = items(&requirement["values"]).iter().map(text).collect();
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{}],}},",
                text(&requirement["key"]),
                text(&requirement["operator"]),
                values.join(" ")
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};
    use serde_json::json;

    fn base() -> Value {
        json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}})
    }

    #[test]
    fn rules_are_checked() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (
                json!({"spec": {"policyName": "", "validationActions": []}}),
                vec![
                    "spec.policyName: Required value",
                    "spec.validationActions: Required value: at least one validation action is required",
                ],
            ),
            (
                json!({"spec": {"validationActions": ["Deny", "Warn", "Deny"]}}),
                vec![
                    "spec.validationActions[2]: Duplicate value: \"Deny\"",
                    "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Deny\"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)",
                ],
            ),
            (
                json!({"spec": {"paramRef": {"name": "a", "selector": {}, "parameterNotFoundAction": "Allow"}}}),
                vec![
                    "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                    "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                ],
            ),
            (
                json!({"spec": {"paramRef": {}}}),
                vec![
                    "spec.paramRef: Required value: one of name or selector must be specified",
                    "spec.paramRef.parameterNotFoundAction: Required value",
                ],
            ),
        ] {
            let object = mutated(&base(), &mutation);
            assert_eq!(messages(&validating_admission_policy_binding().strategy.validate_create(&object)), expected);
        }
    }

    #[test]
    fn a_row_shows_where_the_parameters_come_from() {
        let row = |reference: Value| {
            let object = mutated(&base(), &json!({"spec": {"paramRef": reference}}));
            validating_admission_policy_binding().strategy.row(&object, NOW)[2].clone()
        };
        assert_eq!(row(Value::Null), "<unset>");
        assert_eq!(row(json!({"name": "a"})), "*/a");
        assert_eq!(row(json!({"name": "a", "namespace": "n"})), "n/a");
        assert_eq!(
            row(json!({"selector": {"matchLabels": {"a": "b"}}})),
            "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{},}"
        );
    }
}
