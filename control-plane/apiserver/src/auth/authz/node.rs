//! The Node authorizer: a kubelet reads only what its own pods refer to (plugin/pkg/auth/authorizer/node).
//!
//! A graph from nodes to secrets, config maps, service accounts and claims, kept from the pods that the watch cache shows.

use std::collections::HashMap;

use parking_lot::RwLock;
use serde_json::Value;

use super::super::{Attributes, Target, bootstrap};
use super::{Decision, Rule};

/// What a pod refers to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Reference {
    resource: &'static str,
    namespace: String,
    name: String,
}

#[derive(Default)]
struct State {
    pods: HashMap<(String, String), (String, Vec<Reference>)>,
    /// How many pods of a node refer to something.
    counts: HashMap<(String, Reference), usize>,
}

/// Which nodes have pods that refer to what.
pub struct NodeGraph {
    state: RwLock<State>,
    /// What every node may: the rules of the ClusterRole `system:node`.
    rules: Vec<Rule>,
}

impl Default for NodeGraph {
    fn default() -> Self {
        Self { state: RwLock::default(), rules: bootstrap::cluster_role_rules("system:node") }
    }
}

impl NodeGraph {
    /// Takes note of a pod; `None` when it is gone.
    pub fn apply(&self, namespace: &str, name: &str, pod: Option<&Value>) {
        let mut state = self.state.write();
        let key = (namespace.to_owned(), name.to_owned());
        if let Some((node, references)) = state.pods.remove(&key) {
            for reference in references {
                let at = (node.clone(), reference);
                if let Some(count) = state.counts.get_mut(&at) {
                    *count -= 1;
                    if *count == 0 {
                        state.counts.remove(&at);
                    }
                }
            }
        }
        let Some(pod) = pod else { return };
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
        let over = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        if node.is_empty() || over {
            return;
        }
        let references = references(namespace, pod);
        for reference in &references {
            *state.counts.entry((node.clone(), reference.clone())).or_default() += 1;
        }
        state.pods.insert(key, (node, references));
    }

    fn refers(&self, node: &str, resource: &'static str, namespace: &str, name: &str) -> bool {
        let reference = Reference { resource, namespace: namespace.to_owned(), name: name.to_owned() };
        self.state.read().counts.contains_key(&(node.to_owned(), reference))
    }

    /// Decides on a wish of a kubelet; `None` when it is not one's.
    pub(super) fn authorize(&self, attributes: &Attributes) -> Option<Decision> {
        let node = attributes.user.node()?;
        if let Target::Resource { group, resource, subresource, namespace, name, .. } = &attributes.target {
            let referred = match (group.as_str(), resource.as_str()) {
                ("", "secrets") => Some("secrets"),
                ("", "configmaps") => Some("configmaps"),
                ("", "persistentvolumeclaims") if subresource.is_empty() => Some("persistentvolumeclaims"),
                ("", "serviceaccounts") => Some("serviceaccounts"),
                _ => None,
            };
            if let Some(referred) = referred {
                return Some(self.read_referred(attributes, node, referred, subresource, namespace, name));
            }
            if group == "coordination.k8s.io" && resource == "leases" {
                return Some(own_lease(attributes, node, namespace, name));
            }
        }
        let allowed = self.rules.iter().any(|rule| rule.allows(attributes));
        Some(if allowed { Decision::Allow { reason: String::new() } } else { no_opinion("") })
    }

    fn read_referred(
        &self,
        attributes: &Attributes,
        node: &str,
        resource: &'static str,
        subresource: &str,
        namespace: &str,
        name: &str,
    ) -> Decision {
        let token = resource == "serviceaccounts" && subresource == "token" && attributes.verb == "create";
        let verbs: &[&str] = match resource {
            "secrets" | "configmaps" => &["get", "list", "watch"],
            _ => &["get"],
        };
        if !token && (!verbs.contains(&&*attributes.verb) || !subresource.is_empty()) {
            return no_opinion("can only read resources of this type");
        }
        if name.is_empty() {
            return no_opinion("No Object name found");
        }
        if self.refers(node, resource, namespace, name) {
            return Decision::Allow { reason: String::new() };
        }
        no_opinion(&format!("no relationship found between node '{node}' and this object"))
    }
}

fn own_lease(attributes: &Attributes, node: &str, namespace: &str, name: &str) -> Decision {
    if !matches!(&*attributes.verb, "get" | "create" | "update" | "patch" | "delete") {
        return no_opinion("can only get, create, update, patch, or delete a node lease");
    }
    if namespace != "kube-node-lease" {
        return no_opinion("can only access leases in the \"kube-node-lease\" system namespace");
    }
    if attributes.verb != "create" && name != node {
        return no_opinion("can only access node lease with the same name as the requesting node");
    }
    Decision::Allow { reason: String::new() }
}

fn no_opinion(reason: &str) -> Decision {
    Decision::NoOpinion { reason: reason.to_owned() }
}

/// Everything by name that a pod's kubelet has to read for it.
fn references(namespace: &str, pod: &Value) -> Vec<Reference> {
    let mut out = Vec::new();
    let mut add = |resource: &'static str, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            let reference = Reference { resource, namespace: namespace.to_owned(), name: name.to_owned() };
            if !out.contains(&reference) {
                out.push(reference);
            }
        }
    };
    let spec = &pod["spec"];
    let list = |value: &Value| -> Vec<Value> { value.as_array().cloned().unwrap_or_default() };
    add("serviceaccounts", &spec["serviceAccountName"]);
    for secret in list(&spec["imagePullSecrets"]) {
        add("secrets", &secret["name"]);
    }
    for containers in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(&spec[containers]) {
            for env in list(&container["env"]) {
                add("secrets", &env["valueFrom"]["secretKeyRef"]["name"]);
                add("configmaps", &env["valueFrom"]["configMapKeyRef"]["name"]);
            }
            for from in list(&container["envFrom"]) {
                add("secrets", &from["secretRef"]["name"]);
                add("configmaps", &from["configMapRef"]["name"]);
            }
        }
    }
    for volume in list(&spec["volumes"]) {
        add("secrets", &volume["secret"]["secretName"]);
        add("configmaps", &volume["configMap"]["name"]);
        add("persistentvolumeclaims", &volume["persistentVolumeClaim"]["claimName"]);
        add("secrets", &volume["csi"]["nodePublishSecretRef"]["name"]);
        for source in list(&volume["projected"]["sources"]) {
            add("secrets", &source["secret"]["name"]);
            add("configmaps", &source["configMap"]["name"]);
        }
    }
    out
}
