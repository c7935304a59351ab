//! What controllers of pods do to them: claim, create in batches that double while all goes well, and delete.
//!
//! Follows `controller_utils.go` (`RealPodControl`) and `controller_ref_manager.go` (`PodControllerRefManager`).
//!
//! Invariant: each write is noted, so that [`PodControl::is_settled`] is false until the pods' informer shows it.

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::api::{ApiResource, DynamicObject, Patch};
use kube::{Api, Client, Resource};
use skep_client::slim::SlimPod;
use skep_client::{EventRecorder, EventType};

use super::{
    Informer, ObjectKey, ObservedDeletion, ReconcileError, Revision, WriteTracking, claim, delete_params, is_not_found,
    message, namespace_is_terminating, owner_patch, patch_params, post_params,
};

/// How many requests of one batch run at the same time.
const PARALLEL_WRITES: usize = 32;

/// Who controls pods: its kind and its metadata.
#[derive(Clone, Debug)]
pub struct PodOwner {
    resource: ApiResource,
    meta: ObjectMeta,
}

impl PodOwner {
    /// The owner that is this object.
    #[must_use]
    pub fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self { resource: ApiResource::erase::<K>(&()), meta: object.meta().clone() }
    }

    /// Its metadata.
    #[must_use]
    pub fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.namespace(), self.meta.name.as_deref().unwrap_or_default())
    }

    /// The reference that its pods carry.
    #[must_use]
    pub fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: self.resource.api_version.clone(),
            kind: self.resource.kind.clone(),
            name: self.meta.name.clone().unwrap_or_default(),
            uid: self.meta.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }

    /// How events name it.
    #[must_use]
    pub fn object(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(self.resource.api_version.clone()),
            kind: Some(self.resource.kind.clone()),
            name: self.meta.name.clone(),
            namespace: self.meta.namespace.clone(),
            uid: self.meta.uid.clone(),
            resource_version: self.meta.resource_version.clone(),
            field_path: None,
        }
    }

    /// Fails if it is being deleted, by what the API server has now: an owner whose dependents are being orphaned must not
    /// take them back (`RecheckDeletionTimestamp`).
    ///
    /// # Errors
    /// The read failed, or it is another object of that name, or it is being deleted.
    pub async fn check_can_adopt(&self, client: &Client) -> Result<(), ReconcileError> {
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), self.namespace(), &self.resource);
        let fresh = api.get(self.meta.name.as_deref().unwrap_or_default()).await?;
        if fresh.metadata.uid != self.meta.uid || fresh.metadata.deletion_timestamp.is_some() {
            return Err(ReconcileError::Invalid("it is being deleted and can't adopt".to_owned()));
        }
        Ok(())
    }

    fn namespace(&self) -> &str {
        self.meta.namespace.as_deref().unwrap_or_default()
    }
}

/// What came of a batch of writes: how many succeeded, and the first error.
#[derive(Debug, Default)]
pub struct Written {
    /// Objects that were written.
    pub count: usize,
    /// Why others were not.
    pub failure: Option<kube::Error>,
}

impl Written {
    /// The error, if any.
    ///
    /// # Errors
    /// The first error of the batch.
    pub fn ok(self) -> Result<usize, kube::Error> {
        self.failure.map_or(Ok(self.count), Err)
    }
}

/// Writes the pods of one controller's objects.
pub struct PodControl {
    client: Client,
    pods: Informer<SlimPod>,
    events: EventRecorder,
    tracking: WriteTracking,
}

impl std::fmt::Debug for PodControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PodControl").field("tracking", &self.tracking).finish_non_exhaustive()
    }
}

impl PodControl {
    /// Writes by `client` and says so by `events`; `pods` must show all pods that it writes.
    #[must_use]
    pub fn new(client: Client, pods: Informer<SlimPod>, events: EventRecorder) -> Self {
        Self { client, pods, events, tracking: WriteTracking::default() }
    }

    /// Whether the informer shows all earlier writes for the owner of that key. To be asked before its pods are read.
    #[must_use]
    pub fn is_settled(&self, key: &ObjectKey) -> bool {
        let observed = |object: &ObjectKey, uid: &str| {
            let pod = self.pods.get(object).filter(|pod| pod.metadata.uid.as_deref() == Some(uid));
            if pod.is_some_and(|pod| !pod.is_terminating()) { ObservedDeletion::Unseen } else { ObservedDeletion::Seen }
        };
        self.tracking.is_settled(key, self.pods.progress(), observed, Instant::now())
    }

    /// The owner of that key is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.tracking.forget(key);
    }

    /// The candidates that are the owner's after adopting and releasing. `finalizer` goes with the ownership: adopted pods
    /// get it, released ones lose it.
    ///
    /// # Errors
    /// A write failed, or the owner is being deleted and would have to adopt.
    pub async fn claim(
        &self,
        owner: &PodOwner,
        selector: &LabelSelector,
        candidates: &[Arc<SlimPod>],
        finalizer: Option<&str>,
    ) -> Result<Vec<Arc<SlimPod>>, ReconcileError> {
        let claims = claim(&owner.meta, selector, candidates);
        let mut kept = claims.kept;
        if !claims.adopt.is_empty() {
            owner.check_can_adopt(&self.client).await?;
        }
        let api = Api::<Pod>::namespaced(self.client.clone(), owner.namespace());
        let reference = owner.reference();
        let uid = owner.meta.uid.as_deref();
        let adopt = claims.adopt.into_iter().map(|pod| (owner_patch(&pod.metadata, Some(&reference), None), pod, true));
        let release = claims.release.into_iter().map(|pod| (owner_patch(&pod.metadata, None, uid), pod, false));
        for (mut patch, pod, adopted) in adopt.chain(release) {
            let mut changed = (*pod).clone();
            if let Some(finalizer) = finalizer {
                let finalizers = changed.metadata.finalizers.get_or_insert_default();
                finalizers.retain(|name| name != finalizer);
                if adopted {
                    finalizers.push(finalizer.to_owned());
                }
                patch["metadata"]["finalizers"] = serde_json::json!(finalizers);
            }
            match api.patch(name(&pod), &patch_params(), &Patch::Merge(&patch)).await {
                Ok(_) if adopted => kept.push(Arc::new(changed)),
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(kept)
    }

    /// Creates the pods in batches of 1, 2, 4, …; the first error ends it after its batch. In a namespace that is being
    /// deleted it ends without an error, as every further try would fail too.
    pub async fn create(&self, owner: &PodOwner, mut pods: Vec<Pod>) -> Written {
        let (key, object) = (owner.key(), owner.object());
        let api = Api::<Pod>::namespaced(self.client.clone(), &key.namespace);
        let mut written = Written::default();
        let mut size = 1;
        while !pods.is_empty() && written.failure.is_none() {
            let batch: Vec<Pod> = pods.drain(..size.min(pods.len())).collect();
            let (_, lists_begun, _) = self.pods.progress();
            let parameters = post_params();
            let (api, parameters) = (&api, &parameters);
            let requests = batch.into_iter().map(|pod| async move { api.create(parameters, &pod).await });
            let mut answers = futures::stream::iter(requests).buffer_unordered(PARALLEL_WRITES);
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(created) => {
                        written.count += 1;
                        self.tracking.created(&key, Revision::of(&created), lists_begun, Instant::now());
                        let note = format!("Created pod: {}", created.metadata.name.unwrap_or_default());
                        self.events.record(object.clone(), EventType::Normal, "SuccessfulCreate", "Create", note);
                    }
                    Err(error) if namespace_is_terminating(&error) => return written,
                    Err(error) => {
                        let note = format!("Error creating: {}", message(&error));
                        self.events.record(object.clone(), EventType::Warning, "FailedCreate", "Create", note);
                        written.failure.get_or_insert(error);
                    }
                }
            }
            size *= 2;
        }
        written
    }

    /// Deletes the pods, each only if it is still the same one; one that is gone counts as deleted.
    pub async fn delete(&self, owner: &PodOwner, pods: &[Arc<SlimPod>]) -> Written {
        let (key, object) = (owner.key(), owner.object());
        let api = &Api::<Pod>::namespaced(self.client.clone(), &key.namespace);
        let requests = pods.iter().cloned().map(|pod| async move {
            {
                let deleted = api.delete(name(&pod), &delete_params(&pod, None)).await;
                (pod, deleted)
            }
        });
        let mut answers = futures::stream::iter(requests).buffer_unordered(PARALLEL_WRITES);
        let mut written = Written::default();
        while let Some((pod, deleted)) = answers.next().await {
            match deleted {
                Ok(_) => {
                    written.count += 1;
                    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                    self.tracking.deleted(&key, ObjectKey::of(&*pod), uid, Instant::now());
                    let note = format!("Deleted pod: {}", name(&pod));
                    self.events.record(object.clone(), EventType::Normal, "SuccessfulDelete", "Delete", note);
                }
                Err(error) if is_not_found(&error) => written.count += 1,
                Err(error) => {
                    let note = format!("Error deleting: {}", message(&error));
                    self.events.record(object.clone(), EventType::Warning, "FailedDelete", "Delete", note);
                    written.failure.get_or_insert(error);
                }
            }
        }
        written
    }

    /// A pod of the owner was created at `revision` by other means, when the informer had begun that many lists.
    pub fn note_created(&self, owner: &PodOwner, revision: Revision, lists_begun: u64, now: Instant) {
        self.tracking.created(&owner.key(), revision, lists_begun, now);
    }

    /// A pod of the owner was deleted by other means.
    pub fn note_deleted(&self, owner: &PodOwner, pod: &SlimPod, now: Instant) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.tracking.deleted(&owner.key(), ObjectKey::of(pod), uid, now);
    }

    /// Takes a finalizer from the pods. Gives those that no longer have it, and the first error.
    pub async fn remove_finalizer(
        &self,
        pods: &[Arc<SlimPod>],
        finalizer: &str,
    ) -> (Vec<Arc<SlimPod>>, Option<kube::Error>) {
        let requests = pods.iter().cloned().map(|pod| async move {
            {
                let removed = remove_finalizer(&self.client, &pod, finalizer).await;
                (pod, removed)
            }
        });
        let mut answers = futures::stream::iter(requests).buffer_unordered(PARALLEL_WRITES);
        let (mut removed, mut failure) = (Vec::new(), None);
        while let Some((pod, answer)) = answers.next().await {
            match answer {
                Ok(()) => removed.push(pod),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        (removed, failure)
    }
}

/// Takes a finalizer from a pod that has it; a pod that is gone is no error.
///
/// # Errors
/// The API server refused the patch.
pub async fn remove_finalizer(client: &Client, pod: &SlimPod, finalizer: &str) -> Result<(), kube::Error> {
    if !pod.metadata.finalizers.iter().flatten().any(|name| name == finalizer) {
        return Ok(());
    }
    let api = Api::<Pod>::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let patch = serde_json::json!({"metadata": {
        "uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [finalizer],
    }});
    match api.patch(name(pod), &patch_params(), &Patch::Strategic(&patch)).await {
        Err(error) if is_not_found(&error) => Ok(()),
        patched => patched.map(drop),
    }
}

/// The pod of a template, controlled by `owner` (`GetPodFromTemplate`). Its name is generated after the owner's.
#[must_use]
pub fn pod_from_template(owner: &PodOwner, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.meta.name.as_deref().unwrap_or_default())),
            namespace: owner.meta.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner.reference()]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

fn name(pod: &SlimPod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}
