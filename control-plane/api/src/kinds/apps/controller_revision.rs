//! ControllerRevision: what a controller wants to remember of an earlier state.

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::kinds::apps::V1;
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::tree::{immutable, integer, text};
use crate::meta::controller_of;

/// `apps/v1 ControllerRevision`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        columns: vec![
            Column::name(),
            Column::new("Controller", "string", "The object whose state it is."),
            Column::new("Revision", "string", "Where it stands among the states of that object."),
            Column::age(),
        ],
        ..Kind::new(
            V1,
            "ControllerRevision",
            "controllerrevisions",
            "io.k8s.api.apps.v1.ControllerRevision",
            ControllerRevision,
        )
    }
}

struct ControllerRevision;

impl Strategy for ControllerRevision {
    /// `ValidateControllerRevisionCreate`
    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = validate_revision(object);
        match &object["data"] {
            Value::Null => errors.push(Error::required(&Path::new("data"), "data is mandatory")),
            Value::Object(_) => {}
            _ => errors.push(Error::required(&Path::new("data"), "data must be a valid JSON object")),
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = validate_revision(object);
        errors.extend(immutable(&object["data"], &old["data"], &Path::new("data")));
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let controller = controller_of(object).map_or_else(|| "<none>".to_owned(), owner_text);
        vec![name_cell(object), controller.into(), integer(&object["revision"]).into(), age_cell(object, now)]
    }
}

fn validate_revision(object: &Value) -> ErrorList {
    let revision = object["revision"].as_i64().filter(|revision| *revision < 0);
    let message = "must be greater than or equal to 0";
    revision.map(|revision| Error::invalid(&Path::new("revision"), revision, message)).into_iter().collect()
}

/// `deployment.apps/web` (`formatResourceName`).
fn owner_text(owner: &Value) -> String {
    let kind = text(&owner["kind"]).to_ascii_lowercase();
    let name = text(&owner["name"]);
    match text(&owner["apiVersion"]).split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages};
    use serde_json::json;

    #[test]
    fn a_revision_holds_an_object_for_good() {
        for (object, expected) in [
            (json!({"data": {"a": 1}, "revision": 1}), vec![]),
            (json!({"revision": 1}), vec!["data: Required value: data is mandatory"]),
            (
                json!({"data": 5, "revision": -1}),
                vec![
                    "revision: Invalid value: -1: must be greater than or equal to 0",
                    "data: Required value: data must be a valid JSON object",
                ],
            ),
        ] {
            assert_eq!(messages(&ControllerRevision.validate_create(&object)), expected);
        }
        assert_eq!(
            messages(&ControllerRevision.validate_update(&json!({"data": {"a": 2}}), &json!({"data": {"a": 1}}))),
            ["data: Invalid value: {\"a\":2}: field is immutable"]
        );
    }

    #[test]
    fn a_row_names_the_owner() {
        let object = json!({"metadata": {"name": "r", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "controller": true},
        ]}, "revision": 3});
        assert_eq!(
            ControllerRevision.row(&object, NOW),
            [json!("r"), json!("daemonset.apps/d"), json!(3), json!("<unknown>")]
        );
    }
}
