use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::health::{Healths, Liveness};
use super::reconcile::{Eviction, needs_eviction, patch, silent_conditions};
use super::zones::{Admission, ZoneState, Zones, zone_of};
use super::{NodeLifecycle, State};

fn node(name: &str, conditions: &[(&str, &str)], taints: &Value) -> Node {
    let conditions: Vec<_> =
        conditions.iter().map(|(kind, status)| json!({"type": kind, "status": status, "reason": "R"})).collect();
    let node = json!({
        "metadata": {"name": name, "uid": name, "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"taints": taints}, "status": {"conditions": conditions},
    });
    serde_json::from_value(node).expect("a node")
}

fn ready(name: &str, status: &str) -> Node {
    node(name, &[("Ready", status)], &json!([]))
}

fn heartbeat(name: &str, at: &str) -> Node {
    let mut node = ready(name, "True");
    let status = node.status.as_mut().expect("a status");
    status.conditions.as_mut().expect("conditions")[0].last_heartbeat_time =
        Some(serde_json::from_value(json!(at)).expect("a time"));
    node
}

fn apply(node: &Node, eviction: Eviction) -> (Node, bool) {
    let Some(patch) = patch(node, eviction, Timestamp::UNIX_EPOCH) else { return (node.clone(), false) };
    let mut changed = node.clone();
    if let Some(taints) = patch["spec"].get("taints") {
        changed.spec.get_or_insert_default().taints = serde_json::from_value(taints.clone()).expect("taints");
    }
    for (key, value) in patch["metadata"]["labels"].as_object().into_iter().flatten() {
        let value = value.as_str().expect("a text").to_owned();
        changed.metadata.labels.get_or_insert_default().insert(key.clone(), value);
    }
    (changed, true)
}

fn tainted(node: &Node, eviction: Eviction) -> Vec<String> {
    let (changed, _) = apply(node, eviction);
    assert!(!apply(&changed, eviction).1, "a second pass has nothing to do");
    let short = |taint: &Taint| {
        let key = taint.key.strip_prefix("node.kubernetes.io/").unwrap_or(&taint.key);
        format!("{key}:{}", taint.effect)
    };
    changed.spec.and_then(|spec| spec.taints).unwrap_or_default().iter().map(short).collect()
}

fn taint(key: &str, effect: &str) -> Value {
    json!({"key": format!("node.kubernetes.io/{key}"), "effect": effect})
}

/// Conditions, taints that are there, whether pods may be driven away, and the taints that come of it.
type Row<'a> = (&'a [(&'a str, &'a str)], &'a Value, Eviction, &'a [&'a str]);

#[test]
fn conditions_make_the_taints_that_are_theirs_and_no_others() {
    let new = json!([taint("not-ready", "NoSchedule")]);
    let foreign = json!([{"key": "own", "effect": "NoSchedule"}, taint("memory-pressure", "NoSchedule")]);
    let both = json!([taint("not-ready", "NoExecute"), taint("not-ready", "NoSchedule")]);
    let table: [Row<'_>; 9] = [
        (&[("Ready", "True")], &new, Eviction::Held, &[]),
        (&[("Ready", "False")], &new, Eviction::Held, &["not-ready:NoSchedule"]),
        (&[("Ready", "False")], &new, Eviction::Admitted, &["not-ready:NoSchedule", "not-ready:NoExecute"]),
        (&[("Ready", "True")], &both, Eviction::Held, &[]),
        (&[("Ready", "Unknown")], &both, Eviction::Held, &["unreachable:NoSchedule", "unreachable:NoExecute"]),
        (&[("Ready", "False")], &both, Eviction::Stopped, &["not-ready:NoSchedule"]),
        (&[], &new, Eviction::Held, &[]),
        (&[("Ready", "True"), ("MemoryPressure", "False")], &foreign, Eviction::Held, &["own:NoSchedule"]),
        (
            &[
                ("Ready", "True"),
                ("MemoryPressure", "True"),
                ("DiskPressure", "True"),
                ("PIDPressure", "True"),
                ("NetworkUnavailable", "True"),
            ],
            &json!([]),
            Eviction::Held,
            &[
                "memory-pressure:NoSchedule",
                "disk-pressure:NoSchedule",
                "network-unavailable:NoSchedule",
                "pid-pressure:NoSchedule",
            ],
        ),
    ];
    for (conditions, taints, eviction, expected) in table {
        assert_eq!(tainted(&node("n", conditions, taints), eviction), expected, "{conditions:?} {taints} {eviction:?}");
    }
}

#[test]
fn a_cordoned_node_is_tainted_as_unschedulable_until_it_is_not() {
    let mut node = ready("n", "True");
    node.spec.get_or_insert_default().unschedulable = Some(true);
    assert_eq!(tainted(&node, Eviction::Held), ["unschedulable:NoSchedule"]);
    let (mut node, _) = apply(&node, Eviction::Held);
    node.spec.get_or_insert_default().unschedulable = None;
    assert_eq!(tainted(&node, Eviction::Held), [""; 0]);
}

#[test]
fn the_beta_labels_repeat_the_stable_ones() {
    let mut node = ready("n", "True");
    node.metadata.labels =
        Some([("kubernetes.io/os", "linux"), ("beta.kubernetes.io/os", "x")].map(|(k, v)| (k.into(), v.into())).into());
    let (changed, _) = apply(&node, Eviction::Held);
    assert_eq!(changed.metadata.labels.expect("labels")["beta.kubernetes.io/os"], "linux");
}

#[test]
fn a_node_is_to_be_given_up_while_it_is_not_ready_and_nothing_drives_its_pods_away() {
    let driven = json!([taint("not-ready", "NoExecute")]);
    let table = [
        ("True", json!([]), false),
        ("False", json!([]), true),
        ("Unknown", json!([]), true),
        ("Unknown", driven, false),
    ];
    for (status, taints, expected) in table {
        assert_eq!(needs_eviction(&node("n", &[("Ready", status)], &taints)), expected, "{status} {taints}");
    }
}

#[test]
fn a_silent_node_is_unknown_in_upstreams_words_once() {
    let silent =
        node("n", &[("Ready", "True"), ("DiskPressure", "Unknown"), ("NetworkUnavailable", "False")], &json!([]));
    let conditions = silent_conditions(&silent, Timestamp::UNIX_EPOCH).expect("a change");
    let said: Vec<_> = conditions
        .iter()
        .map(|one| (one.type_.as_str(), one.status.as_str(), one.reason.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(
        said,
        [
            ("Ready", "Unknown", "NodeStatusUnknown"),
            ("DiskPressure", "Unknown", "R"),
            ("NetworkUnavailable", "False", "R"),
            ("MemoryPressure", "Unknown", "NodeStatusNeverUpdated"),
            ("PIDPressure", "Unknown", "NodeStatusNeverUpdated"),
        ]
    );
    assert_eq!(conditions[0].message.as_deref(), Some("Kubelet stopped posting node status."));
    assert_eq!(conditions[3].message.as_deref(), Some("Kubelet never posted node status."));
    let mut changed = silent;
    changed.status.get_or_insert_default().conditions = Some(conditions);
    assert_eq!(silent_conditions(&changed, Timestamp::now()), None);
}

#[test]
fn a_heartbeat_or_a_renewed_lease_puts_the_end_of_the_grace_period_off_and_nothing_else_does() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let (grace, startup) = (Duration::from_secs(50), Duration::from_secs(60));
    let renewal = |text: &str| serde_json::from_value::<MicroTime>(json!(text)).expect("a time");
    let mut healths = Healths::default();
    let live = |healths: &Healths, second: u64| healths.liveness("n", grace, startup, at(second));
    let heard = |seconds: u64| Some(Liveness::Heard(Duration::from_secs(seconds)));
    assert_eq!(live(&healths, 0), None);
    healths.observe_node(&heartbeat("n", "2020-01-01T00:00:00Z"), at(0));
    assert_eq!(live(&healths, 10), heard(40));
    healths.observe_node(&heartbeat("n", "2020-01-01T00:00:00Z"), at(20));
    assert_eq!(live(&healths, 20), heard(30), "no new heartbeat");
    healths.observe_node(&heartbeat("n", "2019-01-01T00:00:00Z"), at(30));
    assert_eq!(live(&healths, 30), heard(50), "the node's clock doesn't matter");
    assert!(healths.observe_lease("n", Some(&renewal("2020-01-01T00:00:00.000000Z")), at(40)));
    assert!(!healths.observe_lease("n", Some(&renewal("2020-01-01T00:00:00.000000Z")), at(60)));
    assert_eq!(live(&healths, 60), heard(30));
    assert_eq!(live(&healths, 90), Some(Liveness::Silent));
    healths.excuse_all(at(95));
    assert_eq!(live(&healths, 100), heard(45));
}

#[test]
fn a_node_that_never_said_how_it_is_has_the_longer_grace_period() {
    let (start, mut healths) = (Instant::now(), Healths::default());
    healths.observe_node(&node("n", &[], &json!([])), start);
    let live = |seconds: u64| {
        let now = start + Duration::from_secs(seconds);
        healths.liveness("n", Duration::from_secs(50), Duration::from_secs(60), now)
    };
    assert_eq!(live(55), Some(Liveness::Heard(Duration::from_secs(5))));
    assert_eq!(live(60), Some(Liveness::Silent));
}

#[test]
fn nodes_are_given_up_at_the_rate_of_a_zone_and_none_while_none_is_ready() {
    let (policy, start) = (NodeLifecycle::default(), Instant::now());
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let mut zones = Zones::default();
    zones.observe(&ready("a", "Unknown"), &policy);
    assert!(zones.all_disrupted());
    assert_eq!(zones.admit("", &policy, at(0)), Admission::Never);
    assert!(zones.observe(&ready("b", "True"), &policy));
    assert_eq!(zones.state("", &policy), ZoneState::Normal);
    assert_eq!(zones.admit("", &policy, at(0)), Admission::Now);
    assert_eq!(zones.admit("", &policy, at(4)), Admission::Wait(Duration::from_secs(6)));
    assert_eq!(zones.admit("", &policy, at(10)), Admission::Now);
    zones.give_back("");
    assert_eq!(zones.admit("", &policy, at(11)), Admission::Now, "the last permit was not used");
    for name in ["c", "d"] {
        zones.observe(&ready(name, "False"), &policy);
    }
    assert_eq!(zones.state("", &policy), ZoneState::PartialDisruption);
    assert_eq!(zones.admit("", &policy, at(99)), Admission::Never, "a small zone that is not well gives up none");
    zones.forget("b");
    assert!(zones.all_disrupted());
}

#[test]
fn zones_fare_each_for_itself_and_excluded_nodes_do_not_count() {
    let policy = NodeLifecycle::default();
    let labelled = |name: &str, status: &str, key: &str, value: &str| {
        let mut node = ready(name, status);
        node.metadata.labels = Some([(key.to_owned(), value.to_owned())].into());
        node
    };
    let zone = |name, status, zone| labelled(name, status, "topology.kubernetes.io/zone", zone);
    let mut zones = Zones::default();
    zones.observe(&zone("a", "True", "z1"), &policy);
    zones.observe(&zone("b", "False", "z2"), &policy);
    zones.observe(&labelled("c", "True", "node.kubernetes.io/exclude-disruption", ""), &policy);
    assert_eq!(zones.state(&zone_of(&zone("a", "True", "z1")), &policy), ZoneState::Normal);
    assert_eq!(zones.state(&zone_of(&zone("b", "False", "z2")), &policy), ZoneState::FullDisruption);
    zones.forget("a");
    assert!(zones.all_disrupted(), "the excluded node does not count");
}

#[test]
fn after_the_whole_cluster_was_silent_each_node_has_its_grace_period_again() {
    let (policy, start) = (NodeLifecycle::default(), Instant::now());
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let mut state = State::default();
    state.observe(&ready("a", "Unknown"), &policy, at(0));
    state.observe(&ready("b", "Unknown"), &policy, at(0));
    assert!(state.observe(&ready("b", "True"), &policy, at(100)));
    let live = state.healths.liveness("a", policy.monitor_grace_period, policy.startup_grace_period, at(110));
    assert_eq!(live, Some(Liveness::Heard(Duration::from_secs(40))));
}

proptest! {
    #[test]
    fn from_any_node_one_pass_reaches_the_taints_of_its_conditions_and_leaves_those_of_others(
        conditions in prop::collection::btree_map(
            prop::sample::select(vec!["Ready", "MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"]),
            prop::sample::select(vec!["True", "False", "Unknown"]),
            0..6,
        ),
        there in prop::collection::btree_set(
            (
                prop::sample::select(vec!["not-ready", "unreachable", "memory-pressure", "unschedulable", "foreign"]),
                prop::sample::select(vec!["NoSchedule", "NoExecute", "PreferNoSchedule"]),
            ),
            0..9,
        ),
        eviction in prop::sample::select(vec![Eviction::Admitted, Eviction::Held, Eviction::Stopped]),
        cordoned in any::<bool>(),
    ) {
        let given: Vec<_> = conditions.into_iter().collect();
        let there: Vec<_> = there.into_iter().map(|(key, effect)| taint(key, effect)).collect();
        let mut node = node("n", &given, &json!(there));
        node.spec.get_or_insert_default().unschedulable = Some(cordoned);
        let (changed, _) = apply(&node, eviction);
        prop_assert!(!apply(&changed, eviction).1);
        let of = |node: &Node| node.spec.clone().and_then(|spec| spec.taints).unwrap_or_default();
        let foreign = |taint: &Taint| taint.key.ends_with("/foreign") || taint.effect == "PreferNoSchedule";
        let kept = |node: &Node| of(node).into_iter().filter(foreign).collect::<Vec<_>>();
        prop_assert_eq!(kept(&node), kept(&changed));
        let has = |key: &str, effect: &str| {
            of(&changed).iter().any(|one| one.key == format!("node.kubernetes.io/{key}") && one.effect == effect)
        };
        prop_assert!(!(has("not-ready", "NoSchedule") && has("unreachable", "NoSchedule")));
        prop_assert_eq!(has("unschedulable", "NoSchedule"), cordoned);
        let ready = given.iter().find(|(kind, _)| *kind == "Ready").map(|(_, status)| *status);
        prop_assert_eq!(has("unreachable", "NoSchedule"), ready == Some("Unknown"));
        if eviction == Eviction::Stopped || ready == Some("True") {
            prop_assert!(!has("not-ready", "NoExecute") && !has("unreachable", "NoExecute"));
        }
    }
}
