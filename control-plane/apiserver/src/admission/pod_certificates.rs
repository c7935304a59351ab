//! What a kubelet may ask certificates for (NodeRestriction's admitPodCertificateRequest): pods that run on its node, as their service account, from
//! signers that they mount certificates of.

use serde_json::Value;
use skep_api::{GroupResource, Status};

use super::{Objects, Operation, Request};
use crate::auth::Attributes;
use crate::auth::authz::{Authorizer as _, Authorizers};

/// Judges a write of a PodCertificateRequest by the kubelet of `node`. What may only be late in this server's view is an internal error: a retry may
/// succeed.
///
/// # Errors
/// 403, or 500.
pub(super) fn judge(
    request: &Request<'_>,
    node: &str,
    object: &Value,
    objects: &dyn Objects,
    authorizers: &Authorizers,
) -> Result<(), Status> {
    if request.operation != Operation::Create {
        return Err(request.forbidden(&format!("unexpected operation {}", request.operation.as_str())));
    }
    if let Some(subresource) = request.subresource {
        return Err(request.forbidden(&format!("unexpected subresource {}", subresource.as_str())));
    }
    let namespace = request.namespace;
    let wanted = |field: &str| object["spec"][field].as_str().unwrap_or_default();
    let (pod_name, account_name, signer) = (wanted("podName"), wanted("serviceAccountName"), wanted("signerName"));
    let full = format!("{namespace}/{pod_name}");
    if wanted("nodeName") != node {
        return Err(request.forbidden(&format!(
            "PodCertificateRequest.Spec.NodeName={:?}, which is not the requesting node {node:?}",
            wanted("nodeName")
        )));
    }
    let get = |resource: &'static str, namespace: &str, name: &str, what: String| {
        let resource = GroupResource::new("", resource);
        objects.get(&resource, namespace, name).ok_or_else(|| {
            let missing = Status::not_found(&resource, name).message;
            Status::internal(format!("while retrieving {what} named in the PodCertificateRequest: {missing}"))
        })
    };
    let here = get("nodes", "", node, format!("node {node:?}"))?;
    if here["metadata"]["uid"] != wanted("nodeUID") {
        return Err(Status::internal(format!(
            "PodCertificateRequest for pod {full:?} names node UID {:?}, inconsistent with the running node ({})",
            wanted("nodeUID"),
            here["metadata"]["uid"]
        )));
    }
    let pod = get("pods", namespace, pod_name, format!("pod {full:?}"))?;
    if pod["metadata"]["uid"] != wanted("podUID") {
        return Err(Status::internal(format!(
            "PodCertificateRequest for pod {full:?} contains pod UID ({:?}) which differs from running pod {}",
            wanted("podUID"),
            pod["metadata"]["uid"]
        )));
    }
    if pod["spec"]["nodeName"] != node {
        let why = format!("pod {full:?} is not running on node {node:?} named in the PodCertificateRequest");
        return Err(request.forbidden(&why));
    }
    if pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some() {
        return Err(request.forbidden(&format!("pod {full:?} is a mirror pod")));
    }
    if pod["spec"]["serviceAccountName"] != account_name {
        return Err(request.forbidden(&format!(
            "PodCertificateRequest for pod {full:?} contains serviceAccountName ({account_name:?}) that differs from running pod ({})",
            pod["spec"]["serviceAccountName"]
        )));
    }
    let what = format!("service account {:?}", format!("{namespace}/{account_name}"));
    let account = get("serviceaccounts", namespace, account_name, what)?;
    if account["metadata"]["uid"] != wanted("serviceAccountUID") {
        return Err(Status::internal(format!(
            "PodCertificateRequest for pod {full:?} names service account UID {:?}, which differs from the running service account ({})",
            wanted("serviceAccountUID"),
            account["metadata"]["uid"]
        )));
    }
    if mounts(&pod, signer) || may_ask(request, signer, account_name, authorizers) {
        return Ok(());
    }
    let why = format!("pod {full:?} does not mount a podCertificate projected volume for signer {signer:?}");
    Err(request.forbidden(&why))
}

fn mounts(pod: &Value, signer: &str) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut sources = volumes.flat_map(|volume| volume["projected"]["sources"].as_array().into_iter().flatten());
    sources.any(|source| source["podCertificate"]["signerName"] == signer)
}

/// A right by which a node gets certificates of a signer that no volume names; its slash is a colon there.
fn may_ask(request: &Request<'_>, signer: &str, account: &str, authorizers: &Authorizers) -> bool {
    let (verb, resource) = ("request-serviceaccounts-podcertificate-signer", signer.replace('/', ":"));
    let group = &request.kind.group_version.group;
    let attributes = Attributes::resource(request.user, verb, group, &resource, request.namespace, account);
    authorizers.authorize(&attributes).is_allowed()
}
