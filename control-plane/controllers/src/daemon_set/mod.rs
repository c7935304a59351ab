//! DaemonSets: a pod on each node that is for it.
//!
//! Watches DaemonSets, pods and what of nodes decides where pods run. Pods are bound to their node by a required affinity on
//! its name, so that the scheduler still sees to resources and ports.
//!
//! Invariant: no pod is created or deleted while an own earlier write is not yet seen.

mod placement;
mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{Api, Resource};
use parking_lot::Mutex;
use skep_client::EventType;
use skep_client::slim::SlimPod;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::runtime::{
    Change, History, ObjectKey, Outcome, PodControl, PodOwner, Queue, REVISION_LABEL, Reconcile, ReconcileError,
    Revisions, controller_of, is_not_found, pod_from_template, post_params, run_workers, selector_matches,
};
use placement::Fit;
use reconcile::{Backoff, Decision, Observed};

pub(crate) struct Controller {
    context: Context,
    pods: PodControl,
    history: History,
    backoff: Mutex<HashMap<ObjectKey, Failures>>,
}

/// Where failed pods were deleted: the set's generation that they were of, and by node.
type Failures = (Option<i64>, HashMap<String, Backoff>);

/// Registers the handlers and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("daemonset");
    watch(&context, &queue);
    let pods = PodControl::new(context.client.clone(), context.informers.pods.clone(), context.events.clone());
    let history = History::new(context.client.clone(), context.informers.controller_revisions.clone());
    let controller = Arc::new(Controller { context, pods, history, backoff: Mutex::default() });
    run_workers(tasks, "daemonset", &controller, &queue, options.concurrency, shutdown);
}

fn watch(context: &Context, queue: &Queue<ObjectKey>) {
    let own = queue.clone();
    context.informers.daemon_sets.on_change(move |change| own.add(ObjectKey::of(&**change.object())));
    let (pods, sets) = (queue.clone(), context.informers.daemon_sets.clone());
    context.informers.pods.on_change(move |change| {
        let owner = |pod: &SlimPod| controller_of(&pod.metadata).filter(|owner| owner.kind == "DaemonSet").cloned();
        let pod = change.object();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for owner in change.previous().and_then(|pod| owner(pod)).iter().chain(&owner(pod)) {
            pods.add(ObjectKey::new(namespace, &owner.name));
        }
        if controller_of(&pod.metadata).is_none() && !matches!(change, Change::Deleted(_)) {
            let sets = sets.in_namespace(namespace);
            let adopts = |set: &&Arc<DaemonSet>| selector_matches(&set.spec.selector, pod.metadata.labels.as_ref());
            sets.iter().filter(adopts).for_each(|set| pods.add(ObjectKey::of(&**set)));
        }
    });
    let (queue, sets) = (queue.clone(), context.informers.daemon_sets.clone());
    context.informers.nodes.on_change(move |change| {
        let node = change.object();
        // Heartbeats change nothing here.
        if change
            .previous()
            .is_some_and(|old| old.metadata.labels == node.metadata.labels && taints(old) == taints(node))
        {
            return;
        }
        for set in sets.all() {
            let before = change.previous().map(|old| placement::fit(&set, old));
            let gone = matches!(change, Change::Deleted(_));
            let after = if gone { Fit::Leave } else { placement::fit(&set, node) };
            if before != Some(after) && (before.is_some() || gone || after != Fit::Leave) {
                queue.add(ObjectKey::of(&*set));
            }
        }
    });
}

fn taints(node: &Node) -> Option<&Vec<k8s_openapi::api::core::v1::Taint>> {
    node.spec.as_ref().and_then(|spec| spec.taints.as_ref())
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        let Some(set) = informers.daemon_sets.get(key) else {
            self.pods.forget(key);
            self.backoff.lock().remove(key);
            return Ok(Outcome::Done);
        };
        if set.spec.selector == LabelSelector::default() {
            let note = "This daemon set is selecting all pods. A non-empty selector is required.".to_owned();
            self.event(&set, EventType::Warning, "SelectingAll", note);
            return Ok(Outcome::Done);
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let owner = PodOwner::of(&*set);
        let old = set.status.clone().unwrap_or_default();
        let collisions = old.collision_count.unwrap_or(0);
        let selector = &set.spec.selector;
        let revisions = self.history.sync(&owner, selector, &set.spec.template, collisions, REVISION_LABEL).await?;
        let hash = hash(&revisions.latest).unwrap_or_default().to_owned();
        let settled = self.pods.is_settled(key);
        let nodes = informers.nodes.all();
        let mut candidates = informers.pods.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
        candidates.extend(informers.pods.orphans(&key.namespace));
        let pods = self.pods.claim(&owner, selector, &candidates, None).await?;
        let backoff = self.backoff(key, set.metadata.generation);
        let observed = Observed { set: &set, pods: &pods, nodes: &nodes, hash: &hash, backoff: &backoff };
        let now = Timestamp::now();
        let mut again = None;
        let acted = if settled {
            let decision = reconcile::reconcile(observed, now);
            again = decision.again;
            self.act(key, &set, &owner, &hash, decision).await
        } else {
            Ok(())
        };
        let mut status = reconcile::status(observed, settled, now);
        if revisions.collisions > 0 {
            status.collision_count = Some(revisions.collisions);
        }
        let next = reconcile::next_check(&set, &status);
        self.write_status(&set, status).await?;
        acted?;
        let limit = set.spec.revision_history_limit.unwrap_or(10);
        self.history.truncate(&owner, &revisions, &live(&revisions, &pods), limit).await?;
        Ok(Outcome::Done.or_after(again).or_after(next))
    }
}

/// The names of the revisions that pods are of, and of the latest.
fn live(revisions: &Revisions, pods: &[Arc<SlimPod>]) -> HashSet<String> {
    let of = |pod: &Arc<SlimPod>| pod.metadata.labels.as_ref()?.get(REVISION_LABEL).cloned();
    let hashes: HashSet<String> = pods.iter().filter_map(of).collect();
    let used = |revision: &&Arc<ControllerRevision>| hash(revision).is_some_and(|own| hashes.contains(own));
    let used = revisions.all.iter().filter(used).chain([&revisions.latest]);
    used.filter_map(|revision| revision.metadata.name.clone()).collect()
}

fn hash(revision: &ControllerRevision) -> Option<&str> {
    revision.metadata.labels.as_ref()?.get(REVISION_LABEL).map(String::as_str)
}

impl Controller {
    async fn act(
        &self,
        key: &ObjectKey,
        set: &DaemonSet,
        owner: &PodOwner,
        hash: &str,
        decision: Decision,
    ) -> Result<(), ReconcileError> {
        for (r#type, reason, note) in decision.notes {
            self.event(set, r#type, reason, note);
        }
        if let Some((_, backoff)) = self.backoff.lock().get_mut(key) {
            backoff.extend(decision.backoff);
        }
        let pods = decision.create.iter().map(|node| pod(set, owner, hash, node)).collect();
        let created = self.pods.create(owner, pods).await;
        let deleted = self.pods.delete(owner, &decision.delete).await;
        created.ok()?;
        deleted.ok()?;
        Ok(())
    }

    /// The nodes where failed pods were deleted, of this generation of the set.
    fn backoff(&self, key: &ObjectKey, generation: Option<i64>) -> HashMap<String, Backoff> {
        let mut all = self.backoff.lock();
        let (own, backoff) = all.entry(key.clone()).or_default();
        if *own != generation {
            *own = generation;
            backoff.clear();
        }
        backoff.clone()
    }

    async fn write_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), ReconcileError> {
        if set.status.as_ref().is_some_and(|old| reconcile::same_status(old, &status)) {
            return Ok(());
        }
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let api = Api::<DaemonSet>::namespaced(self.context.client.clone(), namespace);
        let mut changed = set.clone();
        changed.status = Some(status);
        match api.replace_status(set.metadata.name.as_deref().unwrap_or_default(), &post_params(), &changed).await {
            Err(error) if is_not_found(&error) => Ok(()),
            written => Ok(written.map(drop)?),
        }
    }

    fn event(&self, set: &DaemonSet, r#type: EventType, reason: &str, note: String) {
        self.context.events.record(set.object_ref(&()), r#type, reason, "Reconcile", note);
    }
}

/// The pod for a node.
fn pod(set: &DaemonSet, owner: &PodOwner, hash: &str, node: &str) -> Pod {
    let mut pod = pod_from_template(owner, &set.spec.template);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_LABEL.to_owned(), hash.to_owned());
    if let Some(generation) = reconcile::generation(set) {
        labels.insert(reconcile::GENERATION_LABEL.to_owned(), generation.to_owned());
    }
    if let Some(spec) = &mut pod.spec {
        spec.tolerations = Some(placement::tolerations(spec));
        placement::bind(spec, node);
    }
    pod
}
