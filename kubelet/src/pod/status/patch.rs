//! The patch that makes the API's status of a pod what was made here.
//!
//! Invariant: it says all that is the kubelet's, whatever the API has, so that it needs no knowledge of what was written
//! before: a strategic merge would otherwise keep a condition's old reason, or an address that is no more. What others own
//! in a status is not in it.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

use super::conditions::{RESIZE, is_own};

/// Fields of a status that are the kubelet's alone; absent means none.
const SCALARS: [&str; 9] =
    ["hostIP", "message", "observedGeneration", "phase", "podIP", "qosClass", "reason", "startTime", "conditions"];
/// Lists that are written as a whole.
const LISTS: [&str; 3] = ["containerStatuses", "ephemeralContainerStatuses", "initContainerStatuses"];
/// Lists whose items a merge would keep.
const MERGED_LISTS: [&str; 2] = ["hostIPs", "podIPs"];
/// What a resize may take out of a list of amounts, which a merge would keep.
const RESOURCES: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
/// Fields of a condition; absent means none.
const CONDITION: [&str; 3] = ["lastProbeTime", "message", "reason"];

/// The strategic merge patch for the pod of this UID: the API refuses it (409) for another pod of that name.
pub fn status_patch(uid: &str, status: &PodStatus) -> Value {
    // A status has no map with keys other than text, so that it always becomes JSON.
    let mut fields = serde_json::to_value(status).unwrap_or(Value::Null);
    let mut patch = Map::new();
    for field in SCALARS.into_iter().chain(LISTS) {
        patch.insert(field.to_owned(), fields[field].take());
    }
    patch.insert("conditions".to_owned(), conditions(patch.get("conditions")));
    for field in MERGED_LISTS {
        let mut list = fields[field].take();
        if let Some(items) = list.as_array_mut() {
            items.push(json!({"$patch": "replace"}));
        }
        patch.insert(field.to_owned(), list);
    }
    let mut resources = fields["resources"].take();
    if let Some(resources) = resources.as_object_mut() {
        for list in ["limits", "requests"] {
            let amounts = amounts(resources.remove(list));
            resources.insert(list.to_owned(), amounts);
        }
    }
    patch.insert("resources".to_owned(), resources);
    patch.insert("allocatedResources".to_owned(), amounts(Some(fields["allocatedResources"].take())));
    json!({"metadata": {"uid": uid}, "status": patch})
}

fn conditions(all: Option<&Value>) -> Value {
    let all = all.and_then(Value::as_array).into_iter().flatten();
    let own = all.filter(|condition| is_own(&condition["type"], &condition["reason"]));
    let whole = |condition: &Value| {
        let mut condition = condition.clone();
        for field in CONDITION {
            // Null takes away what the API may have.
            condition[field] = condition[field].take();
        }
        condition
    };
    let mut patch: Vec<Value> = own.map(whole).collect();
    for kind in RESIZE {
        // A merge keeps what is not named: a resize that is over has to be taken out.
        if !patch.iter().any(|condition| condition["type"] == kind) {
            patch.push(json!({"$patch": "delete", "type": kind}));
        }
    }
    Value::Array(patch)
}

/// Null takes away what the API may have.
fn amounts(list: Option<Value>) -> Value {
    let Some(Value::Object(mut list)) = list else { return Value::Null };
    for name in RESOURCES {
        list.entry(name).or_insert(Value::Null);
    }
    Value::Object(list)
}
