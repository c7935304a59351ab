//! The ReplicaSet's decisions: the order of deletion by table, and convergence by property.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::reconcile::{Action, Observed, reconcile, same_status, status};
use super::*;

const NOW: i64 = 1_700_000_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("a time")
}

fn set(replicas: i32) -> ReplicaSet {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "n", "uid": "set", "generation": 1},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": []}}},
    }))
    .expect("a ReplicaSet")
}

fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": {"app": "web"},
                     "creationTimestamp": "2023-11-14T00:00:00Z"},
        "spec": {"nodeName": "node-1"},
        "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2023-11-14T00:01:00Z"}]},
    })
}

fn with(mut pod: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
    pod.pointer_mut(parent).expect("a parent")[field] = value;
    pod
}

fn parse(pod: &Value) -> Arc<SlimPod> {
    Arc::new(serde_json::from_value(pod.clone()).expect("a pod"))
}

fn first_deleted(pods: &[Value]) -> String {
    let pods: Vec<Arc<SlimPod>> = pods.iter().map(parse).collect();
    let replicas = i32::try_from(pods.len()).expect("few") - 1;
    let set = set(replicas);
    let observed = Observed { set: &set, pods: &pods, related: &pods, settled: true };
    match reconcile(observed, now()) {
        Some(Action::Delete(surplus)) => surplus[0].metadata.name.clone().expect("a name"),
        other => panic!("expected a deletion, not {other:?}"),
    }
}

#[test]
fn the_order_of_deletion_is_upstreams() {
    let other_node = |name: &str| with(pod(name), "/spec/nodeName", json!("node-2"));
    let conditions = |since: &str| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
    let annotations = |cost: &str| json!({"controller.kubernetes.io/pod-deletion-cost": cost});
    let table = [
        ("unassigned before assigned", with(pod("first"), "/spec", json!({}))),
        ("pending before running", with(pod("first"), "/status/phase", json!("Pending"))),
        ("not ready before ready", with(pod("first"), "/status/conditions", json!([]))),
        ("lower cost first", with(pod("first"), "/metadata/annotations", annotations("-5"))),
        ("ready for less time first", with(pod("first"), "/status/conditions", conditions("2023-11-14T22:13:00Z"))),
        (
            "more restarts first",
            with(pod("first"), "/status/containerStatuses", json!([{"name": "c", "restartCount": 9}])),
        ),
        ("younger first", with(pod("first"), "/metadata/creationTimestamp", json!("2023-11-14T22:13:00Z"))),
    ];
    for (rule, candidate) in table {
        let candidate = with(candidate, "/metadata/uid", json!("z"));
        let pods = [pod("a"), with(candidate, "/metadata/name", json!("first"))];
        assert_eq!(first_deleted(&pods), "first", "{rule}");
    }
    assert_eq!(first_deleted(&[other_node("a"), pod("b"), pod("c")]), "b", "the more crowded node first");
}

#[test]
fn nothing_is_created_or_deleted_while_own_writes_are_unseen_or_the_set_is_being_deleted() {
    let unsettled = set(3);
    assert!(reconcile(Observed { set: &unsettled, pods: &[], related: &[], settled: false }, now()).is_none());
    let mut deleting = set(3);
    deleting.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now()));
    assert!(reconcile(Observed { set: &deleting, pods: &[], related: &[], settled: true }, now()).is_none());
}

#[test]
fn one_pass_creates_no_more_than_the_burst() {
    let set = set(2000);
    let action = reconcile(Observed { set: &set, pods: &[], related: &[], settled: true }, now());
    assert!(matches!(action, Some(Action::Create(500))), "{action:?}");
}

#[test]
fn a_pod_counts_as_available_after_the_minimum_time() {
    let mut set = set(1);
    set.spec.min_ready_seconds = Some(60);
    let conditions = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2023-11-14T22:13:00Z"}]);
    let pods = [parse(&with(pod("a"), "/status/conditions", conditions))];
    let early = status(&set, &pods, 0, None, now());
    assert_eq!((early.ready_replicas, early.available_replicas), (Some(1), Some(0)));
    let wait = reconcile::next_check(&set, &pods, now()).expect("a wait");
    let later = now() + jiff::SignedDuration::try_from(wait).expect("a duration");
    assert_eq!(status(&set, &pods, 0, None, later).available_replicas, Some(1));
}

#[test]
fn a_failure_is_a_condition_until_the_next_success() {
    let set_without = set(3);
    let failed = status(&set_without, &[], 0, Some("quota exceeded"), now());
    let condition = &failed.conditions.as_ref().expect("conditions")[0];
    assert_eq!(
        (condition.type_.as_deref().unwrap_or_default(), condition.reason.as_deref()),
        ("ReplicaFailure", Some("FailedCreate"))
    );
    let mut set_with = set(3);
    set_with.status = Some(failed);
    assert!(status(&set_with, &[], 0, None, now()).conditions.is_none());
}

#[test]
fn the_pod_has_the_templates_labels_and_the_set_as_its_controller() {
    let set = set(1);
    let pod = pod_from_template(&PodOwner::of(&set), &set.spec.template.clone().expect("a template"));
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("web-"));
    assert_eq!(controller_of(&pod.metadata).expect("an owner").uid, "set");
    assert_eq!(pod.metadata.labels.expect("labels")["app"], "web");
}

proptest! {
    #[test]
    fn from_any_pods_the_desired_number_is_reached_and_kept(desired in 0i32..700, ready in proptest::collection::vec(any::<bool>(), 0..700)) {
        let set = set(desired);
        let make = |index: usize, ready: bool| {
            let pod = pod(&format!("pod-{index}"));
            parse(&if ready { pod } else { with(pod, "/status/conditions", json!([])) })
        };
        let mut pods: Vec<Arc<SlimPod>> = ready.iter().enumerate().map(|(index, ready)| make(index, *ready)).collect();
        let mut next = pods.len();
        let mut passes = 0;
        while let Some(action) = reconcile(Observed { set: &set, pods: &pods, related: &pods, settled: true }, now()) {
            match action {
                Action::Create(count) => for _ in 0..count {
                    pods.push(make(next, false));
                    next += 1;
                },
                Action::Delete(surplus) => pods.retain(|pod| !surplus.iter().any(|gone| gone.metadata.uid == pod.metadata.uid)),
            }
            passes += 1;
            prop_assert!(passes <= 3, "acts on and on");
        }
        prop_assert_eq!(pods.len(), usize::try_from(desired).expect("positive"));
        let reached = status(&set, &pods, 0, None, now());
        prop_assert!(same_status(&reached, &status(&set, &pods, 0, None, now())));
    }
}

#[test]
fn a_replication_controller_is_seen_as_the_replica_set_of_its_labels() {
    let own: ReplicationController = serde_json::from_value(json!({
        "metadata": {"name": "rc", "namespace": "n", "uid": "u"},
        "spec": {"replicas": 2, "selector": {"app": "web"}, "template": {"metadata": {"labels": {"app": "web"}}}},
        "status": {"replicas": 1, "conditions": [{"type": "ReplicaFailure", "status": "True", "message": "m"}]},
    }))
    .expect("a ReplicationController");
    let set = replication::replica_set(&own);
    assert!(selector_matches(&set.spec.selector, Some(&[("app".to_owned(), "web".to_owned())].into())));
    assert_eq!((set.spec.replicas, set.metadata.uid.as_deref()), (Some(2), Some("u")));
    let back = replication::status(set.status.expect("a status"));
    assert_eq!(Some(back), own.status);
}
