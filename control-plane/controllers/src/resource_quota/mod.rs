//! ResourceQuotas: what they limit becomes their status, and what the objects of their namespaces use is counted
//! (`controller/resourcequota`).
//!
//! The API server charges each write to the status as it is; what is freed (objects deleted, pods that end, services of
//! another type) is found here, by counting anew. All quotas are counted anew every five minutes.
//!
//! Invariant: a status is written only onto the quota that was read before anything was listed, so that no charge made
//! meanwhile is lost: it is a conflict, and all is counted again.
//!
//! Data flow: watches of quotas, pods and services, [`crate::runtime::Departures`] → queue → lists of what the quota names →
//! [`skep_api::quota::total`] → status.

mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ResourceQuota, Service};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use parking_lot::RwLock;
use serde_json::Value;
use skep_api::GroupResource;
use skep_api::quota::{Usage, counted_resource, total};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::garbage_collector::discover;
use crate::runtime::{
    Change, Informer, ObjectKey, Outcome, Queue, Reconcile, ReconcileError, is_not_found, post_params, run_workers,
};

/// Upstream's `--resource-quota-sync-period`.
const RESYNC: Duration = Duration::from_secs(300);

struct Controller {
    context: Context,
    /// Kinds that can be counted, as they were last discovered.
    kinds: RwLock<HashMap<GroupResource, ApiResource>>,
}

/// Registers the handlers and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("resourcequota_primary");
    let informers = &context.informers;
    let quotas = informers.resource_quotas.clone();
    let own = queue.clone();
    quotas.on_change(move |change| {
        // Statuses are this controller's and the API server's, and right as they are.
        let is_same = |old| reconcile::same(&reconcile::hard(old), &reconcile::hard(change.object()));
        if !matches!(change, Change::Deleted(_)) && !change.previous().is_some_and(|old| is_same(old)) {
            own.add(ObjectKey::of(&**change.object()));
        }
    });
    let (freed, by_end) = (Freed { quotas: quotas.clone(), queue: queue.clone() }, GroupResource::new("", "pods"));
    informers.pods.on_change(move |change| {
        if change.previous().is_some_and(|old| !old.is_terminal()) && change.object().is_terminal() {
            freed.enqueue(&by_end, change.object().metadata.namespace.as_deref());
        }
    });
    let (freed, by_type) = (Freed { quotas: quotas.clone(), queue: queue.clone() }, GroupResource::new("", "services"));
    informers.services.on_change(move |change| {
        if change.previous().is_some_and(|old| takes(old) != takes(change.object())) {
            freed.enqueue(&by_type, change.object().metadata.namespace.as_deref());
        }
    });
    let freed = Freed { quotas: quotas.clone(), queue: queue.clone() };
    informers.departures.on_gone(move |kind, namespace| {
        let resource = GroupResource { group: kind.group.clone().into(), resource: kind.plural.clone().into() };
        freed.enqueue(&resource, namespace);
    });
    tasks.spawn(resync(quotas, queue.clone(), shutdown.clone()));
    let controller = Arc::new(Controller { context, kinds: RwLock::default() });
    run_workers(tasks, "resource-quota", &controller, &queue, options.concurrency, shutdown);
}

/// Finds the quotas that something of a kind was freed of.
struct Freed {
    quotas: Informer<ResourceQuota>,
    queue: Queue<ObjectKey>,
}

impl Freed {
    /// Without a namespace, all namespaces are meant.
    fn enqueue(&self, resource: &GroupResource, namespace: Option<&str>) {
        let quotas = namespace.map_or_else(|| self.quotas.all(), |namespace| self.quotas.in_namespace(namespace));
        for quota in quotas.iter().filter(|quota| counted(quota).contains(resource)) {
            self.queue.add(ObjectKey::of(&**quota));
        }
    }
}

/// The kinds that a quota counts.
fn counted(quota: &ResourceQuota) -> BTreeSet<GroupResource> {
    reconcile::hard(quota).keys().filter_map(|name| counted_resource(name)).collect()
}

/// What a service's use follows from.
fn takes(service: &Service) -> Option<(Option<&str>, Option<bool>, usize)> {
    let spec = service.spec.as_ref()?;
    let ports = spec.ports.as_ref().map_or(0, Vec::len);
    Some((spec.type_.as_deref(), spec.allocate_load_balancer_node_ports, ports))
}

async fn resync(quotas: Informer<ResourceQuota>, queue: Queue<ObjectKey>, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RESYNC) => {}
        }
        for quota in quotas.all() {
            queue.add(ObjectKey::of(&*quota));
        }
    }
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(quota) = self.context.informers.resource_quotas.get(key) else { return Ok(Outcome::Done) };
        let tree = serde_json::to_value(&*quota).map_err(|error| ReconcileError::Invalid(error.to_string()))?;
        let (mut usage, mut failure) = (Usage::new(), None);
        for resource in counted(&quota) {
            match self.objects(&key.namespace, &resource).await {
                Ok(Some(objects)) => usage.extend(total(&tree, &resource, &objects)),
                // The garbage collector lists a kind as soon as it is served, which brings the quota back.
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        if let Some(status) = reconcile::status(&quota, &usage) {
            let mut changed = (*quota).clone();
            changed.status = Some(status);
            let api = Api::<ResourceQuota>::namespaced(self.context.client.clone(), &key.namespace);
            match api.replace_status(&key.name, &post_params(), &changed).await {
                Err(error) if is_not_found(&error) => {}
                written => drop(written?),
            }
        }
        failure.map_or(Ok(Outcome::Done), |error| Err(error.into()))
    }
}

impl Controller {
    /// All objects of a kind in a namespace, without content if they are only counted; `None` if the kind isn't served.
    async fn objects(&self, namespace: &str, resource: &GroupResource) -> Result<Option<Vec<Value>>, kube::Error> {
        let Some(kind) = self.kind(resource).await? else { return Ok(None) };
        let api = Api::<DynamicObject>::namespaced_with(self.context.client.clone(), namespace, &kind);
        let by_content = matches!(&*resource.resource, "pods" | "services" | "persistentvolumeclaims");
        if resource.group.is_empty() && by_content {
            let list = api.list(&ListParams::default()).await?;
            let trees = list.items.iter().map(serde_json::to_value).collect::<Result<_, _>>();
            return trees.map(Some).map_err(kube::Error::SerdeError);
        }
        match api.list_metadata(&ListParams::default()).await {
            Ok(list) => Ok(Some(vec![Value::Null; list.items.len()])),
            Err(error) if is_not_found(&error) => {
                self.kinds.write().remove(resource);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn kind(&self, resource: &GroupResource) -> Result<Option<ApiResource>, kube::Error> {
        if let Some(kind) = self.kinds.read().get(resource) {
            return Ok(Some(kind.clone()));
        }
        let found = discover(&self.context.client).await?;
        let kinds = found.deletable.into_iter().filter(|kind| kind.namespaced).map(|kind| {
            let resource =
                GroupResource { group: kind.api.group.clone().into(), resource: kind.api.plural.clone().into() };
            (resource, kind.api)
        });
        let kinds: HashMap<_, _> = kinds.collect();
        let kind = kinds.get(resource).cloned();
        *self.kinds.write() = kinds;
        Ok(kind)
    }
}
