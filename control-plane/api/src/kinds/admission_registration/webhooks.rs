//! MutatingWebhookConfiguration and ValidatingWebhookConfiguration.

use serde_json::{Value, json};

use super::client_config::{validate_webhook_service, validate_webhook_url};
use super::rules::{
    FAILURE_POLICIES, MATCH_POLICIES, REINVOCATION_POLICIES, default_rules, one_of, validate_match_conditions,
    validate_rule,
};
use super::{declaration, warnings_of_name};
use crate::cel::Expected;
use crate::cel::admission::{self, Scope};
use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::tree::{fill, items, items_mut, length, semantically_equal, text};
use crate::meta::validate_label_selector;
use crate::names::{is_dns1035_label, is_dns1123_subdomain};

/// `admissionregistration.k8s.io/v1 MutatingWebhookConfiguration`
#[must_use]
pub fn mutating_webhook_configuration() -> Kind {
    Kind {
        columns: columns(),
        ..declaration(
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
            Webhooks { mutating: true },
        )
    }
}

/// `admissionregistration.k8s.io/v1 ValidatingWebhookConfiguration`
#[must_use]
pub fn validating_webhook_configuration() -> Kind {
    Kind {
        columns: columns(),
        ..declaration(
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
            Webhooks { mutating: false },
        )
    }
}

fn columns() -> Vec<Column> {
    vec![Column::name(), Column::new("Webhooks", "integer", "How many webhooks are configured."), Column::age()]
}

/// The versions of AdmissionReview that are spoken.
const REVIEW_VERSIONS: &[&str] = &["v1", "v1beta1"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun", "Some", "Unknown"];
const NO_SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];

struct Webhooks {
    mutating: bool,
}

/// What an update may keep although a new object may not have it, since the old one had it.
struct Demands<'a> {
    match_conditions: bool,
    no_side_effects: bool,
    known_review_version: bool,
    unique_names: bool,
    old: Option<&'a Value>,
}

impl Strategy for Webhooks {
    fn default(&self, object: &mut Value) {
        for webhook in items_mut(object, "webhooks") {
            fill(webhook, "failurePolicy", "Fail");
            fill(webhook, "matchPolicy", "Equivalent");
            fill(webhook, "namespaceSelector", json!({}));
            fill(webhook, "objectSelector", json!({}));
            fill(webhook, "timeoutSeconds", 10);
            if self.mutating {
                fill(webhook, "reinvocationPolicy", "Never");
            }
            default_rules(webhook, "rules");
            if let Some(service) = webhook.pointer_mut("/clientConfig/service").filter(|service| service.is_object()) {
                fill(service, "port", 443);
            }
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let demands = Demands {
            match_conditions: true,
            no_side_effects: true,
            known_review_version: true,
            unique_names: true,
            old: None,
        };
        self.validate(object, &demands)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let webhooks = items(&old["webhooks"]);
        let same_conditions = length(&object["webhooks"]) == webhooks.len()
            && items(&object["webhooks"])
                .iter()
                .zip(webhooks)
                .all(|(new, old)| semantically_equal(&new["matchConditions"], &old["matchConditions"]));
        let known = |webhook: &Value| {
            let versions = items(&webhook["admissionReviewVersions"]);
            versions.is_empty() || versions.iter().any(|version| REVIEW_VERSIONS.contains(&text(version)))
        };
        let demands = Demands {
            match_conditions: !same_conditions,
            no_side_effects: webhooks.iter().all(|webhook| NO_SIDE_EFFECTS.contains(&text(&webhook["sideEffects"]))),
            known_review_version: webhooks.iter().all(known),
            unique_names: webhooks
                .iter()
                .enumerate()
                .all(|(index, webhook)| !webhooks[..index].iter().any(|other| other["name"] == webhook["name"])),
            old: Some(old),
        };
        self.validate(object, &demands)
    }

    fn warnings(&self, object: &Value, _old: Option<&Value>) -> Vec<String> {
        warnings_of_name(object)
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![name_cell(object), length(&object["webhooks"]).into(), age_cell(object, now)]
    }
}

impl Webhooks {
    fn validate(&self, object: &Value, demands: &Demands<'_>) -> ErrorList {
        let mut errors = ErrorList::new();
        let webhooks = items(&object["webhooks"]);
        for (index, webhook) in webhooks.iter().enumerate() {
            let path = Path::new("webhooks").index(index);
            errors.extend(self.validate_webhook(webhook, demands, &path));
            let versions = &webhook["admissionReviewVersions"];
            let at = path.child("admissionReviewVersions");
            errors.extend(validate_review_versions(versions, demands.known_review_version, &at));
            let name = text(&webhook["name"]);
            let taken = webhooks[..index].iter().any(|other| text(&other["name"]) == name);
            if demands.unique_names && !name.is_empty() && taken {
                errors.push(Error::duplicate(&path.child("name"), name));
            }
        }
        errors
    }

    fn validate_webhook(&self, webhook: &Value, demands: &Demands<'_>, path: &Path) -> ErrorList {
        let mut errors = validate_fully_qualified_name(text(&webhook["name"]), &path.child("name"));
        for (index, rule) in items(&webhook["rules"]).iter().enumerate() {
            errors.extend(validate_rule(rule, &path.child("rules").index(index)));
        }
        errors.extend(one_of(&webhook["failurePolicy"], FAILURE_POLICIES, &path.child("failurePolicy")));
        errors.extend(one_of(&webhook["matchPolicy"], MATCH_POLICIES, &path.child("matchPolicy")));
        let allowed = if demands.no_side_effects { NO_SIDE_EFFECTS } else { SIDE_EFFECTS };
        let at = path.child("sideEffects");
        if webhook["sideEffects"].is_null() {
            errors.push(Error::required(&at, format!("must specify one of {}", allowed.join(", "))));
        }
        errors.extend(one_of(&webhook["sideEffects"], allowed, &at));
        if let Some(seconds) = webhook["timeoutSeconds"].as_i64().filter(|seconds| !(1..=30).contains(seconds)) {
            let message = "the timeout value must be between 1 and 30 seconds";
            errors.push(Error::invalid(&path.child("timeoutSeconds"), seconds, message));
        }
        for field in ["namespaceSelector", "objectSelector"] {
            if !webhook[field].is_null() {
                errors.extend(validate_label_selector(&webhook[field], &path.child(field)));
            }
        }
        if self.mutating {
            let at = path.child("reinvocationPolicy");
            errors.extend(one_of(&webhook["reinvocationPolicy"], REINVOCATION_POLICIES, &at));
        }
        errors.extend(validate_client_config(&webhook["clientConfig"], &path.child("clientConfig")));
        if demands.match_conditions {
            let stored = |expression: &str| {
                let webhooks = demands.old.map_or(&[][..], |old| items(&old["webhooks"]));
                webhooks
                    .iter()
                    .flat_map(|webhook| items(&webhook["matchConditions"]))
                    .any(|condition| text(&condition["expression"]) == expression)
            };
            let check = |expression: &str, at: &Path| {
                if stored(expression) {
                    return ErrorList::new();
                }
                let scope = Scope { params: false, authorizer: true, variables: &[] };
                admission::validate(expression, &scope, Expected::Bool, at)
            };
            errors.extend(validate_match_conditions(
                &webhook["matchConditions"],
                &path.child("matchConditions"),
                &check,
            ));
        }
        errors
    }
}

/// Upstream's `IsFullyQualifiedName`.
fn validate_fully_qualified_name(name: &str, path: &Path) -> ErrorList {
    if name.is_empty() {
        return vec![Error::required(path, "")];
    }
    let wrong = is_dns1123_subdomain(name);
    if !wrong.is_empty() {
        return vec![Error::invalid(path, name, wrong.join(","))];
    }
    if name.split('.').count() < 3 {
        return vec![Error::invalid(path, name, "should be a domain with at least three segments separated by dots")];
    }
    ErrorList::new()
}

fn validate_review_versions(versions: &Value, demand_known: bool, path: &Path) -> ErrorList {
    let list = items(versions);
    if list.is_empty() {
        return vec![Error::required(path, format!("must specify one of {}", REVIEW_VERSIONS.join(", ")))];
    }
    let mut errors = ErrorList::new();
    for (index, version) in list.iter().map(text).enumerate() {
        let at = path.index(index);
        if list[..index].iter().any(|other| text(other) == version) {
            errors.push(Error::invalid(&at, version, "duplicate version"));
            continue;
        }
        errors.extend(is_dns1035_label(version).into_iter().map(|why| Error::invalid(&at, version, why)));
    }
    if demand_known && !list.iter().any(|version| REVIEW_VERSIONS.contains(&text(version))) {
        let message = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(Error::invalid(path, versions.clone(), message));
    }
    errors
}

fn validate_client_config(config: &Value, path: &Path) -> ErrorList {
    match (&config["url"], &config["service"]) {
        (Value::String(url), Value::Null) => validate_webhook_url(url, &path.child("url")),
        (Value::Null, service) if !service.is_null() => validate_webhook_service(service, &path.child("service")),
        _ => vec![Error::required(path, "exactly one of url or service is required")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{messages, mutated};

    fn base() -> Value {
        let mut object = json!({"metadata": {"name": "a"}, "webhooks": [webhook()]});
        mutating_webhook_configuration().strategy.default(&mut object);
        object
    }

    fn webhook() -> Value {
        json!({
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"service": {"namespace": "n", "name": "s"}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        })
    }

    fn with(mutation: Value) -> Vec<String> {
        let mut object = base();
        let changed = mutated(&object["webhooks"][0], &mutation);
        object["webhooks"][0] = changed;
        messages(&mutating_webhook_configuration().strategy.validate_create(&object))
    }

    #[test]
    fn a_webhook_is_called_for_ten_seconds_and_fails_closed() {
        let webhook = &base()["webhooks"][0];
        assert_eq!(webhook["failurePolicy"], "Fail");
        assert_eq!(webhook["matchPolicy"], "Equivalent");
        assert_eq!(webhook["timeoutSeconds"], 10);
        assert_eq!(webhook["reinvocationPolicy"], "Never");
        assert_eq!(webhook["rules"][0]["scope"], "*");
        assert_eq!(webhook["clientConfig"]["service"]["port"], 443);
    }

    #[test]
    fn rules_are_checked() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (
                json!({"name": "a.b"}),
                vec![
                    "webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
                ],
            ),
            (
                json!({"sideEffects": "Some"}),
                vec![
                    "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
                ],
            ),
            (
                json!({"sideEffects": null}),
                vec!["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"],
            ),
            (
                json!({"timeoutSeconds": 31}),
                vec![
                    "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
                ],
            ),
            (
                json!({"clientConfig": {"url": "https://a"}}),
                vec!["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
            ),
            (
                json!({"admissionReviewVersions": ["v2"]}),
                vec![
                    "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
                ],
            ),
            (
                json!({"rules": [{"operations": ["*", "CREATE"], "apiGroups": ["*", ""], "apiVersions": [], "resources": ["*", "pods"]}]}),
                vec![
                    "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
                    "webhooks[0].rules[0].apiGroups: Invalid value: [\"*\",\"\"]: if '*' is present, must not specify other API groups",
                    "webhooks[0].rules[0].apiVersions: Required value",
                    "webhooks[0].rules[0].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources",
                ],
            ),
        ] {
            assert_eq!(with(mutation), expected);
        }
    }

    #[test]
    fn an_update_may_keep_what_only_the_past_allowed() {
        let mut old = base();
        old["webhooks"][0]["sideEffects"] = "Some".into();
        let strategy = mutating_webhook_configuration().strategy;
        assert!(strategy.validate_update(&old, &old).is_empty());
        assert!(!strategy.validate_update(&old, &base()).is_empty());
    }
}
