//! Garbage collector: what no owner is left for goes, an owner deleted in the foreground waits for its dependents, and one
//! deleted with its dependents orphaned lets them go first (`controller/garbagecollector`).
//!
//! Watches the metadata of all deletable kinds, which it discovers every 30 s. Keys are uids, so the queue holds no more keys
//! than there are objects.
//!
//! Invariant: an object is deleted only after a live read showed the same owners that were found absent, and only at that uid
//! and revision. What can't be found out (an owner of an unknown kind) keeps its dependents.
//!
//! Data flow: metadata watches → [`graph::Graph`] → queue → decision → live reads → deletes and patches.

mod discovery;
mod graph;
mod monitor;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, Preconditions, PropagationPolicy};
use parking_lot::RwLock;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::context::Context;
use crate::runtime::{Departures, Outcome, Queue, Reconcile, ReconcileError, is_not_found, patch_params, run_workers};
pub(crate) use discovery::discover;
use discovery::{Discovered, Resource};
use graph::{Action, FOREGROUND, Graph, Node, ORPHAN, Owner, Uid, Verdict};

/// Upstream's `--concurrent-gc-syncs`.
const WORKERS: usize = 20;

pub(crate) struct Controller {
    context: Context,
    shared: Shared,
}

/// What the watches fill and the workers read.
#[derive(Clone)]
struct Shared {
    graph: Arc<RwLock<Graph>>,
    kinds: Arc<RwLock<Discovered>>,
    queue: Queue<Uid>,
    /// Who else wants to know what is gone.
    departures: Departures,
}

/// Starts the watches, and the workers once the first lists are in.
pub(crate) fn start(context: Context, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = Queue::new(context.metrics.queue("garbage_collector_attempt_to_delete"));
    let departures = context.informers.departures.clone();
    let shared = Shared { graph: Arc::default(), kinds: Arc::default(), queue: queue.clone(), departures };
    let controller = Arc::new(Controller { context: context.clone(), shared: shared.clone() });
    let shutdown = shutdown.clone();
    tasks.spawn(async move {
        let mut tasks = JoinSet::new();
        let (ready, mut is_ready) = tokio::sync::watch::channel(false);
        tasks.spawn(monitor::run(context.client, shared, ready, shutdown.clone()));
        let begun = tokio::select! {
            () = shutdown.cancelled() => false,
            synced = is_ready.wait_for(|ready| *ready) => synced.is_ok(),
        };
        if begun {
            run_workers(&mut tasks, "garbage-collector", &controller, &queue, WORKERS, &shutdown);
        }
        while tasks.join_next().await.is_some() {}
    });
}

impl Reconcile for Controller {
    type Key = Uid;

    async fn reconcile(&self, uid: &Uid) -> Result<Outcome, ReconcileError> {
        let (node, action) = {
            let graph = self.shared.graph.read();
            let Some(node) = graph.get(uid).cloned() else { return Ok(Outcome::Done) };
            (node, graph.decide(uid))
        };
        match action {
            Action::Keep => {}
            Action::FinishForeground => self.remove_finalizer(uid, &node, FOREGROUND).await?,
            Action::Orphan(dependents) => {
                for dependent in dependents {
                    self.release(&dependent, uid).await?;
                }
                self.remove_finalizer(uid, &node, ORPHAN).await?;
            }
            Action::Judge(owners) => return self.judge(uid, &node, owners).await,
        }
        Ok(Outcome::Done)
    }
}

impl Controller {
    async fn judge(&self, uid: &Uid, node: &Node, mut owners: Vec<Owner>) -> Result<Outcome, ReconcileError> {
        for (owner, reference) in owners.iter_mut().zip(&node.owners) {
            if *owner == Owner::Unknown {
                *owner = self.look_up(node, reference).await?;
            }
        }
        let verdict = self.shared.graph.read().decide_by_owners(uid, &owners);
        if verdict == Verdict::Keep {
            return Ok(Outcome::Done);
        }
        let Some(live) = self.live(uid, node).await? else { return Ok(Outcome::Done) };
        if live.owner_references.as_deref().unwrap_or_default() != node.owners {
            // The watch will show the new owners; until then nothing is known of them.
            return Ok(Outcome::Retry);
        }
        if live.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        match verdict {
            Verdict::Keep => {}
            Verdict::DropReferences(places) => {
                let kept = node.owners.iter().enumerate().filter(|(place, _)| !places.contains(place));
                let kept: Vec<_> = kept.map(|(_, owner)| owner).collect();
                self.patch(node, &live, json!({ "ownerReferences": kept })).await?;
            }
            Verdict::Delete => {
                let has = |finalizer: &str| live.finalizers.iter().flatten().any(|own| own == finalizer);
                let policy = if has(ORPHAN) {
                    PropagationPolicy::Orphan
                } else if has(FOREGROUND) {
                    PropagationPolicy::Foreground
                } else {
                    PropagationPolicy::Background
                };
                self.delete(node, &live, policy).await?;
            }
            Verdict::DeleteForeground { unblock: true } => {
                let open =
                    |owner: &OwnerReference| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() };
                let owners: Vec<_> = node.owners.iter().map(open).collect();
                self.patch(node, &live, json!({ "ownerReferences": owners })).await?;
                // The patch moved the object on: it is deleted at its new revision, if its owners are the ones written.
                let Some(live) = self.live(uid, node).await? else { return Ok(Outcome::Done) };
                if live.owner_references.as_deref() != Some(&owners) {
                    return Ok(Outcome::Retry);
                }
                self.delete(node, &live, PropagationPolicy::Foreground).await?;
            }
            Verdict::DeleteForeground { unblock: false } => {
                self.delete(node, &live, PropagationPolicy::Foreground).await?;
            }
        }
        Ok(Outcome::Done)
    }

    /// Whether the API server has the owner that the reference names.
    async fn look_up(&self, node: &Node, reference: &OwnerReference) -> Result<Owner, ReconcileError> {
        let kind = (reference.api_version.clone(), reference.kind.clone());
        let Some(resource) = self.shared.kinds.read().by_kind.get(&kind).cloned() else {
            let text = format!("its owner's kind {} of {} is not known", reference.kind, reference.api_version);
            return Err(ReconcileError::Invalid(text));
        };
        if resource.namespaced && !node.resource.namespaced {
            // No namespace says where to look, now or later, so this is no error to come back for.
            warn!(name = %node.name, owner = %reference.name, "a cluster-scoped object names a namespaced owner");
            return Ok(Owner::Unknown);
        }
        let found = self.api(&resource, &node.namespace).get_metadata_opt(&reference.name).await?;
        let Some(found) = found.filter(|found| found.metadata.uid.as_deref() == Some(&reference.uid)) else {
            return Ok(Owner::Absent);
        };
        let waits = found.metadata.deletion_timestamp.is_some()
            && found.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND);
        Ok(if waits { Owner::Waiting } else { Owner::Solid })
    }

    /// The object's metadata now; `None` if it is gone.
    async fn live(&self, uid: &str, node: &Node) -> Result<Option<ObjectMeta>, kube::Error> {
        let found = self.api(&node.resource, &node.namespace).get_metadata_opt(&node.name).await?;
        Ok(found.map(|found| found.metadata).filter(|meta| meta.uid.as_deref() == Some(uid)))
    }

    /// Takes the references to an owner out of a dependent.
    async fn release(&self, dependent: &str, owner: &str) -> Result<(), kube::Error> {
        let Some(node) = self.shared.graph.read().get(dependent).cloned() else { return Ok(()) };
        let Some(live) = self.live(dependent, &node).await? else { return Ok(()) };
        let owners = live.owner_references.as_deref().unwrap_or_default();
        let kept: Vec<_> = owners.iter().filter(|reference| reference.uid != owner).collect();
        if kept.len() == owners.len() {
            return Ok(());
        }
        self.patch(&node, &live, json!({ "ownerReferences": kept })).await
    }

    async fn remove_finalizer(&self, uid: &str, node: &Node, finalizer: &str) -> Result<(), kube::Error> {
        let Some(live) = self.live(uid, node).await? else { return Ok(()) };
        let finalizers = live.finalizers.as_deref().unwrap_or_default();
        let kept: Vec<_> = finalizers.iter().filter(|own| *own != finalizer).collect();
        if kept.len() == finalizers.len() {
            return Ok(());
        }
        self.patch(node, &live, json!({ "finalizers": kept })).await
    }

    /// Merges into the metadata, at the uid and revision of `live`.
    async fn patch(&self, node: &Node, live: &ObjectMeta, mut metadata: Value) -> Result<(), kube::Error> {
        metadata["uid"] = json!(live.uid);
        metadata["resourceVersion"] = json!(live.resource_version);
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let api = self.api(&node.resource, &node.namespace);
        gone_is_fine(api.patch_metadata(&node.name, &patch_params(), &patch).await.map(drop))
    }

    async fn delete(&self, node: &Node, live: &ObjectMeta, policy: PropagationPolicy) -> Result<(), kube::Error> {
        debug!(kind = node.resource.api.kind, namespace = %node.namespace, name = %node.name, ?policy, "deleting");
        let preconditions = Preconditions { uid: live.uid.clone(), resource_version: live.resource_version.clone() };
        let parameters = DeleteParams {
            preconditions: Some(preconditions),
            propagation_policy: Some(policy),
            ..DeleteParams::default()
        };
        let api = self.api(&node.resource, &node.namespace);
        gone_is_fine(api.delete(&node.name, &parameters).await.map(drop))
    }

    fn api(&self, resource: &Resource, namespace: &str) -> Api<DynamicObject> {
        let client = self.context.client.clone();
        if resource.namespaced {
            Api::namespaced_with(client, namespace, &resource.api)
        } else {
            Api::all_with(client, &resource.api)
        }
    }
}

fn gone_is_fine(done: Result<(), kube::Error>) -> Result<(), kube::Error> {
    done.or_else(|error| if is_not_found(&error) { Ok(()) } else { Err(error) })
}
