//! What the driver writes: bindings and the pod's condition `PodScheduled`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod as ApiPod};
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Api, Client, Resource};
use serde_json::json;

use crate::core::Pod;

/// Binds a pod to a node: `POST pods/<name>/binding` with the uid, so that a pod of the same name that came since is left alone.
pub(super) async fn bind(client: &Client, pod: &Pod, node: &str) -> Result<(), kube::Error> {
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": pod.namespace, "name": pod.name, "uid": pod.uid},
        "target": {"kind": "Node", "name": node},
    });
    let url = ApiPod::url_path(&(), Some(&pod.namespace));
    let body = serde_json::to_vec(&binding).map_err(kube::Error::SerdeError)?;
    let request = Request::new(url)
        .create_subresource("binding", &pod.name, &PostParams::default(), body)
        .map_err(kube::Error::BuildRequest)?;
    client.request_text(request).await.map(|_| ())
}

/// Writes `PodScheduled=False`. `since` is when the condition became false, if it was already.
pub(super) async fn set_not_scheduled(
    client: &Client,
    pod: &Pod,
    generation: Option<i64>,
    reason: &str,
    message: &str,
    since: Timestamp,
) -> Result<(), kube::Error> {
    let mut condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": reason,
        "message": message,
        "lastProbeTime": null,
        "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    if let Some(generation) = generation {
        condition["observedGeneration"] = json!(generation);
    }
    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    let api = Api::<ApiPod>::namespaced(client.clone(), &pod.namespace);
    // The answer is the whole pod, which nobody reads: the watch brings what counts.
    api.patch_status(&pod.name, &PatchParams::default(), &patch).await.map(|_| ())
}

/// What an event is about.
pub(super) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.to_string()),
        name: Some(pod.name.to_string()),
        uid: Some(pod.uid.to_string()),
        ..ObjectReference::default()
    }
}

/// Cuts an event's note as upstream does (`truncateMessage`).
pub(super) fn note(message: &str) -> String {
    const LIMIT: usize = 1024;
    const SUFFIX: &str = " ...";
    if message.len() <= LIMIT {
        return message.to_owned();
    }
    let mut end = LIMIT - SUFFIX.len();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{SUFFIX}", &message[..end])
}
