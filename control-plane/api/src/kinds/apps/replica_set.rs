//! ReplicaSet: a number of equal pods.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::kinds::apps::{V1, workload};
use crate::kinds::cells::{age_cell, containers_cell, name_cell, selector_cell};
use crate::kinds::core::pod::default_pod_template;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::tree::integer;
use crate::kinds::{ScalePaths, Subresource, WriteContext, names};

/// `apps/v1 ReplicaSet`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["rs"]),
        categories: names(&["all"]),
        subresources: vec![Subresource::Scale, Subresource::Status],
        scale: Some(ScalePaths::BUILTIN),
        selectable: names(&["status.replicas"]),
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Desired", "integer", "The number of pods wanted."),
            Column::new("Current", "integer", "The number of pods there are."),
            Column::new("Ready", "integer", "The number of pods that are ready."),
            Column::age(),
            Column::new("Containers", "string", "Names of the containers of the template.").wide(),
            Column::new("Images", "string", "Images of the containers of the template.").wide(),
            Column::new("Selector", "string", "Selects the pods that belong to the object.").wide(),
        ],
        ..Kind::new(V1, "ReplicaSet", "replicasets", "io.k8s.api.apps.v1.ReplicaSet", ReplicaSet)
    }
}

struct ReplicaSet;

impl Strategy for ReplicaSet {
    /// `SetDefaults_ReplicaSet`
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        if spec["replicas"].is_null() {
            spec["replicas"] = 1.into();
        }
        if spec["template"].is_object() {
            default_pod_template(&mut spec["template"]);
        }
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        object["status"] = json!({ "replicas": 0 });
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let spec = &object["spec"];
        let mut errors = workload::not_negative(spec, "replicas");
        errors.extend(workload::not_negative(spec, "minReadySeconds"));
        // Upstream's message about an empty selector names the other kind.
        errors.extend(workload::validate_selector_and_template(spec, "deployment"));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate_create(object);
        errors.extend(workload::immutable_selector(object, old));
        errors
    }

    /// `ValidateReplicaSetStatus`
    fn validate_status_update(&self, object: &Value, _old: &Value) -> ErrorList {
        let status = &object["status"];
        let path = Path::new("status");
        let mut errors = ErrorList::new();
        let counts = [
            "replicas",
            "fullyLabeledReplicas",
            "readyReplicas",
            "availableReplicas",
            "observedGeneration",
            "terminatingReplicas",
        ];
        for field in counts {
            if let Some(count) = status[field].as_i64().filter(|count| *count < 0) {
                errors.push(Error::invalid(&path.child(field), count, "must be greater than or equal to 0"));
            }
        }
        for field in ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"] {
            if integer(&status[field]) > integer(&status["replicas"]) {
                errors.push(Error::invalid(
                    &path.child(field),
                    integer(&status[field]),
                    "cannot be greater than status.replicas",
                ));
            }
        }
        if integer(&status["availableReplicas"]) > integer(&status["readyReplicas"]) {
            let count = integer(&status["availableReplicas"]);
            errors.push(Error::invalid(
                &path.child("availableReplicas"),
                count,
                "cannot be greater than readyReplicas",
            ));
        }
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(object, old)
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        vec![
            name_cell(object),
            integer(&spec["replicas"]).into(),
            integer(&status["replicas"]).into(),
            integer(&status["readyReplicas"]).into(),
            age_cell(object, now),
            containers_cell(&spec["template"], "name"),
            containers_cell(&spec["template"], "image"),
            selector_cell(&spec["selector"]),
        ]
    }

    fn selectable(&self, object: &Value) -> Vec<String> {
        vec![integer(&object["status"]["replicas"]).to_string()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    fn base() -> Value {
        let mut object = json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-11-24T08:00:00Z"},
            "spec": {
                "selector": {"matchLabels": {"app": "a"}},
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            },
        });
        ReplicaSet.default(&mut object);
        object
    }

    #[test]
    fn a_selector_is_demanded() {
        assert_eq!(messages(&ReplicaSet.validate_create(&base())), Vec::<String>::new());
        let without = mutated(&base(), &json!({"spec": {"selector": null}}));
        assert!(messages(&ReplicaSet.validate_create(&without)).contains(&"spec.selector: Required value".to_owned()));
        let empty = mutated(&base(), &json!({"spec": {"selector": {"matchLabels": null}}}));
        assert_eq!(
            messages(&ReplicaSet.validate_create(&empty)),
            ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
        );
    }

    #[test]
    fn a_status_counts_no_more_than_there_are() {
        let object = mutated(&base(), &json!({"status": {"replicas": 1, "readyReplicas": 2}}));
        assert_eq!(
            messages(&ReplicaSet.validate_status_update(&object, &base())),
            ["status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"]
        );
    }

    #[test]
    fn a_row_counts_the_pods() {
        let object = mutated(&base(), &json!({"spec": {"replicas": 3}, "status": {"replicas": 2, "readyReplicas": 1}}));
        assert_eq!(ReplicaSet.row(&object, NOW)[..5], [json!("a"), json!(3), json!(2), json!(1), json!("60m")]);
        assert_eq!(ReplicaSet.selectable(&object), ["2"]);
    }
}
