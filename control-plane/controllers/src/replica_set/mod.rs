//! ReplicaSets and ReplicationControllers: as many pods as asked for.
//!
//! Watches ReplicaSets and pods; a pod's change makes its controlling ReplicaSet's key ready, an orphan's those of all that
//! would adopt it. Creates in batches that double while all goes well (slow start), so that a full quota isn't hammered.
//!
//! Invariant: no pod is created or deleted while an own earlier write is not yet seen ([`PodControl::is_settled`]).

pub(crate) mod reconcile;
mod replication;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Api;
use skep_client::slim::SlimPod;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::{Context, Informers};
use crate::runtime::{
    Change, ObjectKey, Outcome, PodControl, PodOwner, Queue, Reconcile, ReconcileError, controller_of, is_not_found,
    message, pod_from_template, post_params, run_workers, selector_matches,
};
use reconcile::{Action, Observed};

/// The kinds that this controller serves: they differ in name alone, as upstream adapts the one to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ReplicaSet,
    ReplicationController,
}

pub(crate) struct Controller {
    context: Context,
    kind: Kind,
    pods: PodControl,
}

/// Registers the handlers of ReplicaSets and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    start_kind(context, Kind::ReplicaSet, options, tasks, shutdown);
}

/// Registers the handlers of ReplicationControllers and starts the workers.
pub(crate) fn start_replication(
    context: Context,
    options: &Options,
    tasks: &mut JoinSet<()>,
    shutdown: &CancellationToken,
) {
    start_kind(context, Kind::ReplicationController, options, tasks, shutdown);
}

fn start_kind(context: Context, kind: Kind, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let name = match kind {
        Kind::ReplicaSet => "replicaset",
        Kind::ReplicationController => "replicationmanager",
    };
    let queue = context.queue(name);
    kind.watch(&context, &queue);
    let pods = PodControl::new(context.client.clone(), context.informers.pods.clone(), context.events.clone());
    let controller = Arc::new(Controller { context, kind, pods });
    run_workers(tasks, name, &controller, &queue, options.concurrency, shutdown);
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
        }
    }

    fn watch(self, context: &Context, queue: &Queue<ObjectKey>) {
        let informers = context.informers.clone();
        let sets = queue.clone();
        match self {
            Self::ReplicaSet => {
                informers.replica_sets.on_change(move |change| sets.add(ObjectKey::of(&**change.object())));
            }
            Self::ReplicationController => {
                informers.replication_controllers.on_change(move |change| sets.add(ObjectKey::of(&**change.object())));
            }
        }
        let (queue, pods) = (queue.clone(), informers.pods.clone());
        pods.on_change(move |change| {
            let owner = |pod: &SlimPod| controller_of(&pod.metadata).filter(|owner| owner.kind == self.name()).cloned();
            let pod = change.object();
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let (old, new) = (change.previous().and_then(|pod| owner(pod)), owner(pod));
            if let Some(old) = old.filter(|old| new.as_ref().is_none_or(|new| new.uid != old.uid)) {
                queue.add(ObjectKey::new(namespace, &old.name));
            }
            if let Some(owner) = new {
                queue.add(ObjectKey::new(namespace, &owner.name));
            } else if controller_of(&pod.metadata).is_none() && !matches!(change, Change::Deleted(_)) {
                for key in self.matching(&informers, namespace, pod) {
                    queue.add(key);
                }
            }
        });
    }

    /// The keys of those that would adopt the pod.
    fn matching(self, informers: &Informers, namespace: &str, pod: &SlimPod) -> Vec<ObjectKey> {
        let labels = pod.metadata.labels.as_ref();
        match self {
            Self::ReplicaSet => {
                let sets = informers.replica_sets.in_namespace(namespace);
                let matching = sets.iter().filter(|set| selector_matches(&set.spec.selector, labels));
                matching.map(|set| ObjectKey::of(&**set)).collect()
            }
            Self::ReplicationController => {
                let all = informers.replication_controllers.in_namespace(namespace);
                let matching = all.iter().filter(|own| {
                    let selector = replication::selector(own);
                    selector != LabelSelector::default() && selector_matches(&selector, labels)
                });
                matching.map(|own| ObjectKey::of(&**own)).collect()
            }
        }
    }

    /// The object of that key as a ReplicaSet, and who it is as an owner of pods.
    fn get(self, informers: &Informers, key: &ObjectKey) -> Option<(Arc<ReplicaSet>, PodOwner)> {
        match self {
            Self::ReplicaSet => {
                let set = informers.replica_sets.get(key)?;
                let owner = PodOwner::of(&*set);
                Some((set, owner))
            }
            Self::ReplicationController => {
                let own = informers.replication_controllers.get(key)?;
                Some((Arc::new(replication::replica_set(&own)), PodOwner::of(&*own)))
            }
        }
    }
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        let Some((set, owner)) = self.kind.get(informers, key) else {
            self.pods.forget(key);
            return Ok(Outcome::Done);
        };
        let uid = set.metadata.uid.as_deref().unwrap_or_default();
        // The progress is read before the pods: a later pod can only make the picture more complete.
        let settled = self.pods.is_settled(key);
        let mut pods = informers.pods.owned_by(uid);
        pods.extend(informers.pods.orphans(&key.namespace));
        let terminating = pods.iter().filter(|pod| pod.is_terminating() && !pod.is_terminal());
        let terminating =
            terminating.filter(|pod| controller_of(&pod.metadata).is_some_and(|owner| owner.uid == uid)).count();
        pods.retain(|pod| pod.is_active());
        let pods = self.pods.claim(&owner, &set.spec.selector, &pods, None).await?;
        let related = self.related(&set);
        let action =
            reconcile::reconcile(Observed { set: &set, pods: &pods, related: &related, settled }, Timestamp::now());
        let failure = match action {
            Some(Action::Create(count)) => {
                let pod = pod_from_template(&owner, &set.spec.template.clone().unwrap_or_default());
                self.pods.create(&owner, vec![pod; count]).await.failure
            }
            Some(Action::Delete(surplus)) => self.pods.delete(&owner, &surplus).await.failure,
            None => None,
        };
        let now = Timestamp::now();
        let text = failure.as_ref().map(message);
        let mut status = if settled || failure.is_some() {
            reconcile::status(&set, &pods, terminating, text.as_deref(), now)
        } else {
            let had = set.status.as_ref().and_then(|status| status.conditions.as_ref());
            let failed =
                had.is_some_and(|conditions| conditions.iter().any(|c| c.type_.as_deref() == Some("ReplicaFailure")));
            reconcile::status(&set, &pods, terminating, failed.then_some(""), now)
        };
        if self.kind == Kind::ReplicationController {
            status.terminating_replicas = None;
        }
        if !set.status.as_ref().is_some_and(|old| reconcile::same_status(old, &status)) {
            match self.write_status(key, &set, status).await {
                Err(error) if is_not_found(&error) => return Ok(Outcome::Done),
                written => written?,
            }
        }
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(Outcome::Done.or_after(reconcile::next_check(&set, &pods, now))),
        }
    }
}

impl Controller {
    async fn write_status(
        &self,
        key: &ObjectKey,
        set: &ReplicaSet,
        status: ReplicaSetStatus,
    ) -> Result<(), kube::Error> {
        let client = self.context.client.clone();
        match self.kind {
            Kind::ReplicaSet => {
                let changed = ReplicaSet { status: Some(status), ..set.clone() };
                let api = Api::<ReplicaSet>::namespaced(client, &key.namespace);
                api.replace_status(&key.name, &post_params(), &changed).await.map(drop)
            }
            Kind::ReplicationController => {
                let Some(own) = self.context.informers.replication_controllers.get(key) else { return Ok(()) };
                let mut changed = (*own).clone();
                // The revision that was decided on, not one that came since.
                changed.metadata = set.metadata.clone();
                changed.status = Some(replication::status(status));
                let api = Api::<ReplicationController>::namespaced(client, &key.namespace);
                api.replace_status(&key.name, &post_params(), &changed).await.map(drop)
            }
        }
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
}
