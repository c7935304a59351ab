//! What is said of writes to a pod's status.

use super::*;

fn on_status(old: Value, new: Value) -> Vec<String> {
    let with = |status: Value| mutated(&pod_with(json!({"restartPolicy": "Never"})), &json!({ "status": status }));
    messages(&status::validate_status_update(&with(new), &with(old)))
}

#[test]
fn a_container_that_ended_does_not_come_back() {
    let ended = json!({"containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 1}}}]});
    let running = json!({"containerStatuses": [{"name": "main", "state": {"running": {}}}]});
    assert_eq!(
        on_status(ended.clone(), running.clone()),
        ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]
    );
    assert_eq!(on_status(running, ended.clone()), [""; 0]);
    let restarting = |status: Value| mutated(&pod(), &json!({ "status": status }));
    let (old, new) =
        (restarting(ended), restarting(json!({"containerStatuses": [{"name": "main", "state": {"running": {}}}]})));
    assert_eq!(messages(&status::validate_status_update(&new, &old)), [""; 0]);
}

#[test]
fn addresses_are_consistent() {
    assert_eq!(
        on_status(json!({}), json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]})),
        [""; 0]
    );
    assert_eq!(
        on_status(json!({}), json!({"podIP": "10.0.0.1"})),
        ["status.podIPs: Invalid value: null: podIP and podIPs must either both be set or both be unset"]
    );
    assert_eq!(
        on_status(json!({}), json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.2"}]})),
        ["status.podIPs[0].ip: Invalid value: \"10.0.0.2\": must be equal to `podIP`"]
    );
    assert_eq!(
        on_status(json!({}), json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]})),
        [
            "status.podIPs: Invalid value: [{\"ip\":\"10.0.0.1\"},{\"ip\":\"10.0.0.2\"}]: may specify no more than one IP for each IP family"
        ]
    );
    assert_eq!(
        on_status(json!({}), json!({"hostIP": "1.1.1.1", "hostIPs": [{"ip": "1.1.1.2"}]})),
        ["status.hostIPs[0].ip: Invalid value: \"1.1.1.2\": must be equal to `hostIP`"]
    );
}

#[test]
fn the_quality_of_service_does_not_change() {
    assert_eq!(
        on_status(json!({"qosClass": "Burstable"}), json!({"qosClass": "Guaranteed"})),
        ["status.qosClass: Invalid value: \"Guaranteed\": field is immutable"]
    );
}

#[test]
fn conditions_have_qualified_names() {
    let errors = on_status(json!({}), json!({"conditions": [{"type": "a b", "status": "True"}]}));
    assert!(errors[0].starts_with("status.conditions[0].Type: Invalid value: \"a b\": name part must consist of"));
}
