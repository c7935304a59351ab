//! ReplicaSets: as many pods as asked for.
//!
//! Watches ReplicaSets and pods; a pod's change makes its controlling ReplicaSet's key ready, an orphan's those of all that
//! would adopt it. Creates in batches that double while all goes well (slow start), so that a full quota isn't hammered.
//!
//! Invariant: no pod is created or deleted while an own earlier write is not yet seen ([`WriteTracking`]).

mod reconcile;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, Preconditions};
use kube::{Api, Resource};
use skep_client::EventType;
use skep_client::slim::SlimPod;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::runtime::{
    Change, ObjectKey, ObservedDeletion, Outcome, Queue, Reconcile, ReconcileError, Revision, WriteTracking, claim,
    controller_of, controller_reference, is_not_found, message, namespace_is_terminating, owner_patch, patch_params,
    post_params, run_workers, selector_matches,
};
use reconcile::{Action, Observed};

/// How many requests of one batch run at the same time.
const PARALLEL_WRITES: usize = 32;

pub(crate) struct Controller {
    context: Context,
    tracking: WriteTracking,
}

/// Registers the handlers and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("replicaset");
    watch(&context, &queue);
    let controller = Arc::new(Controller { context, tracking: WriteTracking::default() });
    run_workers(tasks, "replicaset", &controller, &queue, options.concurrency, shutdown);
}

fn watch(context: &Context, queue: &Queue<ObjectKey>) {
    let sets = queue.clone();
    context.informers.replica_sets.on_change(move |change| sets.add(ObjectKey::of(&**change.object())));
    let (queue, replica_sets) = (queue.clone(), context.informers.replica_sets.clone());
    context.informers.pods.on_change(move |change| {
        let owner = |pod: &SlimPod| controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet").cloned();
        let pod = change.object();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let (old, new) = (change.previous().and_then(|pod| owner(pod)), owner(pod));
        if let Some(old) = old.filter(|old| new.as_ref().is_none_or(|new| new.uid != old.uid)) {
            queue.add(ObjectKey::new(namespace, &old.name));
        }
        if let Some(owner) = new {
            queue.add(ObjectKey::new(namespace, &owner.name));
        } else if controller_of(&pod.metadata).is_none() && !matches!(change, Change::Deleted(_)) {
            for set in replica_sets.in_namespace(namespace) {
                if selector_matches(&set.spec.selector, pod.metadata.labels.as_ref()) {
                    queue.add(ObjectKey::of(&*set));
                }
            }
        }
    });
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        let Some(set) = informers.replica_sets.get(key) else {
            self.tracking.forget(key);
            return Ok(Outcome::Done);
        };
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        // The progress is read before the pods: a later pod can only make the picture more complete.
        let settled = self.is_settled(key);
        let mut pods = informers.pods.owned_by(uid);
        pods.extend(informers.pods.orphans(&key.namespace));
        let terminating = pods.iter().filter(|pod| pod.is_terminating() && !pod.is_terminal());
        let terminating =
            terminating.filter(|pod| controller_of(&pod.metadata).is_some_and(|owner| owner.uid == uid)).count();
        pods.retain(|pod| pod.is_active());
        let pods = self.claim(&set, &pods).await?;
        let related = self.related(&set);
        let action =
            reconcile::reconcile(Observed { set: &set, pods: &pods, related: &related, settled }, Timestamp::now());
        let failure = match action {
            Some(Action::Create(count)) => self.create(key, &set, count).await.err(),
            Some(Action::Delete(surplus)) => self.delete(key, &set, surplus).await.err(),
            None => None,
        };
        let now = Timestamp::now();
        let text = failure.as_ref().map(message);
        let status = if settled || failure.is_some() {
            reconcile::status(&set, &pods, terminating, text.as_deref(), now)
        } else {
            let had = set.status.as_ref().and_then(|status| status.conditions.as_ref());
            let failed =
                had.is_some_and(|conditions| conditions.iter().any(|c| c.type_.as_deref() == Some("ReplicaFailure")));
            reconcile::status(&set, &pods, terminating, failed.then_some(""), now)
        };
        if !set.status.as_ref().is_some_and(|old| reconcile::same_status(old, &status)) {
            let mut changed = (*set).clone();
            changed.status = Some(status);
            let api = Api::<ReplicaSet>::namespaced(self.context.client.clone(), &key.namespace);
            match api.replace_status(&key.name, &post_params(), &changed).await {
                Err(error) if is_not_found(&error) => return Ok(Outcome::Done),
                written => written?,
            };
        }
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(Outcome::Done.or_after(reconcile::next_check(&set, &pods, now))),
        }
    }
}

impl Controller {
    fn is_settled(&self, key: &ObjectKey) -> bool {
        let pods = &self.context.informers.pods;
        let observed = |object: &ObjectKey, uid: &str| {
            let alive =
                pods.get(object).is_some_and(|pod| pod.metadata.uid.as_deref() == Some(uid) && !pod.is_terminating());
            if alive { ObservedDeletion::Unseen } else { ObservedDeletion::Seen }
        };
        self.tracking.is_settled(key, pods.progress(), observed, Instant::now())
    }

    /// The pods that are the ReplicaSet's after adopting and releasing.
    async fn claim(&self, set: &ReplicaSet, pods: &[Arc<SlimPod>]) -> Result<Vec<Arc<SlimPod>>, ReconcileError> {
        let spec = &set.spec;
        let claims = claim(&set.metadata, &spec.selector, pods);
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let api = Api::<Pod>::namespaced(self.context.client.clone(), namespace);
        let mut kept = claims.kept;
        if !claims.adopt.is_empty() {
            // Read live: a ReplicaSet that is being deleted with its pods orphaned must not take them back.
            let sets = Api::<ReplicaSet>::namespaced(self.context.client.clone(), namespace);
            let fresh = sets.get(set.metadata.name.as_deref().unwrap_or_default()).await?;
            if fresh.metadata.uid != set.metadata.uid || fresh.metadata.deletion_timestamp.is_some() {
                return Err(ReconcileError::Invalid("it is being deleted and can't adopt".to_owned()));
            }
        }
        let owner = controller_reference(set);
        for pod in claims.adopt {
            let patch = owner_patch(&pod.metadata, Some(&owner), None);
            match api
                .patch(pod.metadata.name.as_deref().unwrap_or_default(), &patch_params(), &Patch::Merge(&patch))
                .await
            {
                Ok(_) => kept.push(pod),
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        for pod in claims.release {
            let patch = owner_patch(&pod.metadata, None, set.metadata.uid.as_deref());
            match api
                .patch(pod.metadata.name.as_deref().unwrap_or_default(), &patch_params(), &Patch::Merge(&patch))
                .await
            {
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(kept)
    }

    fn related(&self, set: &ReplicaSet) -> Vec<Arc<SlimPod>> {
        let informers = &self.context.informers;
        let own = || informers.pods.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
        match controller_of(&set.metadata) {
            Some(owner) => {
                let siblings = informers.replica_sets.owned_by(&owner.uid);
                let uids = siblings.iter().filter_map(|sibling| sibling.metadata.uid.as_deref());
                uids.flat_map(|uid| informers.pods.owned_by(uid)).collect()
            }
            None => own(),
        }
    }

    /// Creates in batches of 1, 2, 4, …; the first error ends it after its batch.
    async fn create(&self, key: &ObjectKey, set: &ReplicaSet, count: usize) -> Result<(), kube::Error> {
        let pod = pod_from_template(set);
        let api = Api::<Pod>::namespaced(self.context.client.clone(), &key.namespace);
        let mut left = count;
        let mut batch = 1.min(left);
        while batch > 0 {
            let (api, pod) = (&api, &pod);
            let (_, lists_begun, _) = self.context.informers.pods.progress();
            let parameters = post_params();
            let requests = (0..batch).map(|_| api.create(&parameters, pod));
            let mut answers = futures::stream::iter(requests).buffer_unordered(PARALLEL_WRITES);
            let mut failure = None;
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(created) => {
                        self.tracking.created(key, Revision::of(&created), lists_begun, Instant::now());
                        let name = created.metadata.name.unwrap_or_default();
                        self.event(set, EventType::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
                    }
                    Err(error) if namespace_is_terminating(&error) => return Ok(()),
                    Err(error) => {
                        self.event(
                            set,
                            EventType::Warning,
                            "FailedCreate",
                            format!("Error creating: {}", message(&error)),
                        );
                        failure.get_or_insert(error);
                    }
                }
            }
            if let Some(error) = failure {
                return Err(error);
            }
            left -= batch;
            batch = (2 * batch).min(left);
        }
        Ok(())
    }

    async fn delete(&self, key: &ObjectKey, set: &ReplicaSet, pods: Vec<Arc<SlimPod>>) -> Result<(), kube::Error> {
        let api = &Api::<Pod>::namespaced(self.context.client.clone(), &key.namespace);
        let requests = pods.into_iter().map(|pod| async move {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: None };
            let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            let deleted = api.delete(pod.metadata.name.as_deref().unwrap_or_default(), &parameters).await;
            (pod, uid, deleted)
        });
        let mut answers = futures::stream::iter(requests).buffer_unordered(PARALLEL_WRITES);
        let mut failure = None;
        while let Some((pod, uid, deleted)) = answers.next().await {
            let name = pod.metadata.name.clone().unwrap_or_default();
            match deleted {
                Ok(_) => {
                    self.tracking.deleted(key, ObjectKey::of(&*pod), &uid, Instant::now());
                    self.event(set, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
                }
                Err(error) if is_not_found(&error) => {}
                Err(error) => {
                    self.event(set, EventType::Warning, "FailedDelete", format!("Error deleting: {}", message(&error)));
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn event(&self, set: &ReplicaSet, r#type: EventType, reason: &str, note: String) {
        let action = if reason.ends_with("Create") { "Create" } else { "Delete" };
        self.context.events.record(set.object_ref(&()), r#type, reason, action, note);
    }
}

/// The pod of the template, owned by the ReplicaSet (`GetPodFromTemplate`).
fn pod_from_template(set: &ReplicaSet) -> Pod {
    let template = set.spec.template.clone().unwrap_or_default();
    let meta = template.metadata.unwrap_or_default();
    let name = set.metadata.name.as_deref().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{name}-")),
            namespace: set.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(set)]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
