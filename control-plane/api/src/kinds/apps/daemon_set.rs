//! DaemonSet: a pod on each node that fits.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::kinds::apps::{V1, workload};
use crate::kinds::cells::{age_cell, containers_cell, labels_cell, name_cell, selector_cell};
use crate::kinds::core::pod::{default_pod_template, validate_pod_template};
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::tree::{fill, fill_text, integer, text};
use crate::kinds::{Subresource, WriteContext, names};
use crate::meta::validate_label_selector;
use crate::selector::LabelSelector;

/// `apps/v1 DaemonSet`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["ds"]),
        categories: names(&["all"]),
        subresources: vec![Subresource::Status],
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Desired", "integer", "The number of nodes that should run its pod."),
            Column::new("Current", "integer", "The number of nodes that run its pod and should."),
            Column::new("Ready", "integer", "The number of nodes whose pod is ready."),
            Column::new("Up-to-date", "integer", "The number of nodes that run the current template."),
            Column::new("Available", "integer", "The number of nodes whose pod is available."),
            Column::new("Node Selector", "string", "Selects the nodes by their labels."),
            Column::age(),
            Column::new("Containers", "string", "Names of the containers of the template.").wide(),
            Column::new("Images", "string", "Images of the containers of the template.").wide(),
            Column::new("Selector", "string", "Selects the pods that belong to the object.").wide(),
        ],
        ..Kind::new(V1, "DaemonSet", "daemonsets", "io.k8s.api.apps.v1.DaemonSet", DaemonSet)
    }
}

struct DaemonSet;

impl Strategy for DaemonSet {
    /// `SetDefaults_DaemonSet`
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        default_pod_template(&mut spec["template"]);
        let strategy = &mut spec["updateStrategy"];
        fill_text(strategy, "type", "RollingUpdate");
        if strategy["type"] == "RollingUpdate" {
            fill(&mut strategy["rollingUpdate"], "maxUnavailable", 1);
            fill(&mut strategy["rollingUpdate"], "maxSurge", 0);
        }
        fill(spec, "revisionHistoryLimit", 10);
    }

    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] = empty_status();
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let spec = &object["spec"];
        let path = Path::new("spec");
        let (selector, template) = (&spec["selector"], &spec["template"]);
        let mut errors = validate_label_selector(selector, &path.child("selector"));
        if LabelSelector::from_object(selector)
            .is_ok_and(|parsed| !parsed.matches_object(&template["metadata"]["labels"]))
        {
            let labels = template["metadata"]["labels"].clone();
            let at = path.child("template").child("metadata").child("labels");
            errors.push(Error::invalid(&at, labels, "`selector` does not match template `labels`"));
        }
        if !selector.is_null() && workload::is_empty_selector(selector) {
            let message = "empty selector is invalid for daemonset";
            errors.push(Error::invalid(&path.child("selector"), selector.clone(), message));
        }
        errors.extend(validate_pod_template(template, &path.child("template")));
        errors.extend(workload::validate_endless(template, "DaemonSet", &path.child("template")));
        errors.extend(workload::not_negative(spec, "minReadySeconds"));
        errors.extend(validate_strategy(&spec["updateStrategy"], &path.child("updateStrategy")));
        errors.extend(workload::not_negative(spec, "revisionHistoryLimit"));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = workload::immutable_selector(object, old);
        errors.extend(self.validate_create(object));
        errors
    }

    /// `ValidateDaemonSetStatusUpdate`
    fn validate_status_update(&self, object: &Value, old: &Value) -> ErrorList {
        let fields = [
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ];
        let mut errors = workload::counts_not_negative(&object["status"], &fields);
        errors.extend(workload::collisions_only_grow(object, old));
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(object, old)
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        vec![
            name_cell(object),
            integer(&status["desiredNumberScheduled"]).into(),
            integer(&status["currentNumberScheduled"]).into(),
            integer(&status["numberReady"]).into(),
            integer(&status["updatedNumberScheduled"]).into(),
            integer(&status["numberAvailable"]).into(),
            labels_cell(&spec["template"]["spec"]["nodeSelector"]),
            age_cell(object, now),
            containers_cell(&spec["template"], "name"),
            containers_cell(&spec["template"], "image"),
            selector_cell(&spec["selector"]),
        ]
    }
}

/// The counts that Go never leaves out.
fn empty_status() -> Value {
    json!({ "currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0 })
}

/// `ValidateDaemonSetUpdateStrategy`
fn validate_strategy(strategy: &Value, path: &Path) -> ErrorList {
    match text(&strategy["type"]) {
        "OnDelete" => ErrorList::new(),
        "RollingUpdate" if strategy["rollingUpdate"].is_null() => {
            vec![Error::required(&path.child("rollingUpdate"), "")]
        }
        "RollingUpdate" => validate_rolling(&strategy["rollingUpdate"], &path.child("rollingUpdate")),
        other => vec![Error::not_supported(&path.child("type"), other, &["RollingUpdate", "OnDelete"])],
    }
}

/// `ValidateRollingUpdateDaemonSet`
fn validate_rolling(rolling: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let fields = ["maxUnavailable", "maxSurge"];
    for field in fields {
        errors.extend(workload::int_or_percent(&rolling[field], &path.child(field)));
    }
    for field in fields {
        errors.extend(workload::at_most_all(&rolling[field], &path.child(field)));
    }
    let [unavailable, surge] = fields.map(|field| !workload::is_zero(&rolling[field]));
    if unavailable && surge {
        let message = "may not be set when maxUnavailable is non-zero";
        errors.push(Error::invalid(&path.child("maxSurge"), rolling["maxSurge"].clone(), message));
    } else if !unavailable && !surge {
        errors.push(Error::required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    fn base() -> Value {
        let mut object = json!({
            "metadata": {"name": "a"},
            "spec": {
                "selector": {"matchLabels": {"app": "a"}},
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
            },
        });
        DaemonSet.default(&mut object);
        object
    }

    #[test]
    fn mistakes_are_named() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (
                json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
                vec!["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
            ),
            (
                json!({"spec": {"template": {"spec": {"activeDeadlineSeconds": 5}}}}),
                vec![
                    "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported",
                ],
            ),
            (
                json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}}),
                vec![
                    "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
                ],
            ),
            (
                json!({"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}}),
                vec![
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
                ],
            ),
            (
                json!({"spec": {"updateStrategy": {"type": "Sudden"}}}),
                vec![
                    "spec.updateStrategy.type: Unsupported value: \"Sudden\": supported values: \"RollingUpdate\", \"OnDelete\"",
                ],
            ),
        ] {
            assert_eq!(messages(&DaemonSet.validate_create(&mutated(&base(), &mutation))), expected, "{mutation}");
        }
    }

    #[test]
    fn a_row_counts_the_nodes() {
        let object = mutated(&base(), &json!({"status": {"desiredNumberScheduled": 3, "numberReady": 2}}));
        assert_eq!(
            DaemonSet.row(&object, NOW)[..8],
            [json!("a"), json!(3), json!(0), json!(2), json!(0), json!(0), json!("<none>"), json!("<unknown>")]
        );
    }
}
