//! The group `node.k8s.io`: RuntimeClass, a way to run pods.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::field::{ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::core::pod::resources::validate_container_requirements;
use crate::kinds::core::pod::validate::validate_tolerations;
use crate::kinds::declaration::{Column, Kind, Scope, Strategy};
use crate::kinds::fields::required;
use crate::kinds::tree::{immutable, text};
use crate::meta::validate_labels;
use crate::names::is_dns1123_label;

/// `node.k8s.io/v1 RuntimeClass`
#[must_use]
pub fn runtime_class() -> Kind {
    Kind {
        scope: Scope::Cluster,
        columns: vec![Column::name(), Column::new("Handler", "string", "What the nodes call it."), Column::age()],
        ..Kind::new(
            GroupVersion::new("node.k8s.io", "v1"),
            "RuntimeClass",
            "runtimeclasses",
            "io.k8s.api.node.v1.RuntimeClass",
            RuntimeClass,
        )
    }
}

struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = required(object, "handler", &Path::default(), is_dns1123_label);
        let fixed = &object["overhead"]["podFixed"];
        if !fixed.is_null() {
            let requirements = json!({ "limits": fixed });
            errors.extend(validate_container_requirements(&requirements, &BTreeSet::new(), &Path::new("overhead")));
        }
        let (scheduling, path) = (&object["scheduling"], Path::new("scheduling"));
        errors.extend(validate_labels(&scheduling["nodeSelector"], &path.child("nodeSelector")));
        errors.extend(validate_tolerations(&scheduling["tolerations"], &path.child("tolerations")));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        immutable(&object["handler"], &old["handler"], &Path::new("handler"))
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![name_cell(object), text(&object["handler"]).into(), age_cell(object, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::messages;

    #[test]
    fn a_handler_is_named_for_good() {
        assert!(RuntimeClass.validate_create(&json!({"handler": "runc"})).is_empty());
        assert_eq!(messages(&RuntimeClass.validate_create(&json!({}))), ["handler: Required value"]);
        assert_eq!(
            messages(&RuntimeClass.validate_update(&json!({"handler": "b"}), &json!({"handler": "a"}))),
            ["handler: Invalid value: \"b\": field is immutable"]
        );
    }
}
