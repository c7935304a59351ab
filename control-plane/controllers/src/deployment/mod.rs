//! Deployments: revisions of a pod template, rolled out by scaling ReplicaSets.
//!
//! Watches Deployments, ReplicaSets and (for `Recreate`) the end of pods. All decisions are in [`reconcile`]; this module
//! claims ReplicaSets, reads and writes. `kubectl rollout undo` needs nothing here: it sets the old template, whose
//! ReplicaSet is found again and gets the next revision.
//!
//! Invariant: every write carries the resource version that the decision was made on, and the new ReplicaSet's name follows
//! from its template, so a stale view can only fail, never make a double.

mod reconcile;
pub(crate) mod replicas;
mod status;
pub(crate) mod template;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{DeleteParams, Patch, Preconditions};
use kube::{Api, Resource};
use skep_client::EventType;
use skep_client::slim::SlimPod;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::runtime::{
    Change, ObjectKey, Outcome, Queue, Reconcile, ReconcileError, already_exists, claim, controller_of,
    controller_reference, is_controlled_by, is_not_found, message, namespace_is_terminating, owner_patch, patch_params,
    post_params, run_workers, selector_matches,
};
use reconcile::{Action, Observed, REVISION};

pub(crate) struct Controller {
    context: Context,
}

/// Registers the handlers and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("deployment");
    watch(&context, &queue);
    let controller = Arc::new(Controller { context });
    run_workers(tasks, "deployment", &controller, &queue, options.concurrency, shutdown);
}

fn watch(context: &Context, queue: &Queue<ObjectKey>) {
    let informers = &context.informers;
    let own = queue.clone();
    informers.deployments.on_change(move |change| own.add(ObjectKey::of(&**change.object())));
    let (sets, deployments) = (queue.clone(), informers.deployments.clone());
    informers.replica_sets.on_change(move |change| {
        let set = change.object();
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let owner = |set: &ReplicaSet| controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment").cloned();
        let (old, new) = (change.previous().and_then(|set| owner(set)), owner(set));
        for owner in old.iter().chain(&new) {
            sets.add(ObjectKey::new(namespace, &owner.name));
        }
        if controller_of(&set.metadata).is_none() && !matches!(change, Change::Deleted(_)) {
            for deployment in deployments.in_namespace(namespace) {
                let selector = &deployment.spec.selector;
                let matches = |selector: &LabelSelector| {
                    *selector != LabelSelector::default() && selector_matches(selector, set.metadata.labels.as_ref())
                };
                if matches(selector) {
                    sets.add(ObjectKey::of(&*deployment));
                }
            }
        }
    });
    // A recreation goes on when the last old pod is gone.
    let (pods, deployments, sets) = (queue.clone(), informers.deployments.clone(), informers.replica_sets.clone());
    informers.pods.on_change(move |change| {
        let pod = change.object();
        if !matches!(change, Change::Deleted(_)) && !pod.is_terminal() {
            return;
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let set = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet");
        let set = set.and_then(|owner| sets.get(&ObjectKey::new(namespace, &owner.name)));
        let deployment =
            set.and_then(|set| controller_of(&set.metadata).map(|owner| ObjectKey::new(namespace, &owner.name)));
        if let Some(key) = deployment
            && deployments.get(&key).is_some_and(|deployment| replicas::is_recreate(&deployment))
        {
            pods.add(key);
        }
    });
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        let Some(deployment) = informers.deployments.get(key) else { return Ok(Outcome::Done) };
        let sets = self.claim(&deployment).await?;
        let is_running = |pod: &Arc<SlimPod>| !pod.is_terminal();
        let has_pods = |uid: &&String| informers.pods.owned_by(uid).iter().any(is_running);
        let uids = sets.iter().filter_map(|set| set.metadata.uid.as_ref());
        let sets_with_pods: Vec<String> =
            if replicas::is_recreate(&deployment) { uids.filter(has_pods).cloned().collect() } else { Vec::new() };
        let observed = Observed { deployment: &deployment, sets: &sets, sets_with_pods: &sets_with_pods };
        let mut outcome = Outcome::Done;
        for action in reconcile::reconcile(observed, Timestamp::now()) {
            outcome = outcome.or_after(self.act(&deployment, action).await?);
        }
        Ok(outcome)
    }
}

impl Controller {
    async fn act(
        &self,
        deployment: &Deployment,
        action: Action,
    ) -> Result<Option<std::time::Duration>, ReconcileError> {
        let sets = Api::<ReplicaSet>::namespaced(self.context.client.clone(), namespace(deployment));
        match action {
            Action::Create(set) => self.create(deployment, &sets, &set).await?,
            Action::Update { set, scaled } => {
                let name = set.metadata.name.clone().unwrap_or_default();
                sets.replace(&name, &post_params(), &set).await?;
                if let Some((from, to)) = scaled {
                    self.scaled(deployment, &name, from, to);
                }
            }
            Action::Delete(set) => {
                let preconditions = Preconditions { uid: set.metadata.uid.clone(), resource_version: None };
                let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                match sets.delete(set.metadata.name.as_deref().unwrap_or_default(), &parameters).await {
                    Err(error) if is_not_found(&error) => {}
                    deleted => drop(deleted?),
                }
            }
            Action::UpdateStatus { status, revision } => self.write_status(deployment, *status, revision).await?,
            Action::RefuseSelector => self.event(
                deployment,
                EventType::Warning,
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.".to_owned(),
            ),
            Action::CheckAgain(delay) => return Ok(Some(delay)),
        }
        Ok(None)
    }

    /// Creates the new ReplicaSet. One of that name with another template is a collision of hashes: the count in the status
    /// goes up, and the next try has another name.
    async fn create(
        &self,
        deployment: &Deployment,
        sets: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<(), ReconcileError> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        let mut status = deployment.status.clone().unwrap_or_default();
        match sets.create(&post_params(), set).await {
            Ok(_) => {
                let size = replicas::size(set);
                if size > 0 {
                    self.scaled(deployment, name, 0, size);
                }
                Ok(())
            }
            Err(error) if already_exists(&error) => {
                let found = sets.get(name).await?;
                let own = is_controlled_by(&found.metadata, deployment.metadata.uid.as_deref().unwrap_or_default());
                let own_template = found.spec.template.as_ref();
                let same =
                    own_template.is_some_and(|own| template::equal_ignoring_hash(own, &deployment.spec.template));
                if !(own && same) {
                    status.collision_count = Some(status.collision_count.unwrap_or(0).saturating_add(1));
                    self.write_status(deployment, status, None).await?;
                }
                Err(error.into())
            }
            Err(error) if namespace_is_terminating(&error) => Err(error.into()),
            Err(error) => {
                let text = format!("Failed to create new replica set \"{name}\": {}", message(&error));
                if status::has_progress_deadline(deployment) {
                    let reason = "ReplicaSetCreateError";
                    let now = Timestamp::now();
                    status::set(
                        &mut status,
                        status::condition(status::PROGRESSING, "False", reason, text.clone(), now),
                    );
                    // The failure to create is what matters; that of the status shows in the log alone.
                    if let Err(error) = self.write_status(deployment, status, None).await {
                        tracing::debug!(%error, "can't write the status");
                    }
                }
                self.event(deployment, EventType::Warning, "ReplicaSetCreateError", text);
                Err(error.into())
            }
        }
    }

    /// Writes the status and, as upstream does with the same request, the revision annotation. A server that takes only the
    /// status there gets the annotation by a patch.
    async fn write_status(
        &self,
        deployment: &Deployment,
        status: DeploymentStatus,
        revision: Option<String>,
    ) -> Result<(), ReconcileError> {
        let api = Api::<Deployment>::namespaced(self.context.client.clone(), namespace(deployment));
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let mut changed = deployment.clone();
        changed.status = Some(status);
        if let Some(revision) = &revision {
            changed.metadata.annotations.get_or_insert_default().insert(REVISION.to_owned(), revision.clone());
        }
        let written = match api.replace_status(name, &post_params(), &changed).await {
            Err(error) if is_not_found(&error) => return Ok(()),
            written => written?,
        };
        let noted = written.metadata.annotations.as_ref().and_then(|annotations| annotations.get(REVISION));
        if revision.is_some() && noted != revision.as_ref() {
            let patch = serde_json::json!({"metadata": {"annotations": {REVISION: revision}}});
            api.patch(name, &patch_params(), &Patch::Merge(&patch)).await?;
        }
        Ok(())
    }

    /// The ReplicaSets that are the Deployment's after adopting and releasing.
    async fn claim(&self, deployment: &Deployment) -> Result<Vec<Arc<ReplicaSet>>, ReconcileError> {
        let spec = &deployment.spec;
        let informers = &self.context.informers;
        let namespace = namespace(deployment);
        let mut candidates = informers.replica_sets.owned_by(deployment.metadata.uid.as_deref().unwrap_or_default());
        if spec.selector == LabelSelector::default() {
            return Ok(candidates);
        }
        candidates.extend(informers.replica_sets.orphans(namespace));
        let claims = claim(&deployment.metadata, &spec.selector, &candidates);
        let mut kept = claims.kept;
        if claims.adopt.is_empty() && claims.release.is_empty() {
            return Ok(kept);
        }
        if !claims.adopt.is_empty() {
            let deployments = Api::<Deployment>::namespaced(self.context.client.clone(), namespace);
            let fresh = deployments.get(deployment.metadata.name.as_deref().unwrap_or_default()).await?;
            if fresh.metadata.uid != deployment.metadata.uid || fresh.metadata.deletion_timestamp.is_some() {
                return Err(ReconcileError::Invalid("it is being deleted and can't adopt".to_owned()));
            }
        }
        let api = Api::<ReplicaSet>::namespaced(self.context.client.clone(), namespace);
        let owner = controller_reference(deployment);
        let adopt = claims.adopt.into_iter().map(|set| (owner_patch(&set.metadata, Some(&owner), None), set, true));
        let uid = deployment.metadata.uid.as_deref();
        let release = claims.release.into_iter().map(|set| (owner_patch(&set.metadata, None, uid), set, false));
        for (patch, set, adopted) in adopt.chain(release) {
            let name = set.metadata.name.as_deref().unwrap_or_default();
            match api.patch(name, &patch_params(), &Patch::Merge(&patch)).await {
                Ok(set) if adopted => kept.push(Arc::new(set)),
                Ok(_) => {}
                Err(error) if is_not_found(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(kept)
    }

    fn scaled(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = if from < to { "up" } else { "down" };
        let note = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.event(deployment, EventType::Normal, "ScalingReplicaSet", note);
    }

    fn event(&self, deployment: &Deployment, r#type: EventType, reason: &str, note: String) {
        self.context.events.record(deployment.object_ref(&()), r#type, reason, "Scaling", note);
    }
}

fn namespace(deployment: &Deployment) -> &str {
    deployment.metadata.namespace.as_deref().unwrap_or_default()
}
