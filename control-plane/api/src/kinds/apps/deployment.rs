//! Deployment: a set of equal pods that changes from one template to the next gradually.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::kinds::apps::{V1, workload};
use crate::kinds::cells::{age_cell, containers_cell, name_cell, selector_cell};
use crate::kinds::core::pod::default_pod_template;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::tree::{integer, text};
use crate::kinds::{ScalePaths, Subresource, WriteContext, names};

/// `apps/v1 Deployment`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["deploy"]),
        categories: names(&["all"]),
        subresources: vec![Subresource::Scale, Subresource::Status],
        scale: Some(ScalePaths::BUILTIN),
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Ready", "string", "The number of ready pods, of those wanted."),
            Column::new("Up-to-date", "string", "The number of pods of the current template."),
            Column::new("Available", "string", "The number of pods that are available."),
            Column::age(),
            Column::new("Containers", "string", "Names of the containers of the template.").wide(),
            Column::new("Images", "string", "Images of the containers of the template.").wide(),
            Column::new("Selector", "string", "Selects the pods that belong to the object.").wide(),
        ],
        ..Kind::new(V1, "Deployment", "deployments", "io.k8s.api.apps.v1.Deployment", Deployment)
    }
}

struct Deployment;

impl Strategy for Deployment {
    /// `SetDefaults_Deployment`
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        default_pod_template(&mut spec["template"]);
        let defaults =
            [("replicas", json!(1)), ("revisionHistoryLimit", json!(10)), ("progressDeadlineSeconds", json!(600))];
        for (field, value) in defaults {
            if spec[field].is_null() {
                spec[field] = value;
            }
        }
        let strategy = &mut spec["strategy"];
        if text(&strategy["type"]).is_empty() {
            strategy["type"] = "RollingUpdate".into();
        }
        if strategy["type"] == "RollingUpdate" {
            for field in ["maxUnavailable", "maxSurge"] {
                if strategy["rollingUpdate"][field].is_null() {
                    strategy["rollingUpdate"][field] = "25%".into();
                }
            }
        }
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        object["status"] = json!({});
    }

    /// An annotation is part of what a rollout is made of: it moves the generation as the spec does.
    fn prepare_update(&self, object: &mut Value, old: &Value, _context: &WriteContext<'_>) {
        let same_spec = object["spec"] == old["spec"];
        if same_spec && object["metadata"]["annotations"] != old["metadata"]["annotations"] {
            object["metadata"]["generation"] = (integer(&old["metadata"]["generation"]) + 1).into();
        }
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let spec = &object["spec"];
        let path = Path::new("spec");
        let mut errors = workload::not_negative(spec, "replicas");
        errors.extend(workload::validate_selector_and_template(spec, "deployment"));
        errors.extend(validate_strategy(&spec["strategy"], &path.child("strategy")));
        for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
            errors.extend(workload::not_negative(spec, field));
        }
        if let Some(deadline) =
            spec["progressDeadlineSeconds"].as_i64().filter(|d| *d <= integer(&spec["minReadySeconds"]))
        {
            let message = "must be greater than minReadySeconds";
            errors.push(Error::invalid(&path.child("progressDeadlineSeconds"), deadline, message));
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate_create(object);
        errors.extend(workload::immutable_selector(object, old));
        errors
    }

    /// `ValidateDeploymentStatusUpdate`
    fn validate_status_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let status = &object["status"];
        let path = Path::new("status");
        let counts = [
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
            "terminatingReplicas",
            "collisionCount",
        ];
        for field in counts {
            if let Some(count) = status[field].as_i64().filter(|count| *count < 0) {
                errors.push(Error::invalid(&path.child(field), count, "must be greater than or equal to 0"));
            }
        }
        for (small, large) in [
            ("updatedReplicas", "replicas"),
            ("readyReplicas", "replicas"),
            ("availableReplicas", "replicas"),
            ("availableReplicas", "readyReplicas"),
        ] {
            if integer(&status[small]) > integer(&status[large]) {
                let message = format!(
                    "cannot be greater than {}",
                    if large == "replicas" { "status.replicas" } else { "readyReplicas" }
                );
                errors.push(Error::invalid(&path.child(small), integer(&status[small]), message));
            }
        }
        let collisions = integer(&status["collisionCount"]);
        if collisions < integer(&old["status"]["collisionCount"]) {
            errors.push(Error::invalid(&path.child("collisionCount"), collisions, "cannot be decremented"));
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
            format!("{}/{}", integer(&status["readyReplicas"]), integer(&spec["replicas"])).into(),
            integer(&status["updatedReplicas"]).into(),
            integer(&status["availableReplicas"]).into(),
            age_cell(object, now),
            containers_cell(&spec["template"], "name"),
            containers_cell(&spec["template"], "image"),
            selector_cell(&spec["selector"]),
        ]
    }
}

/// `ValidateDeploymentStrategy`
fn validate_strategy(strategy: &Value, path: &Path) -> ErrorList {
    let rolling = &strategy["rollingUpdate"];
    let at = path.child("rollingUpdate");
    match text(&strategy["type"]) {
        "Recreate" if !rolling.is_null() => {
            vec![Error::forbidden(&at, "may not be specified when strategy `type` is 'Recreate'")]
        }
        "Recreate" => ErrorList::new(),
        "RollingUpdate" if rolling.is_null() => vec![Error::required(&at, "this should be defaulted and never be nil")],
        "RollingUpdate" => {
            let (unavailable, surge) = (&rolling["maxUnavailable"], &rolling["maxSurge"]);
            let mut errors = workload::int_or_percent(unavailable, &at.child("maxUnavailable"));
            errors.extend(workload::int_or_percent(surge, &at.child("maxSurge")));
            if workload::is_zero(unavailable) && workload::is_zero(surge) {
                let message = "may not be 0 when `maxSurge` is 0";
                errors.push(Error::invalid(&at.child("maxUnavailable"), unavailable.clone(), message));
            }
            errors.extend(workload::at_most_all(unavailable, &at.child("maxUnavailable")));
            errors
        }
        other => {
            let mut error = Error::not_supported(path, other, &["Recreate", "RollingUpdate"]);
            error.value = Some(format!("{{\"Type\":{},\"RollingUpdate\":{rolling}}}", json!(other)));
            vec![error]
        }
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
        Deployment.default(&mut object);
        object
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let spec = &base()["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    }

    #[test]
    fn mistakes_are_named() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (
                json!({"spec": {"replicas": -1}}),
                vec!["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"spec": {"template": {"metadata": {"labels": {"app": "b"}}}}}),
                vec![
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"spec": {"template": {"spec": {"restartPolicy": "Never"}}}}),
                vec!["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
            ),
            (
                json!({"spec": {"strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "0%"}}}}),
                vec!["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
            ),
            (
                json!({"spec": {"strategy": {"type": "Recreate"}}}),
                vec!["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
            ),
            (
                json!({"spec": {"strategy": {"type": "Sudden", "rollingUpdate": null}}}),
                vec![
                    "spec.strategy: Unsupported value: {\"Type\":\"Sudden\",\"RollingUpdate\":null}: supported values: \"Recreate\", \"RollingUpdate\"",
                ],
            ),
            (
                json!({"spec": {"selector": null}}),
                vec![
                    "spec.selector: Required value",
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                json!({"spec": {"minReadySeconds": 700}}),
                vec!["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
            ),
        ] {
            assert_eq!(messages(&Deployment.validate_create(&mutated(&base(), &mutation))), expected, "{mutation}");
        }
    }

    #[test]
    fn the_selector_is_for_good() {
        let changed = mutated(
            &base(),
            &json!({"spec": {"selector": {"matchLabels": {"x": "y"}}, "template": {"metadata": {"labels": {"x": "y"}}}}}),
        );
        let errors = messages(&Deployment.validate_update(&changed, &base()));
        assert_eq!(
            errors,
            ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\",\"x\":\"y\"}}: field is immutable"]
        );
    }

    #[test]
    fn a_status_never_forgets_a_collision() {
        let old = mutated(&base(), &json!({"status": {"collisionCount": 2}}));
        let object = mutated(&base(), &json!({"status": {"collisionCount": 1, "terminatingReplicas": -1}}));
        assert_eq!(
            messages(&Deployment.validate_status_update(&object, &old)),
            [
                "status.terminatingReplicas: Invalid value: -1: must be greater than or equal to 0",
                "status.collisionCount: Invalid value: 1: cannot be decremented",
            ]
        );
    }

    #[test]
    fn a_name_that_pods_can_not_bear_is_warned_of_once() {
        let object = mutated(&base(), &json!({"metadata": {"name": "a.b"}}));
        let warnings = Deployment.warnings(&object, None);
        assert_eq!(
            warnings,
            [
                "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]"
            ]
        );
        assert!(Deployment.warnings(&object, Some(&object)).is_empty());
    }

    #[test]
    fn a_row_counts_the_pods() {
        let object = mutated(
            &base(),
            &json!({"spec": {"replicas": 3}, "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}}),
        );
        assert_eq!(
            Deployment.row(&object, NOW),
            [json!("a"), json!("2/3"), json!(3), json!(2), json!("60m"), json!("c"), json!("i"), json!("app=a")]
        );
    }
}
