//! What users read when no node will do: upstream's words.

use serde_json::json;

use super::{decide, node, pod, snapshot, text, unchanged};
use crate::core::schedule;

#[test]
fn a_cluster_without_nodes_says_so() {
    assert_eq!(decide(&[], &pod("p", json!({}), unchanged)), "no nodes");
}

#[test]
fn each_node_gives_its_first_reason_and_all_shortages() {
    let nodes = [
        node("small", "1", "1Gi", unchanged),
        node("tainted", "9", "9Gi", |node| node["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}])),
    ];
    assert_eq!(
        decide(&nodes, &pod("p", json!({"cpu": "2", "memory": "2Gi"}), unchanged)),
        "0/2 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 node(s) had untolerated taint(s). \
         preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    );
}

#[test]
fn a_full_node_without_victims_says_that_preemption_found_none() {
    let mut snapshot = snapshot(&[node("a", "2", "1Gi", unchanged), node("b", "1", "1Gi", unchanged)]);
    snapshot.place(&pod("load", json!({"cpu": "1"}), unchanged), "a");
    assert_eq!(
        text(&schedule(&snapshot, &pod("p", json!({"cpu": "2"}), unchanged), 0)),
        "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: \
         1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    );
}

#[test]
fn nothing_is_said_of_preemption_where_a_victim_could_be_found() {
    let mut snapshot = snapshot(&[node("a", "2", "1Gi", unchanged)]);
    snapshot.place(&pod("load", json!({"cpu": "1"}), unchanged), "a");
    let important = pod("p", json!({"cpu": "2"}), |pod| pod["spec"]["priority"] = json!(1000));
    assert_eq!(text(&schedule(&snapshot, &important, 0)), "0/1 nodes are available: 1 Insufficient cpu.");
}

#[test]
fn a_pod_that_never_preempts_says_so() {
    let patient = pod("p", json!({"cpu": "2"}), |pod| pod["spec"]["preemptionPolicy"] = json!("Never"));
    assert_eq!(
        decide(&[node("a", "1", "1Gi", unchanged)], &patient),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."
    );
}

#[test]
fn every_filter_has_upstreams_words() {
    let cordoned = node("a", "1", "1Gi", |node| node["spec"]["unschedulable"] = json!(true));
    let plain = node("a", "1", "1Gi", unchanged);
    let full = node("a", "1", "1Gi", |node| node["status"]["allocatable"]["pods"] = json!("0"));
    let named = |names: serde_json::Value| {
        let fields: Vec<_> = (names.as_array().expect("a list").iter())
            .map(|name| json!({"key": "metadata.name", "operator": "In", "values": [name]}))
            .collect();
        let required = json!({"nodeSelectorTerms": [{"matchFields": fields}]});
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}})
    };
    let table = [
        (&plain, "nodeName", json!("b"), "1 node(s) didn't match the requested node name"),
        (&cordoned, "hostname", json!("h"), "1 node(s) were unschedulable"),
        (&plain, "nodeSelector", json!({"x": "1"}), "1 node(s) didn't match Pod's node affinity/selector"),
        (&plain, "affinity", named(json!(["b"])), "1 node(s) didn't satisfy plugin(s) [NodeAffinity]"),
        (&plain, "affinity", named(json!(["b", "c"])), "pod affinity terms conflict"),
        (&full, "hostname", json!("h"), "1 Too many pods"),
    ];
    for (node, field, value, reason) in table {
        let pod = pod("p", json!({}), |pod| pod["spec"][field] = value);
        let said = decide(std::slice::from_ref(node), &pod);
        assert!(said.starts_with(&format!("0/1 nodes are available: {reason}. preemption: ")), "{said}");
    }
}

#[test]
fn a_taken_host_port_has_upstreams_words() {
    let with_port = |name: &str| {
        pod(name, json!({}), |pod| {
            pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "hostPort": 80}]);
        })
    };
    let mut snapshot = snapshot(&[node("a", "1", "1Gi", unchanged)]);
    snapshot.place(&with_port("first"), "a");
    assert_eq!(
        text(&schedule(&snapshot, &with_port("second"), 0)),
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. \
         preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    );
}
