//! NodeRestriction: a kubelet writes its own Node, its own pods' status, and labels that are a node's to set (KEP-279).

use serde_json::Value;
use skep_api::Status;
use skep_api::kinds::Subresource;

use super::{Objects, Operation, Plugin, Request};

/// Labels below kubernetes.io and k8s.io that a kubelet may set on its Node.
const OWN_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/arch",
    "kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/windows-build",
];

pub(super) struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn validate(&self, request: &Request<'_>, object: &Value, _objects: &dyn Objects) -> Result<(), Status> {
        let Some(node) = request.user.node() else { return Ok(()) };
        if !request.kind.group_version.group.is_empty() {
            return Ok(());
        }
        match &*request.kind.plural {
            "nodes" => own_node(request, node, object),
            "pods" => own_pod(request, node, object),
            _ => Ok(()),
        }
    }
}

fn own_node(request: &Request<'_>, node: &str, object: &Value) -> Result<(), Status> {
    if request.name != node {
        return Err(request.forbidden(&format!("node \"{node}\" is not allowed to modify node \"{}\"", request.name)));
    }
    let labels = |object: Option<&Value>| object.map(|o| o["metadata"]["labels"].clone()).unwrap_or_default();
    let (before, after) = (labels(request.old), labels(Some(object)));
    let mut refused: Vec<&str> = Vec::new();
    if request.operation != Operation::Delete {
        for (key, value) in after.as_object().into_iter().flatten() {
            if before[key] != *value && !may_set(key) {
                refused.push(key);
            }
        }
    }
    if !refused.is_empty() {
        return Err(request.forbidden(&format!("is not allowed to modify labels: {}", refused.join(", "))));
    }
    if request.operation == Operation::Update
        && request.old.is_some_and(|old| old["spec"]["taints"] != object["spec"]["taints"])
    {
        return Err(request.forbidden(&format!("node \"{node}\" is not allowed to modify taints")));
    }
    Ok(())
}

fn may_set(label: &str) -> bool {
    let domain = label.split_once('/').map(|(domain, _)| domain).unwrap_or_default();
    let under = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
    if domain == "node-restriction.kubernetes.io" || domain.ends_with(".node-restriction.kubernetes.io") {
        return false;
    }
    if !under("kubernetes.io") && !under("k8s.io") {
        return true;
    }
    OWN_LABELS.contains(&label)
        || domain == "kubelet.kubernetes.io"
        || domain == "node.kubernetes.io"
        || domain.ends_with(".kubelet.kubernetes.io")
        || domain.ends_with(".node.kubernetes.io")
}

fn own_pod(request: &Request<'_>, node: &str, object: &Value) -> Result<(), Status> {
    let bound = |pod: &Value| pod["spec"]["nodeName"] == node;
    match (request.operation, request.subresource) {
        (Operation::Create, None) => {
            if object["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_none() {
                return Err(request.forbidden(&format!("pod does not have \"kubernetes.io/config.mirror\" annotation, node \"{node}\" can only create mirror pods")));
            }
            if !bound(object) {
                return Err(request
                    .forbidden(&format!("node \"{node}\" can only create pods with spec.nodeName set to itself")));
            }
            Ok(())
        }
        (Operation::Update, Some(Subresource::Status)) | (Operation::Delete, None) => {
            if bound(request.old.unwrap_or(object)) {
                return Ok(());
            }
            let verb = if request.operation == Operation::Delete { "delete" } else { "update status for" };
            Err(request.forbidden(&format!("node \"{node}\" can only {verb} pods with spec.nodeName set to itself")))
        }
        (operation, _) => Err(request.forbidden(&format!("unexpected operation {operation:?} of node \"{node}\""))),
    }
}
