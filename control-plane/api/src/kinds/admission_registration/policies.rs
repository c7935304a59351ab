//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy.

use serde_json::Value;

use super::rules::{
    FAILURE_POLICIES, REINVOCATION_POLICIES, default_match_resources, required_one_of, validate_match_conditions,
    validate_match_resources,
};
use super::{declaration, warnings_of_name};
use crate::cel::Expected;
use crate::cel::admission::{self, Scope};
use crate::field::{Error, ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::declaration::{Column, Kind, Strategy, Subresource, WriteContext};
use crate::kinds::tree::{fill, items, length, remove, semantically_equal, text};
use crate::meta::validate_qualified_name;
use crate::names::{is_dns1035_label, is_dns1123_subdomain};

/// `admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy`
#[must_use]
pub fn validating_admission_policy() -> Kind {
    Kind {
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::new("Validations", "integer", "How many rules the policy has."),
            Column::new("ParamKind", "string", "The kind of the policy's parameters."),
            Column::age(),
        ],
        ..declaration(
            "ValidatingAdmissionPolicy",
            "validatingadmissionpolicies",
            "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
            Policy { mutating: false },
        )
    }
}

/// `admissionregistration.k8s.io/v1 MutatingAdmissionPolicy`
#[must_use]
pub fn mutating_admission_policy() -> Kind {
    Kind {
        columns: vec![
            Column::name(),
            Column::new("Mutations", "integer", "How many changes the policy makes."),
            Column::new("ParamKind", "string", "The kind of the policy's parameters."),
            Column::age(),
        ],
        ..declaration(
            "MutatingAdmissionPolicy",
            "mutatingadmissionpolicies",
            "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
            Policy { mutating: true },
        )
    }
}

const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];
const PATCH_TYPES: &[&str] = &["ApplyConfiguration", "JSONPatch"];
const AUDIT_ANNOTATIONS: usize = 20;
/// Bytes of an expression that makes the value of an audit annotation.
const AUDIT_EXPRESSION: usize = 5 * 1024;

struct Policy {
    mutating: bool,
}

impl Strategy for Policy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
        fill(spec, "failurePolicy", "Fail");
        default_match_resources(spec, "matchConstraints");
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        if !self.mutating {
            remove(object, "status");
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        self.validate(object, None)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        self.validate(object, Some(old))
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let path = Path::new("status").child("typeChecking").child("expressionWarnings");
        for (index, warning) in items(&object["status"]["typeChecking"]["expressionWarnings"]).iter().enumerate() {
            for field in ["warning", "fieldRef"] {
                if text(&warning[field]).trim().is_empty() {
                    errors.push(Error::required(&path.index(index).child(field), ""));
                }
            }
        }
        errors
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings_of_name(object)
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let spec = &object["spec"];
        let param = match &spec["paramKind"] {
            Value::Null => "<unset>".to_owned(),
            kind => format!("{}/{}", text(&kind["apiVersion"]), text(&kind["kind"])),
        };
        let rules = length(&spec[if self.mutating { "mutations" } else { "validations" }]);
        vec![name_cell(object), rules.into(), param.into(), age_cell(object, now)]
    }
}

/// How expressions of one policy are checked: those that were stored before stay accepted.
struct Expressions<'a> {
    params: bool,
    variables: Vec<String>,
    old: Option<&'a Value>,
}

impl Expressions<'_> {
    fn check(&self, expression: &str, authorizer: bool, expected: Expected, path: &Path) -> ErrorList {
        if self.old.is_some_and(|old| holds(old, expression)) {
            return ErrorList::new();
        }
        let scope = Scope { params: self.params, authorizer, variables: &self.variables };
        admission::validate(expression, &scope, expected, path)
    }
}

/// Whether a tree holds a text.
fn holds(tree: &Value, wanted: &str) -> bool {
    match tree {
        Value::String(text) => text == wanted || text.trim() == wanted,
        Value::Array(items) => items.iter().any(|item| holds(item, wanted)),
        Value::Object(entries) => entries.values().any(|value| holds(value, wanted)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

impl Policy {
    fn validate(&self, object: &Value, old: Option<&Value>) -> ErrorList {
        let spec = &object["spec"];
        let path = Path::new("spec");
        let has_params = !spec["paramKind"].is_null();
        let mut errors = required_one_of(&spec["failurePolicy"], FAILURE_POLICIES, &path.child("failurePolicy"));
        if has_params {
            errors.extend(validate_param_kind(&spec["paramKind"], &path.child("paramKind")));
        }
        errors.extend(self.validate_constraints(&spec["matchConstraints"], &path.child("matchConstraints")));
        let mut expressions =
            Expressions { params: has_params, variables: Vec::new(), old: old.map(|old| &old["spec"]) };
        let same = old.is_some_and(|old| {
            semantically_equal(&old["spec"]["paramKind"], &spec["paramKind"])
                && semantically_equal(&old["spec"]["matchConditions"], &spec["matchConditions"])
        });
        if !same {
            let check = |expression: &str, at: &Path| expressions.check(expression, true, Expected::Bool, at);
            errors.extend(validate_match_conditions(&spec["matchConditions"], &path.child("matchConditions"), &check));
        }
        for (index, variable) in items(&spec["variables"]).iter().enumerate() {
            errors.extend(validate_variable(variable, &expressions, &path.child("variables").index(index)));
            expressions.variables.push(text(&variable["name"]).to_owned());
        }
        if self.mutating {
            errors.extend(validate_mutations(spec, &expressions, &path));
        } else {
            errors.extend(validate_judgements(object, &expressions, &path));
        }
        errors
    }

    fn validate_constraints(&self, constraints: &Value, path: &Path) -> ErrorList {
        if constraints.is_null() {
            return vec![Error::required(path, "")];
        }
        let mut errors = validate_match_resources(constraints, path);
        let rules = items(&constraints["resourceRules"]);
        if rules.is_empty() {
            errors.push(Error::required(&path.child("resourceRules"), ""));
        }
        if self.mutating {
            const SUPPORTED: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
            let at = path.child("resourceRules").child("operations");
            let operations = rules.iter().flat_map(|rule| items(&rule["operations"])).map(text);
            let wrong = operations.filter(|operation| !SUPPORTED.contains(operation));
            errors.extend(wrong.map(|operation| Error::not_supported(&at, operation, SUPPORTED)));
        }
        errors
    }
}

fn validate_param_kind(kind: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = path.child("apiVersion");
    let api_version = text(&kind["apiVersion"]);
    if api_version.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if let Some(GroupVersion { group, version }) = GroupVersion::parse(api_version) {
        let wrong = if group.is_empty() { Vec::new() } else { is_dns1123_subdomain(&group) };
        if !wrong.is_empty() {
            errors.push(Error::invalid(&at, &*group, wrong.join(",")));
        }
        if version.is_empty() {
            errors.push(Error::invalid(&at, api_version, "version must be specified"));
        } else {
            let wrong = is_dns1035_label(&version);
            if !wrong.is_empty() {
                errors.push(Error::invalid(&at, &*version, wrong.join(",")));
            }
        }
    } else {
        errors.push(Error::invalid(&at, api_version, format!("unexpected GroupVersion string: {api_version}")));
    }
    let at = path.child("kind");
    let name = text(&kind["kind"]);
    let wrong = is_dns1035_label(&name.to_lowercase());
    if name.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if !wrong.is_empty() {
        let message = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.push(Error::invalid(&at, name, message));
    }
    errors
}

fn validate_variable(variable: &Value, expressions: &Expressions<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let name = text(&variable["name"]);
    if name.trim().is_empty() {
        errors.push(Error::required(&path.child("name"), "name is not specified"));
    } else if !is_cel_identifier(name) {
        errors.push(Error::invalid(&path.child("name"), name, "must be a valid CEL identifier"));
    }
    let expression = text(&variable["expression"]);
    let at = path.child("expression");
    if expression.trim().is_empty() {
        errors.push(Error::required(&at, "expression is not specified"));
    } else {
        errors.extend(expressions.check(expression, true, Expected::Any, &at));
    }
    errors
}

fn is_cel_identifier(name: &str) -> bool {
    const RESERVED: &[&str] = &[
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
        && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
        && !RESERVED.contains(&name)
}

/// The validations and audit annotations of a validating policy.
fn validate_judgements(object: &Value, expressions: &Expressions<'_>, path: &Path) -> ErrorList {
    let spec = &object["spec"];
    let (validations, annotations) = (items(&spec["validations"]), items(&spec["auditAnnotations"]));
    let mut errors = ErrorList::new();
    if validations.is_empty() && annotations.is_empty() {
        let message = "validations or auditAnnotations must contain at least one item";
        errors.push(Error::required(&path.child("validations"), message));
        errors.push(Error::required(&path.child("auditAnnotations"), message));
        return errors;
    }
    for (index, validation) in validations.iter().enumerate() {
        errors.extend(validate_validation(validation, expressions, &path.child("validations").index(index)));
    }
    let at = path.child("auditAnnotations");
    if annotations.len() > AUDIT_ANNOTATIONS {
        let message = format!("must not have more than {AUDIT_ANNOTATIONS} auditAnnotations");
        errors.push(Error::invalid(&at, spec["auditAnnotations"].clone(), message));
    }
    let policy = text(&object["metadata"]["name"]);
    for (index, annotation) in annotations.iter().enumerate() {
        errors.extend(validate_audit_annotation(annotation, policy, expressions, &at.index(index)));
        let key = text(&annotation["key"]);
        if annotations[..index].iter().any(|other| text(&other["key"]) == key) {
            errors.push(Error::duplicate(&at.index(index).child("key"), key));
        }
    }
    errors
}

fn validate_validation(validation: &Value, expressions: &Expressions<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let expression = text(&validation["expression"]);
    let at = path.child("expression");
    if expression.trim().is_empty() {
        errors.push(Error::required(&at, "expression is not specified"));
    } else {
        errors.extend(expressions.check(expression, true, Expected::Bool, &at));
    }
    let message_expression = text(&validation["messageExpression"]);
    let at = path.child("messageExpression");
    if !message_expression.is_empty() && message_expression.trim().is_empty() {
        errors.push(Error::invalid(&at, message_expression, "must be non-empty if specified"));
    } else if !message_expression.is_empty() {
        errors.extend(expressions.check(message_expression, false, Expected::String, &at));
    }
    let message = text(&validation["message"]);
    let at = path.child("message");
    if !message.is_empty() && message.trim().is_empty() {
        errors.push(Error::invalid(&at, message, "must be non-empty if specified"));
    } else if message.trim().contains(['\n', '\r']) {
        errors.push(Error::invalid(&at, message, "must not contain line breaks"));
    }
    if let Some(reason) = validation["reason"].as_str().filter(|reason| !REASONS.contains(reason)) {
        errors.push(Error::not_supported(&path.child("reason"), reason, REASONS));
    }
    errors
}

fn validate_audit_annotation(
    annotation: &Value,
    policy: &str,
    expressions: &Expressions<'_>,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let key = text(&annotation["key"]);
    if policy.is_empty() {
        errors.push(Error::invalid(&path.child("key"), key, "requires metadata.name be non-empty"));
    } else {
        errors.extend(validate_qualified_name(&format!("{policy}/{key}"), &path.child("key")));
    }
    let expression = text(&annotation["valueExpression"]).trim();
    let at = path.child("valueExpression");
    if expression.is_empty() {
        errors.push(Error::required(&at, "valueExpression is not specified"));
    } else if expression.len() > AUDIT_EXPRESSION {
        errors.push(Error::required(&at, format!("must not exceed {AUDIT_EXPRESSION} bytes in length")));
    } else {
        errors.extend(expressions.check(expression, true, Expected::StringOrNull, &at));
    }
    errors
}

fn validate_mutations(spec: &Value, expressions: &Expressions<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mutations = items(&spec["mutations"]);
    if mutations.is_empty() {
        errors.push(Error::required(&path.child("mutations"), "mutations must contain at least one item"));
    }
    for (index, mutation) in mutations.iter().enumerate() {
        errors.extend(validate_mutation(mutation, expressions, &path.child("mutations").index(index)));
    }
    let at = path.child("reinvocationPolicy");
    match text(&spec["reinvocationPolicy"]) {
        "" => errors.push(Error::required(&at, "")),
        policy if !REINVOCATION_POLICIES.contains(&policy) => {
            errors.push(Error::not_supported(&at, policy, REINVOCATION_POLICIES));
        }
        _ => {}
    }
    errors
}

fn validate_mutation(mutation: &Value, expressions: &Expressions<'_>, path: &Path) -> ErrorList {
    let (own, other, type_) = match text(&mutation["patchType"]) {
        "" => return vec![Error::required(&path.child("patchType"), "")],
        "JSONPatch" => ("jsonPatch", "applyConfiguration", "JSONPatch"),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", "ApplyConfiguration"),
        unknown => return vec![Error::not_supported(&path.child("patchType"), unknown, PATCH_TYPES)],
    };
    let mut errors = ErrorList::new();
    let at = path.child(own).child("expression");
    let expression = text(&mutation[own]["expression"]).trim();
    if mutation[own].is_null() {
        let message = format!("must be specified when patchType is {type_}");
        errors.push(Error::required(&path.child(own), message));
    } else if expression.is_empty() {
        errors.push(Error::required(&at, ""));
    } else {
        errors.extend(expressions.check(expression, true, Expected::Any, &at));
    }
    if !mutation[other].is_null() {
        let message = format!("must not be specified when patchType is {type_}");
        errors.push(Error::invalid(&path.child(other), format!("{{{other}}}"), message));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};
    use serde_json::json;

    fn base() -> Value {
        let mut object = json!({
            "metadata": {"name": "p.example.com"},
            "spec": {
                "matchConstraints": {"resourceRules": [
                    {"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]},
                ]},
                "variables": [{"name": "replicas", "expression": "object.spec.replicas"}],
                "validations": [{"expression": "variables.replicas > 1", "messageExpression": "'wants ' + string(variables.replicas)"}],
            },
        });
        validating_admission_policy().strategy.default(&mut object);
        object
    }

    #[test]
    fn a_policys_defaults_are_upstreams() {
        let spec = &base()["spec"];
        assert_eq!(spec["failurePolicy"], "Fail");
        assert_eq!(spec["matchConstraints"]["matchPolicy"], "Equivalent");
        assert_eq!(spec["matchConstraints"]["resourceRules"][0]["scope"], "*");
    }

    #[test]
    fn rules_are_checked() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (
                json!({"spec": {"validations": null}}),
                vec![
                    "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                    "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
                ],
            ),
            (json!({"spec": {"matchConstraints": null}}), vec!["spec.matchConstraints: Required value"]),
            (
                json!({"spec": {"variables": [{"name": "for", "expression": ""}], "validations": [{"expression": "true"}]}}),
                vec![
                    "spec.variables[0].name: Invalid value: \"for\": must be a valid CEL identifier",
                    "spec.variables[0].expression: Required value: expression is not specified",
                ],
            ),
            (
                json!({"spec": {"paramKind": {"apiVersion": "v1/", "kind": "A_B"}}}),
                vec![
                    "spec.paramKind.apiVersion: Invalid value: \"v1/\": version must be specified",
                    "spec.paramKind.kind: Invalid value: \"A_B\": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
            (
                json!({"spec": {"validations": [{"expression": "1", "reason": "Unknown"}]}}),
                vec![
                    "spec.validations[0].expression: Invalid value: \"1\": must evaluate to bool but got int",
                    "spec.validations[0].reason: Unsupported value: \"Unknown\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
                ],
            ),
        ] {
            let object = mutated(&base(), &mutation);
            assert_eq!(messages(&validating_admission_policy().strategy.validate_create(&object)), expected);
        }
    }

    #[test]
    fn a_mutation_has_the_form_of_its_type() {
        let object = mutated(
            &base(),
            &json!({"spec": {
                "validations": null, "reinvocationPolicy": "Never",
                "mutations": [
                    {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/a', value: 1}]"}},
                    {"patchType": "ApplyConfiguration", "jsonPatch": {"expression": "[]"}},
                ],
            }}),
        );
        assert_eq!(
            messages(&mutating_admission_policy().strategy.validate_create(&object)),
            [
                "spec.mutations[1].applyConfiguration: Required value: must be specified when patchType is ApplyConfiguration",
                "spec.mutations[1].jsonPatch: Invalid value: \"{jsonPatch}\": must not be specified when patchType is ApplyConfiguration",
            ]
        );
    }

    #[test]
    fn a_row_counts_the_validations() {
        let cells = validating_admission_policy().strategy.row(&base(), NOW);
        assert_eq!(cells[..3], [json!("p.example.com"), json!(1), json!("<unset>")]);
    }
}
