//! Rules for `metav1.ObjectMeta`: upstream's `ValidateObjectMetaAccessor` and `ValidateObjectMetaAccessorUpdate`.

use serde_json::Value;

use super::access;
use super::options::validate_field_manager;
use crate::field::{Error, ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::Scope;
use crate::names;

/// All annotations together, keys and values, in bytes.
const ANNOTATIONS_MAX_SIZE: usize = 256 * 1024;
const SUBRESOURCE_MAX_LENGTH: usize = 256;
const IMMUTABLE: &str = "field is immutable";

/// What is wrong with the metadata of a new object whose name has been generated already. `check_name` is the kind's own rule for names; it is
/// called with `true` for the prefix in `generateName`.
#[must_use]
pub fn validate_create(object: &Value, scope: Scope, check_name: &dyn Fn(&str, bool) -> Vec<String>) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = ErrorList::new();
    let prefix = access::generate_name_prefix(object);
    if !prefix.is_empty() {
        let at = path.child("generateName");
        errors.extend(check_name(prefix, true).into_iter().map(|message| Error::invalid(&at, prefix, message)));
    }
    let name = access::name(object);
    let at = path.child("name");
    if name.is_empty() {
        errors.push(Error::required(&at, "name or generateName is required"));
    } else {
        errors.extend(check_name(name, false).into_iter().map(|message| Error::invalid(&at, name, message)));
    }
    let namespace = access::namespace(object);
    let at = path.child("namespace");
    match scope {
        Scope::Namespaced if namespace.is_empty() => errors.push(Error::required(&at, "")),
        Scope::Namespaced => {
            errors.extend(names::is_dns1123_label(namespace).into_iter().map(|m| Error::invalid(&at, namespace, m)));
        }
        Scope::Cluster if namespace.is_empty() => {}
        Scope::Cluster => errors.push(Error::forbidden(&at, "not allowed on this type")),
    }
    let metadata = &object["metadata"];
    errors.extend(validate_generation(object, &path));
    errors.extend(validate_labels(&metadata["labels"], &path.child("labels")));
    errors.extend(validate_annotations(&metadata["annotations"], &path.child("annotations")));
    errors.extend(validate_owner_references(access::owner_references(object), &path.child("ownerReferences")));
    errors.extend(validate_finalizers(&access::finalizers(object), &path.child("finalizers")));
    errors.extend(validate_managed_fields(access::managed_fields(object), &path.child("managedFields")));
    errors
}

/// What is wrong with the metadata of an object that replaces `old`. The new object carries the resource version that it was checked against.
#[must_use]
pub fn validate_update(object: &Value, old: &Value) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = ErrorList::new();
    let metadata = &object["metadata"];
    if access::is_terminating(old) {
        errors.extend(no_new_finalizers(object, old, &path.child("finalizers")));
    }
    if access::resource_version(object).is_empty() {
        let detail = "must be specified for an update";
        errors.push(Error::invalid(&path.child("resourceVersion"), "", detail));
    }
    errors.extend(validate_generation(object, &path));
    let generation = access::generation(object);
    if generation < access::generation(old) {
        errors.push(Error::invalid(&path.child("generation"), generation, "must not be decremented"));
    }
    for field in ["name", "namespace", "uid"] {
        let (new, before) = (metadata[field].as_str().unwrap_or_default(), &old["metadata"][field]);
        if new != before.as_str().unwrap_or_default() {
            errors.push(Error::invalid(&path.child(field), new, IMMUTABLE));
        }
    }
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if metadata[field] != old["metadata"][field] {
            errors.push(Error::invalid(&path.child(field), metadata[field].clone(), IMMUTABLE));
        }
    }
    errors.extend(validate_labels(&metadata["labels"], &path.child("labels")));
    errors.extend(validate_annotations(&metadata["annotations"], &path.child("annotations")));
    errors.extend(validate_owner_references(access::owner_references(object), &path.child("ownerReferences")));
    errors.extend(validate_managed_fields(access::managed_fields(object), &path.child("managedFields")));
    errors
}

/// Upstream's `ValidateLabels`: keys are qualified names, values are label values.
#[must_use]
pub fn validate_labels(labels: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, value) in labels.as_object().into_iter().flatten() {
        errors.extend(validate_label_key(key, path));
        let value = value.as_str().unwrap_or_default();
        errors.extend(names::is_label_value(value).into_iter().map(|message| Error::invalid(path, value, message)));
    }
    errors
}

/// Upstream's `ValidateLabelName`.
#[must_use]
pub fn validate_label_key(key: &str, path: &Path) -> ErrorList {
    names::is_qualified_name(key).into_iter().map(|message| Error::invalid(path, key, message)).collect()
}

/// Upstream's `ValidateQualifiedName`.
#[must_use]
pub fn validate_qualified_name(name: &str, path: &Path) -> ErrorList {
    names::is_qualified_name(name).into_iter().map(|message| Error::invalid(path, name, message)).collect()
}

/// Upstream's `ValidateAnnotations`: keys are qualified names of any case; keys and values together fit into 256 KiB.
#[must_use]
pub fn validate_annotations(annotations: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        let messages = names::is_qualified_name(&key.to_lowercase());
        errors.extend(messages.into_iter().map(|message| Error::invalid(path, key.as_str(), message)));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX_SIZE {
        errors.push(Error::too_long(path, ANNOTATIONS_MAX_SIZE));
    }
    errors
}

/// Upstream's `ValidateOwnerReferences`: each is complete, and one at most is the controller.
#[must_use]
pub fn validate_owner_references(references: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut controller: Option<String> = None;
    for (index, reference) in references.iter().enumerate() {
        errors.extend(validate_owner_reference(reference, &path.index(index)));
        if reference["controller"] != true {
            continue;
        }
        let text = |field: &str| reference[field].as_str().unwrap_or_default();
        let current = format!("{}/{}", text("kind"), text("name"));
        match &controller {
            Some(first) => {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {current}"
                );
                errors.push(Error::invalid(path, references.to_vec(), detail));
            }
            None => controller = Some(current),
        }
    }
    errors
}

fn validate_owner_reference(reference: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let api_version = text("apiVersion");
    if api_version.is_empty() {
        errors.push(Error::required(&path.child("apiVersion"), "must not be empty"));
    } else if GroupVersion::parse(api_version).is_none_or(|parsed| parsed.version.is_empty()) {
        let detail = "must be <group>/<version> or <version>";
        errors.push(Error::invalid(&path.child("apiVersion"), api_version, detail));
    }
    for field in ["kind", "name", "uid"] {
        if text(field).is_empty() {
            errors.push(Error::required(&path.child(field), "must not be empty"));
        }
    }
    if api_version == "v1" && text("kind") == "Event" {
        let detail = "/v1, Kind=Event is disallowed from being an owner";
        errors.push(Error::invalid(path, reference.clone(), detail));
    }
    errors
}

/// Upstream's `ValidateFinalizers`: qualified names; orphaning and foreground deletion exclude each other.
#[must_use]
pub fn validate_finalizers(finalizers: &[&str], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for finalizer in finalizers {
        let messages = names::is_qualified_name(finalizer);
        errors.extend(messages.into_iter().map(|message| Error::invalid(path, *finalizer, message)));
    }
    if finalizers.contains(&"orphan") && finalizers.contains(&"foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(Error::invalid(path, finalizers.to_vec(), detail));
    }
    errors
}

/// Upstream's `ValidateManagedFields`.
#[must_use]
pub fn validate_managed_fields(entries: &[Value], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, entry) in entries.iter().enumerate() {
        let path = path.index(index);
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        match text("operation") {
            "" => errors.push(Error::required(&path.child("operation"), "must not be empty")),
            "Apply" | "Update" => {}
            other => errors.push(Error::not_supported(&path.child("operation"), other, &["Apply", "Update"])),
        }
        if !matches!(text("fieldsType"), "" | "FieldsV1") {
            errors.push(Error::invalid(&path.child("fieldsType"), text("fieldsType"), "must be `FieldsV1`"));
        }
        errors.extend(validate_field_manager(text("manager"), &path.child("manager")));
        if text("subresource").len() > SUBRESOURCE_MAX_LENGTH {
            errors.push(Error::too_long(&path.child("subresource"), SUBRESOURCE_MAX_LENGTH));
        }
    }
    errors
}

fn validate_generation(object: &Value, path: &Path) -> Option<Error> {
    let generation = access::generation(object);
    (generation < 0)
        .then(|| Error::invalid(&path.child("generation"), generation, "must be greater than or equal to 0"))
}

fn no_new_finalizers(object: &Value, old: &Value, path: &Path) -> Option<Error> {
    let before = access::finalizers(old);
    let mut added = access::finalizers(object);
    added.retain(|finalizer| !before.contains(finalizer));
    added.sort_unstable();
    added.dedup();
    if added.is_empty() {
        return None;
    }
    // Upstream prints the list as Go source.
    let quoted: Vec<String> = added.iter().map(|finalizer| format!("\"{finalizer}\"")).collect();
    let detail = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        quoted.join(", ")
    );
    Some(Error::forbidden(path, detail))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object() -> Value {
        json!({"metadata": {"name": "a", "namespace": "default", "uid": "u", "resourceVersion": "1"}})
    }

    fn on_create(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut object = object();
        change(&mut object["metadata"]);
        let errors = validate_create(&object, Scope::Namespaced, &names::name_is_dns_subdomain);
        errors.iter().map(ToString::to_string).collect()
    }

    fn on_update(change: impl FnOnce(&mut Value, &mut Value)) -> Vec<String> {
        let (mut new, mut old) = (object(), object());
        change(&mut new["metadata"], &mut old["metadata"]);
        validate_update(&new, &old).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_plain_object_is_fine() {
        assert!(on_create(|_| {}).is_empty());
        assert!(on_update(|_, _| {}).is_empty());
    }

    #[test]
    fn a_new_object_needs_a_name_and_a_namespace() {
        assert_eq!(
            on_create(|meta| {
                meta["name"] = json!("");
                meta["namespace"] = json!("");
            }),
            ["metadata.name: Required value: name or generateName is required", "metadata.namespace: Required value"]
        );
        let errors = validate_create(&object(), Scope::Cluster, &names::name_is_dns_subdomain);
        assert_eq!(errors[0].to_string(), "metadata.namespace: Forbidden: not allowed on this type");
    }

    #[test]
    fn labels_and_annotations_have_limits() {
        assert_eq!(on_create(|meta| meta["labels"] = json!({"a": "b c"})).len(), 1);
        assert!(on_create(|meta| meta["annotations"] = json!({"Example.com/a": "b c"})).is_empty());
        assert_eq!(
            on_create(|meta| meta["annotations"] = json!({"a": "x".repeat(256 * 1024)})),
            ["metadata.annotations: Too long: may not be more than 262144 bytes"]
        );
    }

    #[test]
    fn one_owner_at_most_is_the_controller() {
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "1", "controller": true});
        let errors = on_create(|meta| meta["ownerReferences"] = json!([owner("a"), owner("b")]));
        assert_eq!(errors.len(), 1);
        assert!(errors[0].ends_with(
            "Only one reference can have Controller set to true. Found \"true\" in references for Pod/a and Pod/b"
        ));
        assert_eq!(
            on_create(|meta| meta["ownerReferences"] = json!([{"apiVersion": "a/b/c", "kind": "K"}])),
            [
                "metadata.ownerReferences[0].apiVersion: Invalid value: \"a/b/c\": must be <group>/<version> or <version>",
                "metadata.ownerReferences[0].name: Required value: must not be empty",
                "metadata.ownerReferences[0].uid: Required value: must not be empty",
            ]
        );
    }

    #[test]
    fn identity_does_not_change() {
        assert_eq!(
            on_update(|new, _| new["uid"] = json!("v")),
            ["metadata.uid: Invalid value: \"v\": field is immutable"]
        );
        assert_eq!(
            on_update(|new, old| {
                old["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
                new["name"] = json!("b");
            }),
            [
                "metadata.name: Invalid value: \"b\": field is immutable",
                "metadata.creationTimestamp: Invalid value: null: field is immutable",
            ]
        );
        assert_eq!(
            on_update(|new, _| new["resourceVersion"] = json!("")),
            ["metadata.resourceVersion: Invalid value: \"\": must be specified for an update"]
        );
    }

    #[test]
    fn an_object_that_goes_away_takes_no_new_finalizer() {
        let errors = on_update(|new, old| {
            new["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            old["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            new["finalizers"] = json!(["a.b/c"]);
        });
        assert_eq!(
            errors,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"a.b/c\"}"
            ]
        );
    }
}
