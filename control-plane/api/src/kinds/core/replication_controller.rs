//! ReplicationController: a number of equal pods, by a plain set of labels.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::kinds::apps::workload;
use crate::kinds::cells::{age_cell, containers_cell, labels_cell, name_cell};
use crate::kinds::core::V1;
use crate::kinds::core::pod::{default_pod_template, validate_pod_template};
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::tree::{entries, fill, integer, length, map_mut, text};
use crate::kinds::{ScalePaths, Subresource, WriteContext, names};

/// `v1 ReplicationController`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["rc"]),
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
        ..Kind::new(
            V1,
            "ReplicationController",
            "replicationcontrollers",
            "io.k8s.api.core.v1.ReplicationController",
            ReplicationController,
        )
    }
}

struct ReplicationController;

impl Strategy for ReplicationController {
    /// `SetDefaults_ReplicationController`
    fn default(&self, object: &mut Value) {
        let labels = object["spec"]["template"]["metadata"]["labels"].clone();
        if labels.is_object() {
            if length(&object["spec"]["selector"]) == 0 {
                map_mut(&mut object["spec"]).insert("selector".to_owned(), labels.clone());
            }
            if length(&object["metadata"]["labels"]) == 0 {
                map_mut(&mut object["metadata"]).insert("labels".to_owned(), labels);
            }
        }
        fill(&mut object["spec"], "replicas", 1);
        if object["spec"]["template"].is_object() {
            default_pod_template(&mut object["spec"]["template"]);
        }
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = json!({ "replicas": 0 });
    }

    /// `ValidateReplicationControllerSpec`
    fn validate_create(&self, object: &Value) -> ErrorList {
        let (spec, path) = (&object["spec"], Path::new("spec"));
        let mut errors = workload::not_negative(spec, "minReadySeconds");
        if length(&spec["selector"]) == 0 {
            errors.push(Error::required(&path.child("selector"), ""));
        }
        errors.extend(workload::not_negative(spec, "replicas"));
        let (template, at) = (&spec["template"], path.child("template"));
        if template.is_null() {
            errors.push(Error::required(&at, ""));
            return errors;
        }
        let labels = &template["metadata"]["labels"];
        if entries(&spec["selector"]).any(|(key, value)| labels[key].as_str() != Some(text(value))) {
            let at = at.child("metadata").child("labels");
            errors.push(Error::invalid(&at, labels.clone(), "`selector` does not match template `labels`"));
        }
        errors.extend(validate_pod_template(template, &at));
        errors.extend(workload::validate_endless(template, "ReplicationController", &at));
        errors
    }

    /// `ValidateReplicationControllerStatus`
    fn validate_status_update(&self, object: &Value, _: &Value) -> ErrorList {
        let (status, path) = (&object["status"], Path::new("status"));
        let counted = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
        let mut errors = workload::counts_not_negative(status, &["replicas"]);
        errors.extend(workload::counts_not_negative(status, &counted));
        errors.extend(workload::counts_not_negative(status, &["observedGeneration"]));
        for field in counted {
            let count = integer(&status[field]);
            if count > integer(&status["replicas"]) {
                errors.push(Error::invalid(&path.child(field), count, "cannot be greater than status.replicas"));
            }
        }
        let available = integer(&status["availableReplicas"]);
        if available > integer(&status["readyReplicas"]) {
            let message = "cannot be greater than readyReplicas";
            errors.push(Error::invalid(&path.child("availableReplicas"), available, message));
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
            labels_cell(&spec["selector"]),
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
            "metadata": {"name": "a"},
            "spec": {"template": {
                "metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
            }},
        });
        ReplicationController.default(&mut object);
        object
    }

    #[test]
    fn a_template_gives_the_selector_and_the_labels() {
        let object = base();
        assert_eq!(object["spec"]["selector"], json!({"app": "a"}));
        assert_eq!(object["metadata"]["labels"], json!({"app": "a"}));
        assert_eq!(object["spec"]["replicas"], 1);
        assert_eq!(ReplicationController.row(&object, NOW)[7], "app=a");
    }

    #[test]
    fn mistakes_are_named() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (json!({"spec": {"template": null}}), vec!["spec.template: Required value"]),
            (
                json!({"spec": {"selector": {"app": "b"}}}),
                vec![
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"spec": {"replicas": -1}}),
                vec!["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
        ] {
            let object = mutated(&base(), &mutation);
            let object = if mutation["spec"]["selector"].is_object() {
                json!({"spec": {"selector": {"app": "b"}, "template": object["spec"]["template"]}})
            } else {
                object
            };
            assert_eq!(messages(&ReplicationController.validate_create(&object)), expected, "{mutation}");
        }
    }
}
