//! NodeRestriction: a kubelet writes its own Node, its own pods' status, and labels that are a node's to set (KEP-279).

use std::sync::Arc;

use serde_json::Value;
use skep_api::kinds::Subresource;
use skep_api::{GroupResource, Status};

use super::{Objects, Operation, Plugin, Request, pod_certificates};
use crate::auth::User;
use crate::auth::authz::Authorizers;

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

pub(super) struct NodeRestriction(pub(super) Arc<Authorizers>);

impl Plugin for NodeRestriction {
    fn validate(&self, request: &Request<'_>, object: &Value, objects: &dyn Objects) -> Result<(), Status> {
        let Some(node) = request.user.node() else { return Ok(()) };
        match (&*request.kind.group_version.group, &*request.kind.plural) {
            ("", "nodes") => own_node(request, node, object),
            ("", "pods") => own_pod(request, node, object),
            ("coordination.k8s.io", "leases") if request.namespace != "kube-node-lease" => {
                Err(request.forbidden("can only access leases in the \"kube-node-lease\" system namespace"))
            }
            ("coordination.k8s.io", "leases") if named(request, object) != node => {
                Err(request.forbidden("can only access node lease with the same name as the requesting node"))
            }
            ("storage.k8s.io", "csinodes") if named(request, object) != node => {
                Err(request.forbidden("can only access CSINode with the same name as the requesting node"))
            }
            ("certificates.k8s.io", "podcertificaterequests") => {
                pod_certificates::judge(request, node, object, objects, &self.0)
            }
            _ => Ok(()),
        }
    }
}

/// The name of what is written; that of a create stands in the object.
fn named<'a>(request: &Request<'a>, object: &'a Value) -> &'a str {
    match request.operation {
        Operation::Create => object["metadata"]["name"].as_str().unwrap_or_default(),
        _ => request.name,
    }
}

/// Judges a TokenRequest: a kubelet gets tokens of its own pods only (admitServiceAccount). That the pod uses the account is checked where the token is bound.
///
/// # Errors
/// 403, or 404 for a pod that is not there.
pub(crate) fn admit_token(
    user: &User,
    namespace: &str,
    account: &str,
    token: &Value,
    objects: &dyn Objects,
) -> Result<(), Status> {
    let Some(node) = user.node() else { return Ok(()) };
    let refused = |why: &str| Err(Status::forbidden(&GroupResource::new("", "serviceaccounts"), account, why));
    let bound = &token["spec"]["boundObjectRef"];
    let text = |field: &str| bound[field].as_str().unwrap_or_default();
    if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
        return refused("node requested token not bound to a pod");
    }
    if text("uid").is_empty() {
        return refused("node requested token with a pod binding without a uid");
    }
    let pods = GroupResource::new("", "pods");
    let pod = objects.get(&pods, namespace, text("name")).ok_or_else(|| Status::not_found(&pods, text("name")))?;
    if pod["metadata"]["uid"] != text("uid") {
        return refused(&format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        ));
    }
    if pod["spec"]["nodeName"] != node {
        return refused("node requested token bound to a pod scheduled on a different node");
    }
    Ok(())
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
        // A label that is taken away is changed as well.
        for (key, _) in before.as_object().into_iter().flatten() {
            if after.get(key).is_none() && !may_set(key) {
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
            match referenced(&object["spec"]) {
                Some(what) => {
                    Err(request.forbidden(&format!("node \"{node}\" can not create pods that reference {what}")))
                }
                None => Ok(()),
            }
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

/// The kind of object that a pod's specification refers to, if any: a mirror pod that does would let its kubelet read the object.
fn referenced(spec: &Value) -> Option<&'static str> {
    let items = |value: &'_ Value| -> Vec<Value> { value.as_array().cloned().unwrap_or_default() };
    if !items(&spec["imagePullSecrets"]).is_empty() {
        return Some("secrets");
    }
    for container in ["initContainers", "containers", "ephemeralContainers"].iter().flat_map(|list| items(&spec[*list]))
    {
        let sources = items(&container["env"]).into_iter().map(|env| env["valueFrom"].clone());
        for source in sources.chain(items(&container["envFrom"])) {
            if source.get("secretKeyRef").or(source.get("secretRef")).is_some_and(|there| !there.is_null()) {
                return Some("secrets");
            }
            if source.get("configMapKeyRef").or(source.get("configMapRef")).is_some_and(|there| !there.is_null()) {
                return Some("configmaps");
            }
        }
    }
    items(&spec["volumes"]).iter().find_map(|volume| {
        let projected = items(&volume["projected"]["sources"]);
        std::iter::once(volume).chain(&projected).find_map(source_reference)
    })
}

fn source_reference(source: &Value) -> Option<&'static str> {
    source.as_object()?.iter().filter(|(_, value)| !value.is_null()).find_map(|(key, value)| match key.as_str() {
        "secret" => Some("secrets"),
        "configMap" => Some("configmaps"),
        "persistentVolumeClaim" | "ephemeral" => Some("persistentvolumeclaims"),
        "serviceAccountToken" => Some("serviceaccounts"),
        _ => ["secretRef", "nodePublishSecretRef", "secretName"]
            .iter()
            .any(|field| value.get(field).is_some_and(|there| !there.is_null()))
            .then_some("secrets"),
    })
}
