//! The Node object itself: what it is made with, and what is set right on one that is there (upstream: `initialNode`,
//! `updateDefaultLabels`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use super::NodeConfig;

/// Labels that the kubelet sets right on a Node that was there before it.
const OWN_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// The Node to create.
pub(super) fn initial(config: &NodeConfig, status: NodeStatus) -> Node {
    let own = [
        ("kubernetes.io/hostname", config.hostname.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ];
    let mut labels: BTreeMap<_, _> = own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    labels.extend(config.labels.clone());
    let annotations = [("volumes.kubernetes.io/controller-managed-attach-detach".to_owned(), "true".to_owned())];
    Node {
        metadata: ObjectMeta {
            name: Some(config.name.clone()),
            labels: Some(labels),
            annotations: Some(annotations.into()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!config.taints.is_empty()).then(|| config.taints.clone()),
            provider_id: config.provider_id.clone(),
            ..NodeSpec::default()
        }),
        status: Some(status),
    }
}

/// The merge patch that gives `existing` the labels and annotations it lacks; none when it has them.
pub(super) fn label_patch(wanted: &Node, existing: &Node) -> Option<Value> {
    let differing = |wanted: &Option<BTreeMap<String, String>>, there: &Option<BTreeMap<String, String>>, own: bool| {
        let there = there.clone().unwrap_or_default();
        let differs = |(key, value): &(&String, &String)| {
            (!own || OWN_LABELS.contains(&key.as_str())) && there.get(*key) != Some(*value)
        };
        let found = wanted.iter().flatten().filter(differs);
        found.map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect::<serde_json::Map<_, _>>()
    };
    let labels = differing(&wanted.metadata.labels, &existing.metadata.labels, true);
    let annotations = differing(&wanted.metadata.annotations, &existing.metadata.annotations, false);
    (!labels.is_empty() || !annotations.is_empty())
        .then(|| json!({"metadata": {"labels": labels, "annotations": annotations}}))
}

/// What objects that go with the Node are owned by.
pub(super) fn owner(node: &Node) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

/// What events about the node regard.
pub(super) fn reference(name: &str, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid,
        ..ObjectReference::default()
    }
}

/// The machine's architecture by Go's name for it, which is what labels and images go by.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> NodeConfig {
        let mut config = NodeConfig::new("n1", "/var/lib/kubelet".into());
        config.labels.insert("pool".to_owned(), "blue".to_owned());
        config
    }

    #[test]
    fn a_new_node_has_the_well_known_labels_and_those_of_its_flags() {
        let labels = initial(&config(), NodeStatus::default()).metadata.labels.expect("labels");
        assert_eq!(labels["kubernetes.io/hostname"], "n1");
        assert_eq!(labels["kubernetes.io/os"], "linux");
        assert_eq!(labels["pool"], "blue");
    }

    #[test]
    fn an_existing_node_gets_only_the_kubelets_own_labels_set_right() {
        let wanted = initial(&config(), NodeStatus::default());
        let mut existing = wanted.clone();
        let labels = existing.metadata.labels.as_mut().expect("labels");
        labels.insert("kubernetes.io/hostname".to_owned(), "other".to_owned());
        labels.remove("pool");
        let patch = label_patch(&wanted, &existing).expect("a patch");
        assert_eq!(patch["metadata"]["labels"], json!({"kubernetes.io/hostname": "n1"}));
        assert_eq!(label_patch(&wanted, &wanted), None);
    }
}
