//! The group `authorization.k8s.io`: questions about what someone may do. They are answered by the API server and never stored.

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::declaration::{Kind, Scope, Strategy};
use crate::kinds::tree::{entries, is_empty, items, length, text};
use crate::meta::validate_label_key;

const V1: GroupVersion = GroupVersion::new("authorization.k8s.io", "v1");

/// `authorization.k8s.io/v1 SelfSubjectAccessReview`: may I?
#[must_use]
pub fn self_subject_access_review() -> Kind {
    const SCHEMA: &str = "io.k8s.api.authorization.v1.SelfSubjectAccessReview";
    Kind::review(V1, "SelfSubjectAccessReview", "selfsubjectaccessreviews", SCHEMA, SelfSubjectAccessReview)
}

/// `authorization.k8s.io/v1 SelfSubjectRulesReview`: what may I?
#[must_use]
pub fn self_subject_rules_review() -> Kind {
    const SCHEMA: &str = "io.k8s.api.authorization.v1.SelfSubjectRulesReview";
    Kind::review(V1, "SelfSubjectRulesReview", "selfsubjectrulesreviews", SCHEMA, SelfSubjectRulesReview)
}

/// `authorization.k8s.io/v1 SubjectAccessReview`: may they?
#[must_use]
pub fn subject_access_review() -> Kind {
    const SCHEMA: &str = "io.k8s.api.authorization.v1.SubjectAccessReview";
    Kind::review(V1, "SubjectAccessReview", "subjectaccessreviews", SCHEMA, SubjectAccessReview)
}

/// `authorization.k8s.io/v1 LocalSubjectAccessReview`: may they, in this namespace?
#[must_use]
pub fn local_subject_access_review() -> Kind {
    const SCHEMA: &str = "io.k8s.api.authorization.v1.LocalSubjectAccessReview";
    Kind {
        scope: Scope::Namespaced,
        ..Kind::review(V1, "LocalSubjectAccessReview", "localsubjectaccessreviews", SCHEMA, LocalSubjectAccessReview)
    }
}

struct SelfSubjectAccessReview;

impl Strategy for SelfSubjectAccessReview {
    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = validate_attributes(&object["spec"]);
        errors.extend(validate_metadata(&object["metadata"], &[], "must be empty"));
        errors
    }
}

struct SelfSubjectRulesReview;

/// The namespace is checked by the endpoint itself, in upstream as here: without one there is nothing to list.
impl Strategy for SelfSubjectRulesReview {}

struct SubjectAccessReview;

impl Strategy for SubjectAccessReview {
    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = validate_subject(&object["spec"]);
        errors.extend(validate_metadata(&object["metadata"], &[], "must be empty"));
        errors
    }
}

struct LocalSubjectAccessReview;

impl Strategy for LocalSubjectAccessReview {
    fn validate_create(&self, object: &Value) -> ErrorList {
        let spec = &object["spec"];
        let mut errors = validate_subject(spec);
        errors.extend(validate_metadata(&object["metadata"], &["namespace"], "must be empty except for namespace"));
        let attributes = &spec["resourceAttributes"];
        if !attributes.is_null() && text(&attributes["namespace"]) != text(&object["metadata"]["namespace"]) {
            let path = Path::new("spec.resourceAttributes.namespace");
            errors.push(Error::invalid(&path, text(&attributes["namespace"]), "must match metadata.namespace"));
        }
        if !spec["nonResourceAttributes"].is_null() {
            let path = Path::new("spec.nonResourceAttributes");
            let value = spec["nonResourceAttributes"].clone();
            errors.push(Error::invalid(&path, value, "disallowed on this kind of request"));
        }
        errors
    }
}

/// What the server itself stamps on a new object does not count.
fn validate_metadata(metadata: &Value, allowed: &[&str], message: &str) -> ErrorList {
    const STAMPED: &[&str] = &["creationTimestamp", "managedFields", "uid"];
    let other = entries(metadata)
        .any(|(field, value)| !is_empty(value) && !allowed.contains(&field) && !STAMPED.contains(&field));
    if other { vec![Error::invalid(&Path::new("metadata"), metadata.clone(), message)] } else { ErrorList::new() }
}

fn validate_subject(spec: &Value) -> ErrorList {
    let mut errors = validate_union(spec);
    if text(&spec["user"]).is_empty() && length(&spec["groups"]) == 0 {
        let path = Path::new("spec").child("user");
        errors.push(Error::invalid(&path, text(&spec["user"]), "at least one of user or group must be specified"));
    }
    errors.extend(validate_selectors(&spec["resourceAttributes"]));
    errors
}

fn validate_attributes(spec: &Value) -> ErrorList {
    let mut errors = validate_union(spec);
    errors.extend(validate_selectors(&spec["resourceAttributes"]));
    errors
}

fn validate_union(spec: &Value) -> ErrorList {
    if spec["resourceAttributes"].is_null() != spec["nonResourceAttributes"].is_null() {
        return ErrorList::new();
    }
    const MESSAGE: &str = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
    vec![Error::invalid(&Path::new("spec"), spec["nonResourceAttributes"].clone(), MESSAGE)]
}

fn validate_selectors(attributes: &Value) -> ErrorList {
    let path = Path::new("spec.resourceAttributes");
    let mut errors = ErrorList::new();
    for field in ["fieldSelector", "labelSelector"] {
        let selector = &attributes[field];
        if !selector.is_null() {
            errors.extend(validate_selector(selector, field == "labelSelector", &path.child(field)));
        }
    }
    errors
}

/// An operator that this server does not know is let through: a newer client may know it, and the answer then ignores the requirement.
fn validate_selector(selector: &Value, of_labels: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let raw = text(&selector["rawSelector"]);
    let requirements = items(&selector["requirements"]);
    if !raw.is_empty() && !requirements.is_empty() {
        let message = "may not specified at the same time as requirements";
        errors.push(Error::invalid(&path.child("rawSelector"), raw, message));
    }
    if raw.is_empty() && requirements.is_empty() {
        let message = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(Error::required(&path.child("requirements"), message));
    }
    for (index, requirement) in requirements.iter().enumerate() {
        let at = path.child("requirements").index(index);
        let values = length(&requirement["values"]);
        match text(&requirement["operator"]) {
            "In" | "NotIn" if values == 0 => {
                let message = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(Error::required(&at.child("values"), message));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(Error::forbidden(&at.child("values"), message));
            }
            _ => {}
        }
        let key = text(&requirement["key"]);
        if of_labels {
            errors.extend(validate_label_key(key, &at.child("key")));
        } else if key.is_empty() {
            errors.push(Error::required(&at.child("key"), "must be specified"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{messages, mutated};
    use serde_json::json;

    #[test]
    fn a_review_asks_about_exactly_one_thing() {
        let base =
            json!({"metadata": {}, "spec": {"user": "ann", "resourceAttributes": {"verb": "get", "resource": "pods"}}});
        let union =
            "spec: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified";
        for (mutation, expected) in [
            (json!({}), vec![]),
            (json!({"spec": {"resourceAttributes": null}}), vec![union]),
            (
                json!({"spec": {"user": null}}),
                vec!["spec.user: Invalid value: \"\": at least one of user or group must be specified"],
            ),
            (json!({"spec": {"user": null, "groups": ["g"]}}), vec![]),
            (json!({"metadata": {"name": "x"}}), vec!["metadata: Invalid value: {\"name\":\"x\"}: must be empty"]),
            (
                json!({"spec": {"resourceAttributes": {"labelSelector": {}}}}),
                vec![
                    "spec.resourceAttributes.labelSelector.requirements: Required value: when spec.resourceAttributes.labelSelector is specified, requirements or rawSelector is required",
                ],
            ),
        ] {
            let object = mutated(&base, &mutation);
            assert_eq!(messages(&subject_access_review().strategy.validate_create(&object)), expected, "{mutation}");
        }
    }

    #[test]
    fn a_local_review_stays_in_its_namespace() {
        let object = json!({
            "metadata": {"namespace": "a"}, "spec": {"user": "ann", "resourceAttributes": {"namespace": "b"}},
        });
        assert_eq!(
            messages(&local_subject_access_review().strategy.validate_create(&object)),
            ["spec.resourceAttributes.namespace: Invalid value: \"b\": must match metadata.namespace"]
        );
    }
}
