//! The budget's decisions, by table.

use serde_json::{Value, json};

use super::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("a time")
}

fn budget(spec: &Value, status: &Value) -> PodDisruptionBudget {
    serde_json::from_value(json!({
        "metadata": {"name": "b", "namespace": "n", "generation": 3}, "spec": spec, "status": status,
    }))
    .expect("a budget")
}

fn pods(ready: &[bool]) -> Vec<Arc<SlimPod>> {
    let pod = |(index, ready): (usize, &bool)| {
        let ready = if *ready { "True" } else { "False" };
        let pod = json!({"metadata": {"name": format!("p{index}"), "namespace": "n"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    };
    ready.iter().enumerate().map(pod).collect()
}

#[test]
fn what_may_go_is_what_is_healthy_beyond_what_is_desired() {
    let table = [
        (json!({"minAvailable": 2}), &[true, true, true][..], 1),
        (json!({"minAvailable": 2}), &[true, true, false][..], 0),
        (json!({"minAvailable": "50%"}), &[true, true, true][..], 1),
        (json!({"maxUnavailable": 1}), &[true, true, true][..], 1),
        (json!({"maxUnavailable": 1}), &[true, true, false][..], 0),
        (json!({"maxUnavailable": "34%"}), &[true, true, true][..], 2),
        (json!({"minAvailable": 0}), &[][..], 0),
    ];
    for (spec, ready, expected) in table {
        let (budget, pods) = (budget(&spec, &json!({})), pods(ready));
        let count = i32::try_from(pods.len()).expect("few");
        let desired = match reconcile::expectation(&budget) {
            Expectation::Count(desired) => desired,
            Expectation::Scale | Expectation::Nothing => reconcile::desired(&budget, count),
        };
        let (status, _) = reconcile::status(&budget, &pods, count, desired, now());
        assert_eq!(status.disruptions_allowed, Some(expected), "{spec} {ready:?}");
        let condition = &status.conditions.expect("conditions")[0];
        assert_eq!(condition.reason, if expected > 0 { "SufficientPods" } else { "InsufficientPods" });
        assert_eq!(status.observed_generation, Some(3));
    }
}

#[test]
fn a_pod_that_was_evicted_counts_as_going_for_two_minutes() {
    let noted = |seconds: i64| {
        let time = (now() - jiff::SignedDuration::from_secs(seconds)).to_string();
        budget(&json!({"minAvailable": 1}), &json!({"disruptedPods": {"p0": time}}))
    };
    let (status, again) = reconcile::status(&noted(60), &pods(&[true, true]), 2, 1, now());
    assert_eq!((status.current_healthy, status.disruptions_allowed), (Some(1), Some(0)));
    assert_eq!((status.disrupted_pods.map(|pods| pods.len()), again.map(|again| again.as_secs())), (Some(1), Some(60)));
    let (status, again) = reconcile::status(&noted(121), &pods(&[true, true]), 2, 1, now());
    assert_eq!((status.current_healthy, status.disrupted_pods, again), (Some(2), None, None));
}

#[test]
fn a_second_pass_writes_nothing_and_a_failure_lets_nothing_go() {
    let budget = budget(&json!({"minAvailable": 1}), &json!({"disruptionsAllowed": 5}));
    let (one, _) = reconcile::status(&budget, &pods(&[true]), 1, 1, now());
    let mut written = budget.clone();
    written.status = Some(one.clone());
    let (two, _) = reconcile::status(&written, &pods(&[true]), 1, 1, now());
    assert!(reconcile::same_status(&one, &two));
    let failed = reconcile::failed(&budget, "found no controllers", now());
    assert_eq!(
        (failed.disruptions_allowed, failed.conditions.expect("conditions")[0].reason.as_str()),
        (Some(0), "SyncFailed")
    );
}

#[test]
fn a_pod_that_nobody_deletes_is_no_longer_disrupted_after_two_minutes() {
    let pod = |status: &str, reason: &str| {
        let condition = json!({"type": "DisruptionTarget", "status": status, "reason": reason,
            "lastTransitionTime": "2023-11-14T22:12:20Z"});
        let pod = json!({"metadata": {"name": "a"}, "status": {"phase": "Running", "conditions": [condition]}});
        serde_json::from_value::<SlimPod>(pod).expect("a pod")
    };
    let left = reconcile::stale_after(&pod("True", "EvictionByEvictionAPI"), now());
    assert_eq!(left.map(|left| left.as_secs()), Some(60));
    assert_eq!(reconcile::stale_after(&pod("False", "EvictionByEvictionAPI"), now()), None);
    assert_eq!(reconcile::stale_after(&pod("True", "TerminationByKubelet"), now()), None);
}
