//! Namespace: a scope for names.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Scope, Strategy, Subresource, Verb, WriteContext};
use crate::kinds::names;
use crate::kinds::tree::{carry_over, items, map_mut, text};
use crate::names::{is_qualified_name, name_is_dns_label};

/// `v1 Namespace`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["ns"]),
        scope: Scope::Cluster,
        verbs: Verb::ALL.iter().copied().filter(|verb| *verb != Verb::DeleteCollection).collect(),
        subresources: vec![Subresource::Finalize, Subresource::Status],
        selectable: names(&["status.phase", "name"]),
        columns: vec![Column::name(), Column::new("Status", "string", "Active or Terminating."), Column::age()],
        ..Kind::new(V1, "Namespace", "namespaces", "io.k8s.api.core.v1.Namespace", Namespace)
    }
}

/// The label that holds a namespace's name, for selectors.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The finalizer that stands for the objects in the namespace.
const KUBERNETES: &str = "kubernetes";

struct Namespace;

impl Strategy for Namespace {
    fn default(&self, object: &mut Value) {
        label(object);
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        // A generated name is known only now.
        label(object);
        object["status"] = json!({"phase": "Active"});
        let finalizers = &mut object["spec"]["finalizers"];
        if !items(finalizers).iter().any(|finalizer| finalizer == KUBERNETES) {
            match finalizers.as_array_mut() {
                Some(list) => list.push(KUBERNETES.into()),
                None => *finalizers = json!([KUBERNETES]),
            }
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &WriteContext<'_>) {
        map_mut(&mut object["spec"]);
        carry_over(&mut object["spec"], &old["spec"], "finalizers");
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let path = Path::new("spec").child("finalizers");
        items(&object["spec"]["finalizers"]).iter().flat_map(|value| validate_finalizer(text(value), &path)).collect()
    }

    fn validate_status_update(&self, object: &Value, _: &Value) -> ErrorList {
        let deleting = !object["metadata"]["deletionTimestamp"].is_null();
        let phase = text(&object["status"]["phase"]);
        let path = Path::new("status").child("Phase");
        match (deleting, phase) {
            (false, "Active") | (true, "Terminating") => ErrorList::new(),
            (false, _) => vec![Error::invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty")],
            (true, _) => {
                vec![Error::invalid(&path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty")]
            }
        }
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![name_cell(object), text(&object["status"]["phase"]).into(), age_cell(object, now)]
    }

    fn selectable(&self, object: &Value) -> Vec<String> {
        vec![text(&object["status"]["phase"]).to_owned(), text(&object["metadata"]["name"]).to_owned()]
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        name_is_dns_label(name, prefix)
    }
}

/// What is wrong with the finalizers that a write to `/finalize` leaves (`ValidateNamespaceFinalizeUpdate`).
#[must_use]
pub fn validate_finalize(object: &Value) -> ErrorList {
    let path = Path::new("spec").child("finalizers");
    let finalizers = items(&object["spec"]["finalizers"]).iter().enumerate();
    finalizers.flat_map(|(index, value)| validate_finalizer(text(value), &path.index(index))).collect()
}

fn label(object: &mut Value) {
    let name = text(&object["metadata"]["name"]).to_owned();
    if !name.is_empty() {
        map_mut(&mut object["metadata"]["labels"]).insert(NAME_LABEL.to_owned(), name.into());
    }
}

fn validate_finalizer(name: &str, path: &Path) -> ErrorList {
    let mut errors: ErrorList =
        is_qualified_name(name).into_iter().map(|message| Error::invalid(path, name, message)).collect();
    let standard = matches!(name, KUBERNETES | "orphan" | "foregroundDeletion");
    if !name.contains('/') && !standard {
        let message = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(Error::invalid(path, name, message));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    const CONTEXT: WriteContext<'_> = WriteContext { now: "2026-11-24T09:00:00Z", user: "ann" };

    #[test]
    fn a_new_namespace_is_active_labelled_and_finalized() {
        let mut object =
            json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["example.com/x"]}, "status": {"phase": "Lost"}});
        kind().strategy.default(&mut object);
        kind().strategy.prepare_create(&mut object, &CONTEXT);
        assert_eq!(
            object,
            json!({
                "metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}},
                "spec": {"finalizers": ["example.com/x", "kubernetes"]}, "status": {"phase": "Active"},
            })
        );
        assert!(kind().strategy.validate_create(&object).is_empty());
    }

    #[test]
    fn an_update_keeps_the_finalizers() {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {}});
        kind().strategy.prepare_update(&mut object, &json!({"spec": {"finalizers": ["kubernetes"]}}), &CONTEXT);
        assert_eq!(object["spec"], json!({"finalizers": ["kubernetes"]}));
    }

    #[test]
    fn a_finalizer_is_standard_or_qualified() {
        let object = json!({"spec": {"finalizers": ["kubernetes", "mine"]}});
        let message = "name is neither a standard finalizer name nor is it fully qualified";
        assert_eq!(
            messages(&kind().strategy.validate_create(&object)),
            [format!("spec.finalizers: Invalid value: \"mine\": {message}")]
        );
        assert_eq!(
            messages(&validate_finalize(&object)),
            [format!("spec.finalizers[1]: Invalid value: \"mine\": {message}")]
        );
    }

    #[test]
    fn the_phase_follows_the_deletion() {
        let base = json!({"metadata": {}, "status": {"phase": "Active"}});
        for (mutation, expected) in [
            (json!({}), vec![]),
            (
                json!({"status": {"phase": "Terminating"}}),
                vec![
                    "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty",
                ],
            ),
            (
                json!({"metadata": {"deletionTimestamp": "2026-11-24T09:00:00Z"}}),
                vec![
                    "status.Phase: Invalid value: \"Active\": may only be 'Terminating' if `deletionTimestamp` is not empty",
                ],
            ),
        ] {
            assert_eq!(messages(&kind().strategy.validate_status_update(&mutated(&base, &mutation), &base)), expected);
        }
    }

    #[test]
    fn a_row_shows_the_phase() {
        let object = json!({"metadata": {"name": "a"}, "status": {"phase": "Active"}});
        assert_eq!(kind().strategy.row(&object, NOW), [json!("a"), json!("Active"), json!("<unknown>")]);
    }

    #[test]
    fn a_name_is_a_label() {
        assert!(!kind().strategy.validate_name("a.b", false).is_empty());
        assert!(kind().strategy.validate_name("a-", true).is_empty());
    }
}
