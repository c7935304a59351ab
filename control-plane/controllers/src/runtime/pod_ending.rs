//! What controllers write to a pod that they end, or whose node is lost. Pure: the patches of its status.
//!
//! All are strategic merge patches with the pod's uid, so that a pod of the same name that follows is never hit; conditions are
//! merged by type and leave the others as they are.

use jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use serde_json::{Value, json};
use skep_client::slim::SlimPod;

/// The condition that says that a pod was ended by the system (KEP-3329).
const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// The condition `DisruptionTarget`; `None` if the pod has it for that reason already.
#[must_use]
pub fn disruption_target(pod: &SlimPod, reason: &str, message: &str, now: Timestamp) -> Option<Value> {
    let old = pod.condition(DISRUPTION_TARGET).filter(|condition| &*condition.status == "True");
    if old.is_some_and(|condition| condition.reason.as_deref() == Some(reason)) {
        return None;
    }
    let mut condition = json!({
        "type": DISRUPTION_TARGET, "status": "True", "reason": reason, "message": message,
        "observedGeneration": pod.metadata.generation,
    });
    if old.is_none() {
        condition["lastTransitionTime"] = json!(seconds(now));
    }
    Some(condition)
}

/// A patch that adds a condition.
#[must_use]
pub fn condition_patch(pod: &SlimPod, condition: &Value) -> Value {
    json!({"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}})
}

/// A patch that makes a pod failed, with a condition or none; `None` for a pod that has ended by itself.
#[must_use]
pub fn failed_patch(pod: &SlimPod, condition: Option<Value>) -> Option<Value> {
    if pod.is_terminal() {
        return None;
    }
    let mut status = json!({"phase": "Failed", "observedGeneration": pod.metadata.generation});
    if let Some(condition) = condition {
        status["conditions"] = json!([condition]);
    }
    Some(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}))
}

/// A patch that makes a pod not ready (`MarkPodsNotReady`); `None` for one that is so, or never said. It holds only for the
/// revision that was looked at, as the kubelet may write too.
#[must_use]
pub fn not_ready_patch(pod: &SlimPod, now: Timestamp) -> Option<Value> {
    let ready = pod.condition("Ready")?;
    (&*ready.status != "False").then(|| {
        json!({
            "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
            "status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": seconds(now)}]},
        })
    })
}

/// Deletes that pod and no other of its name; with the grace period of its own, or another.
#[must_use]
pub fn delete_params(pod: &SlimPod, grace_period_seconds: Option<u32>) -> DeleteParams {
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    DeleteParams { grace_period_seconds, preconditions: Some(preconditions), ..DeleteParams::default() }
}

/// As the API's times are: whole seconds.
fn seconds(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(phase: &str, conditions: &Value) -> SlimPod {
        let pod = json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 2},
            "status": {"phase": phase, "conditions": conditions},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn a_pod_that_has_ended_by_itself_is_not_made_failed() {
        for (phase, patched) in [("Running", true), ("Pending", true), ("Succeeded", false), ("Failed", false)] {
            assert_eq!(failed_patch(&pod(phase, &json!([])), None).is_some(), patched, "{phase}");
        }
    }

    #[test]
    fn only_a_pod_that_says_that_it_is_ready_is_made_not_ready() {
        let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
        for (conditions, patched) in
            [(json!([]), false), (ready("True"), true), (ready("Unknown"), true), (ready("False"), false)]
        {
            let patch = not_ready_patch(&pod("Running", &conditions), Timestamp::UNIX_EPOCH);
            assert_eq!(patch.is_some(), patched, "{conditions}");
        }
    }

    #[test]
    fn the_disruption_condition_is_written_once_a_reason_and_keeps_the_time_when_it_became_true() {
        let target = |pod: &SlimPod| disruption_target(pod, "DeletionByPodGC", "m", Timestamp::UNIX_EPOCH);
        let first = target(&pod("Running", &json!([]))).expect("a condition");
        assert_eq!(first["lastTransitionTime"], "1970-01-01T00:00:00Z");
        assert_eq!(first["observedGeneration"], 2);
        let has = |reason: &str| json!([{"type": "DisruptionTarget", "status": "True", "reason": reason}]);
        let other = target(&pod("Running", &has("EvictionByEvictionAPI"))).expect("a condition");
        assert!(other.get("lastTransitionTime").is_none());
        assert_eq!(target(&pod("Running", &has("DeletionByPodGC"))), None);
    }
}
