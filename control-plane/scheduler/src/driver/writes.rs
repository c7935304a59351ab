//! What the driver writes: bindings, the pod's condition `PodScheduled`, and the deletion of pods that make room.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod as ApiPod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Request;
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

use crate::core::{Pod, VictimPod};

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

/// Why a pod is not scheduled.
pub(super) struct NotScheduled<'a> {
    pub(super) generation: Option<i64>,
    pub(super) reason: &'a str,
    pub(super) message: &'a str,
    /// When the condition became false, if it was already.
    pub(super) since: Timestamp,
    /// The node on which others make room for it.
    pub(super) nominated: Option<&'a str>,
}

/// Writes `PodScheduled=False`.
pub(super) async fn set_not_scheduled(client: &Client, pod: &Pod, word: NotScheduled<'_>) -> Result<(), kube::Error> {
    let mut condition = condition("PodScheduled", "False", word.reason, word.message, word.since);
    condition["lastProbeTime"] = json!(null);
    if let Some(generation) = word.generation {
        condition["observedGeneration"] = json!(generation);
    }
    let mut status = json!({"conditions": [condition]});
    if let Some(node) = word.nominated {
        status["nominatedNodeName"] = json!(node);
    }
    let patch = Patch::Strategic(json!({"status": status}));
    let api = Api::<ApiPod>::namespaced(client.clone(), &pod.namespace);
    // The answer is the whole pod, which nobody reads: the watch brings what counts.
    api.patch_status(&pod.name, &PatchParams::default(), &patch).await.map(|_| ())
}

/// Deletes a pod that makes room, and says so in its status before (KEP-3329). One that is gone is no error.
pub(super) async fn evict(client: &Client, victim: &VictimPod) -> Result<(), kube::Error> {
    let message = "default-scheduler: preempting to accommodate a higher priority pod";
    let condition = condition("DisruptionTarget", "True", "PreemptionByScheduler", message, Timestamp::now());
    // The uid has a pod of the same name that came since be left alone.
    let patch = json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}});
    let api = Api::<ApiPod>::namespaced(client.clone(), &victim.namespace);
    let told = api.patch_status(&victim.name, &PatchParams::default(), &Patch::Strategic(patch)).await;
    gone_is_fine(told.map(drop))?;
    let preconditions = Some(Preconditions { uid: Some(victim.uid.to_string()), resource_version: None });
    let params = DeleteParams { preconditions, ..DeleteParams::default() };
    gone_is_fine(api.delete(&victim.name, &params).await.map(drop))
}

fn gone_is_fine(result: Result<(), kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        other => other,
    }
}

fn condition(kind: &str, status: &str, reason: &str, message: &str, since: Timestamp) -> Value {
    let since = since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
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

/// As [`reference`], of a pod that makes room.
pub(super) fn reference_to(victim: &VictimPod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(victim.namespace.to_string()),
        name: Some(victim.name.to_string()),
        uid: Some(victim.uid.to_string()),
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
