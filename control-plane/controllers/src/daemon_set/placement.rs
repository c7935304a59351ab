//! On which nodes a DaemonSet's pods run, and how a pod says which node it is for.
//!
//! Follows `nodeShouldRunDaemonPod` in `daemon_controller.go` and `daemonset_util.go`. Pure.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};
use skep_client::slim::SlimPod;

use crate::taint_eviction::reconcile::tolerates;

const NAME_FIELD: &str = "metadata.name";
/// The taints that daemons bear, with their effects.
const BORNE: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
const NO_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");

/// Whether a node is for the pods of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// One runs there.
    Run,
    /// One that is there stays, but none is placed.
    Stay,
    /// None runs there.
    Leave,
}

/// Whether the node is for the set's pods.
pub(super) fn fit(set: &DaemonSet, node: &Node) -> Fit {
    let Some(spec) = &set.spec.template.spec else { return Fit::Leave };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let named = spec.node_name.as_deref().is_none_or(|own| own.is_empty() || own == name);
    if !named || !selects(spec, node) {
        return Fit::Leave;
    }
    let tolerations = tolerations(spec);
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let drives_away = |effects: &[&str]| {
        let hard = |taint: &&Taint| effects.contains(&taint.effect.as_str());
        taints.iter().filter(hard).any(|taint| !tolerations.iter().any(|own| tolerates(own, taint)))
    };
    if !drives_away(&["NoExecute", "NoSchedule"]) {
        Fit::Run
    } else if drives_away(&["NoExecute"]) {
        Fit::Leave
    } else {
        Fit::Stay
    }
}

fn selects(spec: &PodSpec, node: &Node) -> bool {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let selector = spec.node_selector.iter().flatten().all(|(key, value)| label(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|own| own.required_during_scheduling_ignored_during_execution.as_ref());
    let field = |key: &str| if key == NAME_FIELD { node.metadata.name.as_deref() } else { None };
    selector
        && required.is_none_or(|required| {
            required.node_selector_terms.iter().any(|term| {
                let labels = term.match_expressions.as_deref().unwrap_or_default();
                let fields = term.match_fields.as_deref().unwrap_or_default();
                // A term without requirements matches nothing.
                !(labels.is_empty() && fields.is_empty())
                    && labels.iter().all(|requirement| holds(requirement, label(&requirement.key)))
                    && fields.iter().all(|requirement| holds(requirement, field(&requirement.key)))
            })
        })
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|own| own == value);
    let bound = || values.first().and_then(|bound| bound.parse::<i64>().ok());
    let number = || value.and_then(|value| value.parse::<i64>().ok());
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().zip(bound()).is_some_and(|(number, bound)| number > bound),
        "Lt" => number().zip(bound()).is_some_and(|(number, bound)| number < bound),
        _ => false,
    }
}

/// The template's tolerations, and those of all daemons.
pub(super) fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    let network = (spec.host_network == Some(true)).then_some(NO_NETWORK);
    for (key, effect) in BORNE.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let same = |own: &&mut Toleration| {
            (&own.key, &own.effect, &own.operator, own.value.as_deref().unwrap_or_default())
                == (&toleration.key, &toleration.effect, &toleration.operator, "")
        };
        match tolerations.iter_mut().find(same) {
            Some(own) => *own = toleration,
            None => tolerations.push(toleration),
        }
    }
    tolerations
}

/// Makes a pod one for that node: the scheduler places it there and nowhere else.
pub(super) fn bind(spec: &mut PodSpec, node: &str) {
    let requirement = NodeSelectorRequirement {
        key: NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![requirement]), match_expressions: None };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a pod is on, or is for.
pub(super) fn target(pod: &SlimPod) -> Option<&str> {
    if let Some(node) = pod.spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let affinity = pod.spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let field = fields.find(|field| field.key == NAME_FIELD && field.operator == "In")?;
    match field.values.as_deref() {
        Some([node]) => Some(node),
        _ => None,
    }
}
