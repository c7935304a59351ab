//! What is said of changes to a pod.

use super::*;

fn on_update(old: &Value, new: Value) -> Vec<String> {
    messages(&update::validate_update(&new, old))
}

#[test]
fn images_deadlines_and_new_tolerations_may_change() {
    let old = pod();
    for change in [
        json!({}),
        json!({"activeDeadlineSeconds": 10}),
        json!({"tolerations": [{"key": "a", "operator": "Exists"}]}),
        json!({"containers": [{"name": "main", "image": "nginx:2"}]}),
    ] {
        assert_eq!(on_update(&old, pod_with(change.clone())), [""; 0], "{change}");
    }
}

#[test]
fn nothing_else_may_change() {
    let errors = on_update(&pod(), pod_with(json!({"priorityClassName": "high"})));
    let expected = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n@@ -";
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with(expected), "{}", errors[0]);
    assert!(errors[0].contains("\n+ \"priorityClassName\": \"high\",\n"), "{}", errors[0]);
}

#[test]
fn containers_are_neither_added_nor_removed() {
    let two = pod_with(json!({"containers": [{"name": "a", "image": "b"}, {"name": "c", "image": "d"}]}));
    assert_eq!(on_update(&pod(), two), ["spec.containers: Forbidden: pod updates may not add or remove containers"]);
}

#[test]
fn a_deadline_only_comes_nearer() {
    let old = pod_with(json!({"activeDeadlineSeconds": 10}));
    assert_eq!(
        on_update(&old, pod_with(json!({"activeDeadlineSeconds": 11}))),
        ["spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value"]
    );
    assert_eq!(
        on_update(&old, pod()),
        ["spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value"]
    );
}

#[test]
fn tolerations_stay_and_gates_go() {
    let old =
        pod_with(json!({"tolerations": [{"key": "a", "operator": "Exists"}], "schedulingGates": [{"name": "g"}]}));
    assert_eq!(
        on_update(&old, pod_with(json!({"schedulingGates": [{"name": "g"}]}))),
        ["spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"]
    );
    let tolerations = json!([{"key": "a", "operator": "Exists"}]);
    assert_eq!(on_update(&old, pod_with(json!({"tolerations": tolerations}))), [""; 0]);
    assert_eq!(
        on_update(&old, pod_with(json!({"tolerations": tolerations, "schedulingGates": [{"name": "h"}]}))),
        ["spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'h'"]
    );
}

#[test]
fn a_gated_pod_may_be_narrowed() {
    let gated = |more: Value| pod_with(mutated(&json!({"schedulingGates": [{"name": "g"}]}), &more));
    let old = gated(json!({"nodeSelector": {"a": "b"}}));
    assert_eq!(on_update(&old, gated(json!({"nodeSelector": {"a": "b", "c": "d"}}))), [""; 0]);
    assert_eq!(
        on_update(&old, gated(json!({"nodeSelector": {"a": "c"}}))),
        [
            "spec.nodeSelector: Invalid value: {\"a\":\"c\"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        ]
    );
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}});
    assert_eq!(on_update(&old, gated(json!({"nodeSelector": {"a": "b"}, "affinity": affinity}))), [""; 0]);
}

#[test]
fn a_mirror_pod_stays_one() {
    let key = crate::kinds::core::pod::MIRROR_ANNOTATION;
    let mirror =
        |value: &str| mutated(&pod_with(json!({"nodeName": "n"})), &json!({"metadata": {"annotations": {key: value}}}));
    assert_eq!(
        on_update(&mirror("a"), mirror("b")),
        [
            "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not remove or update mirror pod annotation"
        ]
    );
}
