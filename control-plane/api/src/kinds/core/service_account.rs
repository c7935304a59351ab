//! ServiceAccount: who a pod is to the API server.

use serde_json::{Value, json};

use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Strategy, Subresource, WriteContext};
use crate::kinds::names;
use crate::kinds::tree::items_mut;

/// `v1 ServiceAccount`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["sa"]),
        subresources: vec![Subresource::Token],
        columns: vec![Column::name(), Column::age()],
        ..Kind::new(V1, "ServiceAccount", "serviceaccounts", "io.k8s.api.core.v1.ServiceAccount", ServiceAccount)
    }
}

const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        keep_names_of_secrets(object);
    }

    fn prepare_update(&self, object: &mut Value, _: &Value, _: &WriteContext<'_>) {
        keep_names_of_secrets(object);
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        let annotated = |object: &Value| !object["metadata"]["annotations"][ENFORCE_MOUNTABLE].is_null();
        if !annotated(object) || old.is_some_and(annotated) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{ENFORCE_MOUNTABLE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        )]
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![name_cell(object), age_cell(object, now)]
    }
}

/// Of a reference to a Secret only the name counts: it is in the account's own namespace.
fn keep_names_of_secrets(object: &mut Value) {
    for secret in items_mut(object, "secrets") {
        *secret = match secret.get("name") {
            Some(name) => json!({"name": name}),
            None => json!({}),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: WriteContext<'_> = WriteContext { now: "", user: "" };

    #[test]
    fn references_to_secrets_are_names() {
        let mut object = json!({"secrets": [{"name": "a", "namespace": "b"}]});
        kind().strategy.prepare_create(&mut object, &CONTEXT);
        assert_eq!(object, json!({"secrets": [{"name": "a"}]}));
        let mut object = json!({});
        kind().strategy.prepare_create(&mut object, &CONTEXT);
        assert_eq!(object, json!({}));
    }

    #[test]
    fn enforcing_mountable_secrets_is_warned_of_once() {
        let object = json!({"metadata": {"annotations": {ENFORCE_MOUNTABLE: "true"}}});
        assert_eq!(kind().strategy.warnings(&object, None).len(), 1);
        assert!(kind().strategy.warnings(&object, Some(&object)).is_empty());
    }
}
