//! The group `policy`: PodDisruptionBudget, how many of some pods may be evicted at a time.

use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::apps::workload::{at_most_all, int_or_percent};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::fields::{conditions, not_negative, one_of};
use crate::kinds::tree::integer;
use crate::kinds::{Subresource, WriteContext, names};
use crate::meta::validate_label_selector;

/// `policy/v1 PodDisruptionBudget`
#[must_use]
pub fn pod_disruption_budget() -> Kind {
    Kind {
        short_names: names(&["pdb"]),
        subresources: vec![Subresource::Status],
        has_generation: true,
        unconditional_update: false,
        columns: vec![
            Column::name(),
            Column::new("Min Available", "string", "How many pods must stay available."),
            Column::new("Max Unavailable", "string", "How many pods may be unavailable."),
            Column::new("Allowed Disruptions", "integer", "How many pods may be evicted now."),
            Column::age(),
        ],
        ..Kind::new(
            GroupVersion::new("policy", "v1"),
            "PodDisruptionBudget",
            "poddisruptionbudgets",
            "io.k8s.api.policy.v1.PodDisruptionBudget",
            PodDisruptionBudget,
        )
    }
}

struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn prepare_create(&self, object: &mut Value, _: &WriteContext<'_>) {
        object["status"] =
            json!({ "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0 });
    }

    /// `ValidatePodDisruptionBudgetSpec`
    fn validate_create(&self, object: &Value) -> ErrorList {
        let (spec, path) = (&object["spec"], Path::new("spec"));
        let mut errors = ErrorList::new();
        if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
            let message = "minAvailable and maxUnavailable cannot be both set";
            errors.push(Error::invalid(&path, spec.clone(), message));
        }
        for field in ["minAvailable", "maxUnavailable"] {
            errors.extend(int_or_percent(&spec[field], &path.child(field)));
            errors.extend(at_most_all(&spec[field], &path.child(field)));
        }
        errors.extend(validate_label_selector(&spec["selector"], &path.child("selector")));
        errors.extend(one_of(spec, "unhealthyPodEvictionPolicy", &path, &["AlwaysAllow", "IfHealthyBudget"]));
        errors
    }

    fn validate_status_update(&self, object: &Value, _: &Value) -> ErrorList {
        let (status, path) = (&object["status"], Path::new("status"));
        let mut errors = conditions(&status["conditions"], &path.child("conditions"));
        let counts = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
        errors.extend(not_negative(status, &counts, &path));
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let count = |field: &str| -> Value {
            match &object["spec"][field] {
                Value::Null => "N/A".into(),
                Value::String(text) => text.as_str().into(),
                other => other.to_string().into(),
            }
        };
        vec![
            name_cell(object),
            count("minAvailable"),
            count("maxUnavailable"),
            integer(&object["status"]["disruptionsAllowed"]).into(),
            age_cell(object, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages};

    #[test]
    fn a_budget_says_one_of_two() {
        for (spec, expected) in [
            (json!({"minAvailable": "50%", "selector": {}}), vec![]),
            (
                json!({"minAvailable": 1, "maxUnavailable": 1}),
                vec![
                    "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set",
                ],
            ),
            (
                json!({"minAvailable": -1}),
                vec!["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                json!({"maxUnavailable": "101%"}),
                vec!["spec.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%"],
            ),
        ] {
            assert_eq!(messages(&PodDisruptionBudget.validate_create(&json!({ "spec": spec }))), expected);
        }
        let object = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 2}});
        assert_eq!(PodDisruptionBudget.row(&object, NOW)[..4], [json!("b"), json!("2"), json!("N/A"), json!(0)]);
    }
}
