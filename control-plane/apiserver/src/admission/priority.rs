//! Priority: a pod's priority class becomes a number.

use serde_json::Value;
use skep_api::{GroupResource, Status};

use super::{Objects, Operation, Plugin, Request};

/// The classes that are there without being objects.
const BUILT_IN: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

pub(super) struct Priority;

impl Plugin for Priority {
    fn admit(&self, request: &Request<'_>, pod: &mut Value, objects: &dyn Objects) -> Result<(), Status> {
        if request.operation != Operation::Create || !request.is_core("pods") {
            return Ok(());
        }
        let classes = GroupResource::new("scheduling.k8s.io", "priorityclasses");
        let spec = &mut pod["spec"];
        let mut name = spec["priorityClassName"].as_str().unwrap_or_default().to_owned();
        let default = || {
            let classes = objects.list(&classes, None);
            let defaults = classes.into_iter().filter(|class| class["globalDefault"] == true);
            // Of several the lowest counts, so that the outcome does not depend on their order.
            defaults.min_by_key(|class| class["value"].as_i64().unwrap_or_default())
        };
        let (value, policy) = if name.is_empty() {
            match default() {
                Some(class) => {
                    class["metadata"]["name"].as_str().unwrap_or_default().clone_into(&mut name);
                    (class["value"].as_i64().unwrap_or_default(), class["preemptionPolicy"].clone())
                }
                None => (0, Value::Null),
            }
        } else if let Some((_, value)) = BUILT_IN.iter().find(|(there, _)| *there == name) {
            (*value, Value::Null)
        } else {
            match objects.get(&classes, "", &name) {
                Some(class) => (class["value"].as_i64().unwrap_or_default(), class["preemptionPolicy"].clone()),
                None => return Err(request.forbidden(&format!("no PriorityClass with name {name} was found"))),
            }
        };
        if spec["priority"].as_i64().is_some_and(|given| given != value) {
            return Err(request.forbidden(&format!(
                "the integer value of priority ({}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name",
                spec["priority"]
            )));
        }
        if !name.is_empty() {
            spec["priorityClassName"] = name.into();
        }
        spec["priority"] = value.into();
        if spec["preemptionPolicy"].is_null() {
            spec["preemptionPolicy"] = if policy.is_null() { "PreemptLowerPriority".into() } else { policy };
        }
        Ok(())
    }
}
