//! StatefulSets: pods with names, volumes and an order of their own.
//!
//! Watches StatefulSets, pods, their revisions and volume claims. All decisions are in [`reconcile`]; this module claims pods
//! and revisions, reads the claims, and writes.
//!
//! Invariant: nothing is done while an own earlier write of a pod is not yet seen.

mod claims;
mod reconcile;
mod replicas;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec};
use kube::api::{ObjectMeta, Patch};
use kube::{Api, Resource};
use skep_client::EventType;
use skep_client::slim::SlimPod;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::runtime::{
    Change, History, ObjectKey, Outcome, PodControl, PodOwner, Queue, Reconcile, ReconcileError, Revision,
    already_exists, controller_of, delete_params, is_not_found, message, namespace_is_terminating, patch_params,
    post_params, run_workers, selector_matches, template_of,
};
use claims::{Holders, Owners};
use reconcile::{Action, Decision, Observed};

/// The label of a revision that its hash stands under.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";
/// How many pods of a set that is managed in parallel are written at the same time.
const PARALLEL_WRITES: usize = 32;
/// How long to wait for the watch to show a write; it comes by itself, this is for a watch that broke.
const UNSEEN: Duration = Duration::from_secs(5);

pub(crate) struct Controller {
    context: Context,
    pods: PodControl,
    history: History,
}

/// The templates of the two revisions of an update.
struct Templates {
    current: PodTemplateSpec,
    current_name: String,
    update_name: String,
}

/// Registers the handlers and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("statefulset");
    watch(&context, &queue);
    let pods = PodControl::new(context.client.clone(), context.informers.pods.clone(), context.events.clone());
    let history = History::new(context.client.clone(), context.informers.controller_revisions.clone());
    let controller = Arc::new(Controller { context, pods, history });
    run_workers(tasks, "statefulset", &controller, &queue, options.concurrency, shutdown);
}

fn watch(context: &Context, queue: &Queue<ObjectKey>) {
    let sets = queue.clone();
    context.informers.stateful_sets.on_change(move |change| sets.add(ObjectKey::of(&**change.object())));
    let (queue, sets) = (queue.clone(), context.informers.stateful_sets.clone());
    context.informers.pods.on_change(move |change| {
        let owner = |pod: &SlimPod| controller_of(&pod.metadata).filter(|owner| owner.kind == "StatefulSet").cloned();
        let pod = change.object();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for owner in change.previous().and_then(|pod| owner(pod)).iter().chain(&owner(pod)) {
            queue.add(ObjectKey::new(namespace, &owner.name));
        }
        if controller_of(&pod.metadata).is_none() && !matches!(change, Change::Deleted(_)) {
            let sets = sets.in_namespace(namespace);
            let adopts = |set: &&Arc<StatefulSet>| selector_matches(&set.spec.selector, pod.metadata.labels.as_ref());
            sets.iter().filter(adopts).for_each(|set| queue.add(ObjectKey::of(&**set)));
        }
    });
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        let Some(set) = informers.stateful_sets.get(key) else {
            self.pods.forget(key);
            return Ok(Outcome::Done);
        };
        if !self.pods.is_settled(key) {
            return Ok(Outcome::After(UNSEEN));
        }
        let owner = PodOwner::of(&*set);
        let mut candidates = informers.pods.owned_by(set.metadata.uid.as_deref().unwrap_or_default());
        let named = |pod: &Arc<SlimPod>| replicas::ordinal(&set, pod).is_some();
        candidates.extend(informers.pods.orphans(&key.namespace).into_iter().filter(named));
        let pods = self.pods.claim(&owner, &set.spec.selector, &candidates, None).await?;
        let old = set.status.clone().unwrap_or_default();
        let collisions = old.collision_count.unwrap_or(0);
        let revisions =
            self.history.sync(&owner, &set.spec.selector, &set.spec.template, collisions, HASH_LABEL).await?;
        let update = &revisions.latest;
        let current = revisions.all.iter().find(|own| own.metadata.name == old.current_revision).unwrap_or(update);
        let templates = Templates {
            current: template_of(current).unwrap_or_else(|| set.spec.template.clone()),
            current_name: current.metadata.name.clone().unwrap_or_default(),
            update_name: update.metadata.name.clone().unwrap_or_default(),
        };
        let claims = self.claims(&set, &pods).await?;
        let observed = Observed {
            set: &set,
            pods: &pods,
            claims: &claims,
            current: &templates.current_name,
            update: &templates.update_name,
        };
        let now = Timestamp::now();
        let Decision { actions, mut status } = reconcile::reconcile(observed, now);
        status.collision_count = Some(revisions.collisions);
        let acted = self.act(&set, &owner, &templates, actions).await;
        self.write_status(&set, status).await?;
        let mut live: HashSet<String> = pods.iter().map(|pod| replicas::revision(pod).to_owned()).collect();
        live.extend([templates.current_name, templates.update_name]);
        let limit = set.spec.revision_history_limit.unwrap_or(10);
        self.history.truncate(&owner, &revisions, &live, limit).await?;
        acted.map(|()| Outcome::Done.or_after(reconcile::next_check(&set, &pods, now)))
    }
}

impl Controller {
    /// The set's volume claims that are there.
    async fn claims(
        &self,
        set: &StatefulSet,
        pods: &[Arc<SlimPod>],
    ) -> Result<HashMap<String, PersistentVolumeClaim>, ReconcileError> {
        let mut found = HashMap::new();
        if set.spec.volume_claim_templates.as_ref().is_none_or(Vec::is_empty) {
            return Ok(found);
        }
        let own = pods.iter().filter_map(|pod| replicas::ordinal(set, pod));
        let ordinals: HashSet<i32> = replicas::Ordinals::of(set).iter().chain(own).collect();
        let api = self.claim_api(set);
        for claim in ordinals.into_iter().flat_map(|ordinal| replicas::claims(set, ordinal)) {
            let name = claim.metadata.name.unwrap_or_default();
            if let Some(claim) = api.get_opt(&name).await? {
                found.insert(name, claim);
            }
        }
        Ok(found)
    }

    async fn act(
        &self,
        set: &StatefulSet,
        owner: &PodOwner,
        templates: &Templates,
        actions: Vec<Action>,
    ) -> Result<(), ReconcileError> {
        let parallel = set.spec.pod_management_policy.as_deref() == Some("Parallel");
        let width = if parallel { PARALLEL_WRITES } else { 1 };
        let requests = actions.into_iter().map(|action| self.act_on(set, owner, templates, action));
        let mut answers = futures::stream::iter(requests).buffered(width);
        while let Some(answer) = answers.next().await {
            answer?;
        }
        Ok(())
    }

    async fn act_on(
        &self,
        set: &StatefulSet,
        owner: &PodOwner,
        templates: &Templates,
        action: Action,
    ) -> Result<(), ReconcileError> {
        let api = Api::<Pod>::namespaced(self.context.client.clone(), namespace(set));
        match action {
            Action::Create { ordinal, from_current } => {
                let (template, revision) = if from_current {
                    (&templates.current, &templates.current_name)
                } else {
                    (&set.spec.template, &templates.update_name)
                };
                self.create(set, owner, &api, &replicas::pod(set, template, revision, ordinal), ordinal).await
            }
            Action::Delete(pod) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let deleted = match api.delete(name, &delete_params(&pod, None)).await {
                    Err(error) if is_not_found(&error) => Ok(()),
                    Err(error) => Err(error),
                    Ok(_) => {
                        self.pods.note_deleted(owner, &pod, Instant::now());
                        Ok(())
                    }
                };
                self.note(set, "Delete", name, deleted.as_ref().err());
                Ok(deleted?)
            }
            Action::EnsureClaims(pod) => {
                let ordinal = replicas::ordinal(set, &pod).unwrap_or_default();
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                self.create_claims(set, name, ordinal).await?;
                self.mend_claims(set, &pod.metadata, ordinal).await
            }
            Action::Mend(pod) => {
                let ordinal = replicas::ordinal(set, &pod).unwrap_or_default();
                self.mend_claims(set, &pod.metadata, ordinal).await?;
                if replicas::identity_matches(&pod) {
                    return Ok(());
                }
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                let labels: HashMap<_, _> = replicas::identity(set, ordinal).into_iter().collect();
                let patch = serde_json::json!({"metadata": {"uid": pod.metadata.uid, "labels": labels}});
                let patched = api.patch(name, &patch_params(), &Patch::Merge(&patch)).await;
                self.note(set, "Update", name, patched.as_ref().err());
                Ok(patched.map(drop)?)
            }
        }
    }

    async fn create(
        &self,
        set: &StatefulSet,
        owner: &PodOwner,
        api: &Api<Pod>,
        pod: &Pod,
        ordinal: i32,
    ) -> Result<(), ReconcileError> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        self.create_claims(set, name, ordinal).await?;
        let (_, lists_begun, _) = self.context.informers.pods.progress();
        match api.create(&post_params(), pod).await {
            Ok(created) => {
                self.pods.note_created(owner, Revision::of(&created), lists_begun, Instant::now());
                self.mend_claims(set, &created.metadata, ordinal).await?;
                self.note(set, "Create", name, None);
                Ok(())
            }
            Err(error) => {
                if !already_exists(&error) && !namespace_is_terminating(&error) {
                    self.note(set, "Create", name, Some(&error));
                }
                Err(error.into())
            }
        }
    }

    async fn create_claims(&self, set: &StatefulSet, pod: &str, ordinal: i32) -> Result<(), ReconcileError> {
        let api = self.claim_api(set);
        for claim in replicas::claims(set, ordinal) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            if let Some(found) = api.get_opt(name).await? {
                if found.metadata.deletion_timestamp.is_some() {
                    return Err(ReconcileError::Invalid(format!("pvc {name} is being deleted")));
                }
                continue;
            }
            let set_name = set.metadata.name.as_deref().unwrap_or_default();
            match api.create(&post_params(), &claim).await {
                Ok(_) => {
                    let note = format!("Create Claim {name} Pod {pod} in StatefulSet {set_name} success");
                    self.event(set, EventType::Normal, "SuccessfulCreate", note);
                }
                Err(error) if already_exists(&error) => {}
                Err(error) => {
                    let cause = message(&error);
                    let note =
                        format!("Create Claim {name} for Pod {pod} in StatefulSet {set_name} failed error: {cause}");
                    self.event(set, EventType::Warning, "FailedCreate", note);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Sets the owners of a pod's claims by the retention policy.
    async fn mend_claims(&self, set: &StatefulSet, pod: &ObjectMeta, ordinal: i32) -> Result<(), ReconcileError> {
        let api = self.claim_api(set);
        let holders = Holders { set, pod };
        for claim in replicas::claims(set, ordinal) {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let Some(found) = api.get_opt(name).await? else { continue };
            if holders.has_conflict(&found.metadata) {
                let note = format!(
                    "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging controller, the retention policy is ignored for this claim"
                );
                self.event(set, EventType::Warning, "ConflictingController", note);
            }
            if let Owners::Set(owners) = holders.owners(&found.metadata) {
                let patch = serde_json::json!({"metadata": {
                    "uid": found.metadata.uid, "resourceVersion": found.metadata.resource_version,
                    "ownerReferences": owners,
                }});
                api.patch(name, &patch_params(), &Patch::Merge(&patch)).await?;
            }
        }
        Ok(())
    }

    async fn write_status(&self, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), ReconcileError> {
        if set.status.as_ref().is_some_and(|old| reconcile::same_status(old, &status)) {
            return Ok(());
        }
        let api = Api::<StatefulSet>::namespaced(self.context.client.clone(), namespace(set));
        let mut changed = set.clone();
        changed.status = Some(status);
        match api.replace_status(set.metadata.name.as_deref().unwrap_or_default(), &post_params(), &changed).await {
            Err(error) if is_not_found(&error) => Ok(()),
            written => Ok(written.map(drop)?),
        }
    }

    fn claim_api(&self, set: &StatefulSet) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.context.client.clone(), namespace(set))
    }

    fn note(&self, set: &StatefulSet, verb: &str, pod: &str, failure: Option<&kube::Error>) {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        match failure {
            None => {
                let note = format!("{verb} Pod {pod} in StatefulSet {name} successful");
                self.event(set, EventType::Normal, &format!("Successful{verb}"), note);
            }
            Some(error) => {
                let note = format!("{verb} Pod {pod} in StatefulSet {name} failed error: {}", message(error));
                self.event(set, EventType::Warning, &format!("Failed{verb}"), note);
            }
        }
    }

    fn event(&self, set: &StatefulSet, r#type: EventType, reason: &str, note: String) {
        self.context.events.record(set.object_ref(&()), r#type, reason, "Reconcile", note);
    }
}

fn namespace(set: &StatefulSet) -> &str {
    set.metadata.namespace.as_deref().unwrap_or_default()
}
