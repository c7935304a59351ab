//! What a node's conditions make of its taints and labels, and what is said of a node that fell silent. Pure.
//!
//! Invariant: applied to a node, each result makes the next one empty. Only the taints that are this controller's are touched.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Condition, its status, and the taint that it makes (`nodeConditionToTaintKeyStatusMap`).
const TAINTS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// The conditions that the kubelet keeps. NetworkUnavailable is the control plane's.
const KUBELET_CONDITIONS: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The stable label, and the beta label that repeats it.
const LABELS: [(&str, &str); 2] =
    [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")];

/// What the condition Ready says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// `True`.
    Ready,
    /// `False`: the kubelet says so.
    NotReady,
    /// `Unknown`: the kubelet says nothing.
    Unreachable,
    /// There is no such condition.
    Unreported,
}

impl Readiness {
    pub(super) fn of(node: &Node) -> Self {
        match ready_condition(node).map(|condition| condition.status.as_str()) {
            Some("True") => Self::Ready,
            Some("False") => Self::NotReady,
            Some(_) => Self::Unreachable,
            None => Self::Unreported,
        }
    }
}

/// Whether pods may be driven from a node that is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eviction {
    /// The taint may be added.
    Admitted,
    /// A taint that is there stays, or becomes the other one; none is added.
    Held,
    /// The taints go: the whole cluster is silent.
    Stopped,
}

pub(super) fn ready_condition(node: &Node) -> Option<&NodeCondition> {
    conditions(node).iter().find(|condition| condition.type_ == "Ready")
}

/// The conditions of a node that fell silent; `None` if they say so already.
pub(super) fn silent_conditions(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let mut changed = conditions(node).to_vec();
    for kind in KUBELET_CONDITIONS {
        match changed.iter_mut().find(|condition| condition.type_ == kind) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                "Unknown".clone_into(&mut condition.status);
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(Time(now));
            }
            None => changed.push(NodeCondition {
                type_: kind.to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    (changed != conditions(node)).then_some(changed)
}

/// Whether the node is to be given up and is not yet: its pods have nothing that drives them away.
pub(super) fn needs_eviction(node: &Node) -> bool {
    matches!(Readiness::of(node), Readiness::NotReady | Readiness::Unreachable)
        && !taints(node).iter().any(is_no_execute)
}

/// The merge patch that sets a node's taints and labels; `None` if they are right. It holds only for the revision that was
/// looked at, as the list of taints is written whole.
pub(super) fn patch(node: &Node, eviction: Eviction, now: Timestamp) -> Option<Value> {
    let (wanted, labels) = (wanted_taints(node, eviction, now), missing_labels(node));
    let metadata = &node.metadata;
    let mut patch = json!({"metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version}});
    if wanted == taints(node) && labels.is_empty() {
        return None;
    }
    if wanted != taints(node) {
        // No taint is no field, as upstream's objects have it.
        patch["spec"] = json!({"taints": if wanted.is_empty() { Value::Null } else { json!(wanted) }});
    }
    if !labels.is_empty() {
        patch["metadata"]["labels"] = json!(labels);
    }
    Some(patch)
}

fn wanted_taints(node: &Node, eviction: Eviction, now: Timestamp) -> Vec<Taint> {
    let mut wanted: Vec<(&str, &str)> = no_schedule_keys(node).into_iter().map(|key| (key, NO_SCHEDULE)).collect();
    let own = match Readiness::of(node) {
        Readiness::NotReady => Some(NOT_READY),
        Readiness::Unreachable => Some(UNREACHABLE),
        Readiness::Ready | Readiness::Unreported => None,
    };
    let tainted = taints(node).iter().any(is_no_execute);
    let evicting = match eviction {
        Eviction::Admitted => true,
        Eviction::Held => tainted,
        Eviction::Stopped => false,
    };
    wanted.extend(own.filter(|_| evicting).map(|key| (key, NO_EXECUTE)));
    let is = |taint: &Taint, (key, effect): (&str, &str)| taint.key == key && taint.effect == effect;
    // A node that says nothing of its readiness keeps what drives its pods away, as upstream's monitor passes it by.
    let unreported = own.is_none() && Readiness::of(node) == Readiness::Unreported && eviction != Eviction::Stopped;
    let stays = |taint: &&Taint| {
        let managed = is_no_schedule(taint) || (is_no_execute(taint) && !unreported);
        !managed || wanted.iter().any(|one| is(taint, *one))
    };
    let mut all: Vec<Taint> = taints(node).iter().filter(stays).cloned().collect();
    for one in wanted {
        if !all.iter().any(|taint| is(taint, one)) {
            let (key, effect) = (one.0.to_owned(), one.1.to_owned());
            all.push(Taint { key, effect, time_added: Some(Time(now)), value: None });
        }
    }
    all
}

fn no_schedule_keys(node: &Node) -> Vec<&'static str> {
    let says = |kind: &str, status: &str| {
        conditions(node).iter().any(|condition| condition.type_ == kind && condition.status == status)
    };
    let mut keys: Vec<_> = TAINTS.iter().filter(|(kind, status, _)| says(kind, status)).map(|(.., key)| *key).collect();
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        keys.push(UNSCHEDULABLE);
    }
    keys
}

fn missing_labels(node: &Node) -> BTreeMap<&'static str, String> {
    let Some(labels) = &node.metadata.labels else { return BTreeMap::new() };
    let differing = LABELS.iter().filter_map(|(stable, beta)| {
        let value = labels.get(*stable)?;
        (labels.get(*beta) != Some(value)).then(|| (*beta, value.clone()))
    });
    differing.collect()
}

fn is_no_schedule(taint: &Taint) -> bool {
    let known = taint.key == UNSCHEDULABLE || TAINTS.iter().any(|(.., key)| *key == taint.key);
    taint.effect == NO_SCHEDULE && known
}

fn is_no_execute(taint: &Taint) -> bool {
    taint.effect == NO_EXECUTE && (taint.key == NOT_READY || taint.key == UNREACHABLE)
}

fn conditions(node: &Node) -> &[NodeCondition] {
    node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}
