//! What the core's tests share: nodes and pods by the fields that a test is about.

mod plugins;
mod preemption;
mod properties;
mod reasons;

use serde_json::{Value, json};
use skep_client::slim::{SlimNode, SlimPod};

use super::{Decision, Pod, Snapshot, schedule};

/// A node of that name with cpu and memory, changed by `change`.
pub(crate) fn node(name: &str, cpu: &str, memory: &str, change: impl FnOnce(&mut Value)) -> SlimNode {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {},
        "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": "110", "ephemeral-storage": "100Gi"}},
    });
    change(&mut value);
    serde_json::from_value(value).expect("a node")
}

/// A pod of that name with one container that has these requests, changed by `change`.
pub(crate) fn watched_pod(name: &str, requests: Value, change: impl FnOnce(&mut Value)) -> SlimPod {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "n", "uid": name},
        "spec": {
            "schedulerName": "default-scheduler",
            "containers": [{"name": "c", "resources": {"requests": requests}}],
        },
    });
    change(&mut value);
    serde_json::from_value(value).expect("a pod")
}

pub(crate) fn pod(name: &str, requests: Value, change: impl FnOnce(&mut Value)) -> Pod {
    Pod::of(&watched_pod(name, requests, change))
}

pub(crate) fn unchanged(_: &mut Value) {}

fn snapshot(nodes: &[SlimNode]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.set_node(node);
    }
    snapshot
}

fn decide(nodes: &[SlimNode], pod: &Pod) -> String {
    text(&schedule(&snapshot(nodes), pod, 0))
}

fn text(decision: &Decision) -> String {
    match decision {
        Decision::Node(name) => name.to_string(),
        Decision::Unschedulable(error) | Decision::Preempt(error, _) => error.to_string(),
        Decision::NoNodes => "no nodes".to_owned(),
    }
}
