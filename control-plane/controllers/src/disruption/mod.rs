//! PodDisruptionBudgets: how many pods may be evicted now. The API server's eviction counts the status down; it is counted anew
//! here.
//!
//! Watches budgets and pods; the owners of pods, whose scale says how many there should be, are read when needed.

mod reconcile;
mod stale;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::DynamicObject;
use kube::core::GroupVersionKind;
use kube::{Api, Resource};
use skep_client::EventType;
use skep_client::slim::SlimPod;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::runtime::{
    ObjectKey, Outcome, Reconcile, ReconcileError, controller_of, is_conflict, is_not_found, message, post_params,
    run_workers, selector_matches,
};
use reconcile::Expectation;

struct Controller {
    context: Context,
}

/// Registers the handlers and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("disruption");
    let own = queue.clone();
    context.informers.disruption_budgets.on_change(move |change| own.add(ObjectKey::of(&**change.object())));
    let (pods, budgets) = (queue.clone(), context.informers.disruption_budgets.clone());
    context.informers.pods.on_change(move |change| {
        let pod = change.object();
        for budget in budgets.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
            if selects(&budget, pod) || change.previous().is_some_and(|old| selects(&budget, old)) {
                pods.add(ObjectKey::of(&*budget));
            }
        }
    });
    stale::start(&context, tasks, shutdown);
    let controller = Arc::new(Controller { context });
    run_workers(tasks, "disruption", &controller, &queue, options.concurrency, shutdown);
}

/// Whether a budget is for the pod: an empty selector is for all, none is for none.
fn selects(budget: &PodDisruptionBudget, pod: &SlimPod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selector_matches(selector, pod.metadata.labels.as_ref()))
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        let Some(budget) = informers.disruption_budgets.get(key) else { return Ok(Outcome::Done) };
        let pods = informers.pods.in_namespace(&key.namespace);
        let pods: Vec<_> = pods.into_iter().filter(|pod| selects(&budget, pod)).collect();
        if pods.is_empty() {
            self.event(&budget, EventType::Normal, "NoPods", "No matching pods found".to_owned());
        }
        let now = Timestamp::now();
        let counts = match reconcile::expectation(&budget) {
            Expectation::Count(desired) => Ok((i32::try_from(pods.len()).unwrap_or(i32::MAX), desired)),
            Expectation::Nothing => Ok((0, 0)),
            Expectation::Scale => {
                let scale = self.scale(&budget, &pods).await;
                scale.map(|scale| (scale, reconcile::desired(&budget, scale)))
            }
        };
        match counts {
            Ok((expected, desired)) => {
                let (status, again) = reconcile::status(&budget, &pods, expected, desired, now);
                self.write(&budget, status).await?;
                Ok(Outcome::Done.or_after(again))
            }
            Err(ReconcileError::Api(error)) if is_conflict(&error) => Err(error.into()),
            Err(error) => {
                let cause = match &error {
                    ReconcileError::Api(error) => message(error),
                    ReconcileError::Invalid(cause) => cause.clone(),
                };
                let note = format!("Failed to calculate the number of expected pods: {cause}");
                self.event(&budget, EventType::Warning, "CalculateExpectedPodCountFailed", note);
                self.write(&budget, reconcile::failed(&budget, &cause, now)).await?;
                Ok(Outcome::Done)
            }
        }
    }
}

impl Controller {
    /// How many pods the owners of these should have together (`getExpectedScale`).
    async fn scale(&self, budget: &PodDisruptionBudget, pods: &[Arc<SlimPod>]) -> Result<i32, ReconcileError> {
        let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
        let mut owners: HashMap<String, (String, i32)> = HashMap::new();
        let mut unmanaged = false;
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else {
                unmanaged = true;
                continue;
            };
            if owners.contains_key(&owner.uid) {
                continue;
            }
            let Some(found) = self.owner_scale(namespace, owner).await? else {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                return Err(ReconcileError::Invalid(format!("found no controllers for pod {name:?}")));
            };
            owners.insert(owner.uid.clone(), found);
        }
        if unmanaged {
            let note = "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.";
            self.event(budget, EventType::Warning, "UnmanagedPods", note.to_owned());
        }
        // ReplicaSets of one Deployment have one scale together.
        let scales: HashMap<String, i32> = owners.into_values().collect();
        Ok(scales.into_values().fold(0, i32::saturating_add))
    }

    /// The uid and the scale of the object that decides how many pods there are: the owner, or a ReplicaSet's Deployment.
    async fn owner_scale(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Option<(String, i32)>, ReconcileError> {
        let informers = &self.context.informers;
        let key = ObjectKey::new(namespace, &owner.name);
        let group = owner.api_version.split('/').next().unwrap_or_default();
        let own = |uid: Option<&String>| uid == Some(&owner.uid);
        match (group, owner.kind.as_str()) {
            ("apps", "ReplicaSet") => {
                let set = informers.replica_sets.get(&key).filter(|set| own(set.metadata.uid.as_ref()));
                let Some(set) = set else { return Ok(None) };
                let deployment = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
                let deployment = deployment.and_then(|owner| {
                    let found = informers.deployments.get(&ObjectKey::new(namespace, &owner.name))?;
                    Some((owner.uid.clone(), found.spec.replicas.unwrap_or(1)))
                });
                Ok(Some(deployment.unwrap_or_else(|| (owner.uid.clone(), set.spec.replicas.unwrap_or(1)))))
            }
            ("apps", "StatefulSet") => {
                let set = informers.stateful_sets.get(&key).filter(|set| own(set.metadata.uid.as_ref()));
                Ok(set.map(|set| (owner.uid.clone(), set.spec.replicas.unwrap_or(1))))
            }
            ("v1", "ReplicationController") => {
                let all = &informers.replication_controllers;
                let found = all.get(&key).filter(|found| own(found.metadata.uid.as_ref()));
                let replicas = found.map(|found| found.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1));
                Ok(replicas.map(|replicas| (owner.uid.clone(), replicas)))
            }
            _ => self.scale_of(namespace, owner).await,
        }
    }

    /// The scale of an owner of any other kind, by its subresource.
    async fn scale_of(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<(String, i32)>, ReconcileError> {
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let kind = GroupVersionKind::gvk(group, version, &owner.kind);
        let Ok((resource, _)) = kube::discovery::pinned_kind(&self.context.client, &kind).await else {
            return Ok(None);
        };
        let api = Api::<DynamicObject>::namespaced_with(self.context.client.clone(), namespace, &resource);
        match api.get_scale(&owner.name).await {
            Err(error) if is_not_found(&error) => Ok(None),
            scale => {
                let scale = scale?;
                let same = scale.metadata.uid.as_ref() == Some(&owner.uid);
                let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
                Ok(same.then(|| (owner.uid.clone(), replicas)))
            }
        }
    }

    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), ReconcileError> {
        if budget.status.as_ref().is_some_and(|old| reconcile::same_status(old, &status)) {
            return Ok(());
        }
        let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
        let api = Api::<PodDisruptionBudget>::namespaced(self.context.client.clone(), namespace);
        let mut changed = budget.clone();
        changed.status = Some(status);
        match api.replace_status(budget.metadata.name.as_deref().unwrap_or_default(), &post_params(), &changed).await {
            Err(error) if is_not_found(&error) => Ok(()),
            written => Ok(written.map(drop)?),
        }
    }

    fn event(&self, budget: &PodDisruptionBudget, r#type: EventType, reason: &str, note: String) {
        self.context.events.record(budget.object_ref(&()), r#type, reason, "Reconcile", note);
    }
}
