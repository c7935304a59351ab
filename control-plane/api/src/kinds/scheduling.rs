//! The group `scheduling.k8s.io`: PriorityClass, a name for how important a pod is.

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::declaration::{Column, Kind, Scope, Strategy};
use crate::kinds::names;
use crate::kinds::tree::{fill, flag, immutable, integer, text};

/// `scheduling.k8s.io/v1 PriorityClass`
#[must_use]
pub fn priority_class() -> Kind {
    Kind {
        short_names: names(&["pc"]),
        scope: Scope::Cluster,
        has_generation: true,
        columns: vec![
            Column::name(),
            Column::new("Value", "integer", "The priority of its pods; higher goes first."),
            Column::new("Global-Default", "boolean", "Whether it is for pods that name no class."),
            Column::age(),
            Column::new("PreemptionPolicy", "string", "Whether its pods may displace others."),
        ],
        ..Kind::new(
            GroupVersion::new("scheduling.k8s.io", "v1"),
            "PriorityClass",
            "priorityclasses",
            "io.k8s.api.scheduling.v1.PriorityClass",
            PriorityClass,
        )
    }
}

/// The highest priority that a user may define.
const HIGHEST_USER_DEFINABLE: i64 = 1_000_000_000;
/// The classes that every cluster has, and their values.
pub const SYSTEM_CLASSES: &[(&str, i64)] =
    &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

struct PriorityClass;

impl Strategy for PriorityClass {
    fn default(&self, object: &mut Value) {
        fill(object, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let name = text(&object["metadata"]["name"]);
        if name.starts_with("system-") {
            if let Err(why) = check_system_class(name, object) {
                let message = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
                );
                errors.push(Error::forbidden(&Path::new("metadata").child("name"), message));
            }
        } else if integer(&object["value"]) > HIGHEST_USER_DEFINABLE {
            let message = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_DEFINABLE}");
            errors.push(Error::forbidden(&Path::new("value"), message));
        }
        let path = Path::new("preemptionPolicy");
        match object["preemptionPolicy"].as_str() {
            Some("") => errors.push(Error::required(&path, "")),
            Some("PreemptLowerPriority" | "Never") | None => {}
            Some(other) => errors.push(Error::not_supported(&path, other, &["PreemptLowerPriority", "Never"])),
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if integer(&object["value"]) != integer(&old["value"]) {
            errors.push(Error::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        let path = Path::new("preemptionPolicy");
        errors.extend(immutable(&object["preemptionPolicy"], &old["preemptionPolicy"], &path));
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![
            name_cell(object),
            integer(&object["value"]).into(),
            flag(&object["globalDefault"]).into(),
            age_cell(object, now),
            text(&object["preemptionPolicy"]).into(),
        ]
    }
}

fn check_system_class(name: &str, object: &Value) -> Result<(), String> {
    let Some((_, value)) = SYSTEM_CLASSES.iter().find(|(known, _)| *known == name) else {
        return Err(format!("{name} is not a known system priority class"));
    };
    if integer(&object["value"]) != *value {
        return Err(format!("value of {name} PriorityClass must be {value}"));
    }
    if flag(&object["globalDefault"]) {
        return Err(format!("globalDefault of {name} PriorityClass must be false"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};
    use serde_json::json;

    fn base() -> Value {
        json!({"metadata": {"name": "high"}, "value": 100, "preemptionPolicy": "Never"})
    }

    #[test]
    fn the_highest_priorities_are_the_systems() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (
                json!({"value": 1_000_000_001}),
                vec!["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
            ),
            (
                json!({"metadata": {"name": "system-mine"}}),
                vec![
                    "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-mine is not a known system priority class",
                ],
            ),
            (json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}), vec![]),
            (
                json!({"preemptionPolicy": "Sometimes"}),
                vec![
                    "preemptionPolicy: Unsupported value: \"Sometimes\": supported values: \"PreemptLowerPriority\", \"Never\"",
                ],
            ),
        ] {
            assert_eq!(messages(&priority_class().strategy.validate_create(&mutated(&base(), &mutation))), expected);
        }
    }

    #[test]
    fn value_and_preemption_stay() {
        let object = mutated(&base(), &json!({"value": 1, "preemptionPolicy": "PreemptLowerPriority"}));
        assert_eq!(
            messages(&priority_class().strategy.validate_update(&object, &base())),
            [
                "value: Forbidden: may not be changed in an update.",
                "preemptionPolicy: Invalid value: \"PreemptLowerPriority\": field is immutable",
            ]
        );
    }

    #[test]
    fn a_class_preempts_unless_told() {
        let mut object = json!({"value": 1});
        priority_class().strategy.default(&mut object);
        assert_eq!(object["preemptionPolicy"], "PreemptLowerPriority");
        let cells = priority_class().strategy.row(&base(), NOW);
        assert_eq!(cells, [json!("high"), json!(100), json!(false), json!("<unknown>"), json!("Never")]);
    }
}
