//! Tables: each plugin's filter and score.

use serde_json::{Value, json};

use super::super::plugins::{NodeAffinity, NodeResourcesFit, TaintToleration, balanced_allocation::Balance};
use super::{decide, node, pod, snapshot, unchanged};
use crate::core::{HostPort, Pod, Requests, Snapshot, schedule};

fn with_spec(name: &str, spec: Value) -> Pod {
    pod(name, json!({}), |value| {
        for (key, field) in spec.as_object().expect("an object") {
            value["spec"][key] = field.clone();
        }
    })
}

fn fits(node: &skep_client::slim::SlimNode, pod: &Pod) -> bool {
    decide(std::slice::from_ref(node), pod) == node.metadata.name.as_deref().expect("a name")
}

#[test]
fn node_name_admits_the_named_node_only() {
    let nodes = [node("a", "1", "1Gi", unchanged), node("b", "1", "1Gi", unchanged)];
    assert_eq!(decide(&nodes, &with_spec("p", json!({"nodeName": "b"}))), "b");
}

#[test]
fn a_cordoned_node_takes_pods_that_bear_its_taint_only() {
    let cordoned = node("a", "1", "1Gi", |node| node["spec"]["unschedulable"] = json!(true));
    let table = [
        (json!([]), false),
        (json!([{"operator": "Exists"}]), true),
        (json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}]), true),
        (json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoExecute"}]), false),
    ];
    for (tolerations, expected) in table {
        assert_eq!(fits(&cordoned, &with_spec("p", json!({"tolerations": tolerations}))), expected, "{tolerations}");
    }
}

#[test]
fn hard_taints_need_a_matching_toleration() {
    let taint = |effect: &str| json!([{"key": "k", "value": "v", "effect": effect}]);
    let table = [
        ("NoSchedule", json!([]), false),
        ("NoExecute", json!([]), false),
        ("PreferNoSchedule", json!([]), true),
        ("NoSchedule", json!([{"key": "k", "value": "v"}]), true),
        ("NoSchedule", json!([{"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}]), true),
        ("NoSchedule", json!([{"key": "k", "value": "other"}]), false),
        ("NoSchedule", json!([{"key": "k", "operator": "Exists"}]), true),
        ("NoSchedule", json!([{"key": "other", "operator": "Exists"}]), false),
        ("NoSchedule", json!([{"key": "k", "operator": "Exists", "effect": "NoExecute"}]), false),
        ("NoSchedule", json!([{"key": "k", "operator": "Gt", "value": "1"}]), false),
    ];
    for (effect, tolerations, expected) in table {
        let tainted = node("a", "1", "1Gi", |node| node["spec"]["taints"] = taint(effect));
        let pod = with_spec("p", json!({"tolerations": tolerations}));
        assert_eq!(fits(&tainted, &pod), expected, "{effect} {tolerations}");
    }
}

#[test]
fn soft_taints_are_counted_unless_they_are_borne() {
    let tainted = node("a", "1", "1Gi", |node| {
        node["spec"]["taints"] = json!([
            {"key": "x", "effect": "PreferNoSchedule"},
            {"key": "y", "effect": "PreferNoSchedule"},
        ]);
    });
    let snapshot = snapshot(&[tainted]);
    let index = snapshot.nodes().next().expect("a node");
    let pod = with_spec("p", json!({"tolerations": [{"key": "x", "operator": "Exists"}]}));
    assert_eq!(TaintToleration::prepare(&snapshot, &pod).score(&snapshot, index), 1);
}

#[test]
fn required_node_affinity_follows_every_operator() {
    let labelled = node("a", "1", "1Gi", |node| node["metadata"]["labels"] = json!({"zone": "z1", "cores": "8"}));
    let table = [
        (json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z1", "z2"]}]}), true),
        (json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z3"]}]}), false),
        (json!({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["z1"]}]}), false),
        (json!({"matchExpressions": [{"key": "absent", "operator": "NotIn", "values": ["z1"]}]}), true),
        (json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}), true),
        (json!({"matchExpressions": [{"key": "absent", "operator": "Exists"}]}), false),
        (json!({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}), false),
        (json!({"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["7"]}]}), true),
        (json!({"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["8"]}]}), false),
        (json!({"matchExpressions": [{"key": "cores", "operator": "Lt", "values": ["9"]}]}), true),
        (json!({"matchExpressions": [{"key": "zone", "operator": "Lt", "values": ["9"]}]}), false),
        (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}), true),
        (json!({"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["a"]}]}), false),
        (json!({}), false),
    ];
    for (term, expected) in table {
        let required = json!({"nodeSelectorTerms": [term]});
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
        assert_eq!(fits(&labelled, &with_spec("p", json!({"affinity": affinity}))), expected, "{term}");
    }
}

#[test]
fn a_node_selector_needs_every_label() {
    let labelled = node("a", "1", "1Gi", |node| node["metadata"]["labels"] = json!({"x": "1", "y": "2"}));
    let table = [
        (json!({"x": "1"}), true),
        (json!({"x": "1", "y": "2"}), true),
        (json!({"x": "1", "y": "1"}), false),
        (json!({"never-seen": "1"}), false),
    ];
    for (selector, expected) in table {
        assert_eq!(fits(&labelled, &with_spec("p", json!({"nodeSelector": selector}))), expected, "{selector}");
    }
}

#[test]
fn preferred_node_affinity_adds_the_weights_of_matching_terms() {
    let labelled = node("a", "1", "1Gi", |node| node["metadata"]["labels"] = json!({"x": "1"}));
    let snapshot = snapshot(&[labelled]);
    let index = snapshot.nodes().next().expect("a node");
    let term = |key: &str, weight: i32| json!({"weight": weight, "preference": {"matchExpressions": [{"key": key, "operator": "Exists"}]}});
    let preferred = json!([term("x", 30), term("y", 50), {"weight": 7, "preference": {}}]);
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}});
    let pod = with_spec("p", json!({"affinity": affinity}));
    assert_eq!(NodeAffinity::prepare(&snapshot, &pod).score(&snapshot, index), 30);
}

#[test]
fn a_preferred_node_wins_over_an_equal_one() {
    let nodes: Vec<_> = (0..4).map(|i| node(&format!("n{i}"), "1", "1Gi", unchanged)).collect();
    let term = json!({"weight": 1, "preference": {"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]},
    ]}});
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}});
    assert_eq!(decide(&nodes, &with_spec("p", json!({"affinity": affinity}))), "n2");
}

#[test]
fn host_ports_conflict_by_protocol_port_and_address() {
    let port = |protocol: &str, ip: &str, port: i32| HostPort { protocol: protocol.into(), ip: ip.into(), port };
    let table = [
        (port("TCP", "0.0.0.0", 80), port("TCP", "0.0.0.0", 80), true),
        (port("TCP", "0.0.0.0", 80), port("UDP", "0.0.0.0", 80), false),
        (port("TCP", "0.0.0.0", 80), port("TCP", "0.0.0.0", 81), false),
        (port("TCP", "10.0.0.1", 80), port("TCP", "0.0.0.0", 80), true),
        (port("TCP", "10.0.0.1", 80), port("TCP", "10.0.0.2", 80), false),
        (port("TCP", "10.0.0.1", 80), port("TCP", "10.0.0.1", 80), true),
    ];
    for (one, other, expected) in table {
        assert_eq!(one.conflicts(&other), expected, "{one:?} {other:?}");
        assert_eq!(other.conflicts(&one), expected, "{other:?} {one:?}");
    }
}

#[test]
fn a_sidecars_host_port_counts_and_an_init_containers_does_not() {
    let container = |name: &str, port: i32, policy: Option<&str>| json!({"name": name, "restartPolicy": policy, "ports": [{"containerPort": 1, "hostPort": port}]});
    let init = json!([container("once", 1000, None), container("sidecar", 1001, Some("Always"))]);
    let pod = with_spec("p", json!({"initContainers": init}));
    let ports: Vec<i32> = pod.host_ports.iter().map(|port| port.port).collect();
    assert_eq!(ports, [1001]);
}

fn requests(spec: Value) -> Requests {
    with_spec("p", spec).requests
}

fn container(cpu: &str) -> Value {
    json!({"name": "c", "resources": {"requests": {"cpu": cpu}}})
}

fn sidecar(cpu: &str) -> Value {
    json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}})
}

#[test]
fn requests_take_the_larger_of_start_and_run() {
    let table = [
        (json!({"containers": [container("1"), container("2")]}), 3000),
        (json!({"containers": [container("1")], "initContainers": [container("3"), container("2")]}), 3000),
        (json!({"containers": [container("2")], "initContainers": [sidecar("1")]}), 3000),
        (json!({"containers": [container("1")], "initContainers": [sidecar("1"), container("5")]}), 6000),
        (json!({"containers": [container("1")], "initContainers": [container("5"), sidecar("1")]}), 5000),
        (json!({"containers": [container("1")], "overhead": {"cpu": "250m"}}), 1250),
        (json!({"containers": [container("1")], "resources": {"requests": {"cpu": "4"}}}), 4000),
    ];
    for (spec, expected) in table {
        assert_eq!(requests(spec.clone()).amount("cpu"), expected, "{spec}");
    }
}

#[test]
fn a_container_without_requests_counts_in_scores_only() {
    let none = requests(json!({"containers": [{"name": "c"}]}));
    assert!(none.amounts.is_empty());
    assert_eq!((none.scoring_cpu, none.scoring_memory), (100, 200 * 1024 * 1024));
}

#[test]
fn extended_resources_must_fit_and_unknown_ones_fit_nowhere() {
    let gpus = node("a", "1", "1Gi", |node| node["status"]["allocatable"]["example.com/gpu"] = json!("2"));
    let table = [("example.com/gpu", "2", true), ("example.com/gpu", "3", false), ("example.com/other", "1", false)];
    for (name, amount, expected) in table {
        assert_eq!(fits(&gpus, &pod("p", json!({name: amount}), unchanged)), expected, "{name} {amount}");
    }
}

fn with_load(load: Value) -> Snapshot {
    let mut snapshot = snapshot(&[node("a", "4", "8Gi", unchanged)]);
    snapshot.place(&pod("load", load, unchanged), "a");
    snapshot
}

#[test]
fn least_allocated_is_the_mean_free_share() {
    let table = [
        (json!({}), json!({"cpu": "1", "memory": "2Gi"}), 72),
        (json!({"cpu": "1", "memory": "2Gi"}), json!({"cpu": "1", "memory": "2Gi"}), 50),
        (json!({"cpu": "3", "memory": "6Gi"}), json!({"cpu": "1", "memory": "2Gi"}), 0),
        (json!({"cpu": "4", "memory": "6Gi"}), json!({"cpu": "1", "memory": "1Gi"}), 6),
    ];
    for (load, wanted, expected) in table {
        let snapshot = with_load(load.clone());
        let index = snapshot.nodes().next().expect("a node");
        let pod = pod("p", wanted.clone(), unchanged);
        let score = NodeResourcesFit::prepare(&snapshot, &pod).score(&snapshot, index);
        assert_eq!(score, expected, "{load} {wanted}");
    }
}

#[test]
fn balance_is_fifty_and_half_of_the_improvement() {
    let table = [
        (json!({}), json!({"cpu": "1", "memory": "2Gi"}), 75),
        (json!({"cpu": "2"}), json!({"memory": "4Gi"}), 87),
        (json!({}), json!({"cpu": "4"}), 50),
    ];
    for (load, wanted, expected) in table {
        let snapshot = with_load(load.clone());
        let index = snapshot.nodes().next().expect("a node");
        let balance = Balance::prepare(&snapshot, &pod("p", wanted.clone(), unchanged).requests).expect("requests");
        assert_eq!(balance.score(&snapshot, index), expected, "{load} {wanted}");
    }
}

#[test]
fn a_pod_without_requests_is_not_balanced() {
    assert!(Balance::prepare(&Snapshot::default(), &pod("p", json!({}), unchanged).requests).is_none());
}

#[test]
fn the_emptier_node_wins() {
    let mut snapshot = snapshot(&[node("a", "4", "8Gi", unchanged), node("b", "4", "8Gi", unchanged)]);
    snapshot.place(&pod("load", json!({"cpu": "2", "memory": "4Gi"}), unchanged), "a");
    let wanted = pod("p", json!({"cpu": "1", "memory": "2Gi"}), unchanged);
    assert!((0..16).all(|seed| super::text(&schedule(&snapshot, &wanted, seed)) == "b"));
}

#[test]
fn ties_are_broken_by_the_seed_alone() {
    let nodes: Vec<_> = (0..4).map(|i| node(&format!("n{i}"), "1", "1Gi", unchanged)).collect();
    let snapshot = snapshot(&nodes);
    let wanted = pod("p", json!({"cpu": "100m"}), unchanged);
    let chosen: Vec<String> = (0..64).map(|seed| super::text(&schedule(&snapshot, &wanted, seed))).collect();
    let again: Vec<String> = (0..64).map(|seed| super::text(&schedule(&snapshot, &wanted, seed))).collect();
    assert_eq!(chosen, again);
    let distinct: std::collections::BTreeSet<&String> = chosen.iter().collect();
    assert_eq!(distinct.len(), 4);
}
