//! Namespaces that are being deleted: their content goes, pods first, then the namespace itself.
//!
//! Watches namespaces. Each pass reads discovery, deletes the collections of every deletable namespaced kind, counts what is
//! left, says so in the conditions, and takes the finalizer `kubernetes` away when nothing is left (KEP-5080 for the order).
//!
//! Invariant: the finalizer stays while discovery, a deletion or a count failed: an unknown rest counts as a rest.

mod reconcile;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, PropagationPolicy};
use kube::core::discovery::v2::APIGroupDiscoveryList;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::runtime::{ObjectKey, Outcome, Reconcile, ReconcileError, is_not_found, message, post_params, run_workers};
use reconcile::Content;

const FINALIZER: &str = "kubernetes";
/// Metadata of at most that many objects is read to count finalizers; the count of objects is whole.
const PAGE: u32 = 500;

pub(crate) struct Controller {
    context: Context,
}

/// Registers the handler and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("namespace");
    let namespaces = queue.clone();
    context.informers.namespaces.on_change(move |change| {
        if change.object().metadata.deletion_timestamp.is_some() {
            namespaces.add(ObjectKey::of(&**change.object()));
        }
    });
    let controller = Arc::new(Controller { context });
    run_workers(tasks, "namespace", &controller, &queue, options.concurrency, shutdown);
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let api = Api::<Namespace>::all(self.context.client.clone());
        let Some(mut namespace) = api.get_opt(&key.name).await? else { return Ok(Outcome::Done) };
        if namespace.metadata.deletion_timestamp.is_none() {
            return Ok(Outcome::Done);
        }
        if namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating") {
            namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
            namespace = api.replace_status(&key.name, &post_params(), &namespace).await?;
        }
        let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.clone()).unwrap_or_default();
        if finalizers.is_empty() {
            return Ok(Outcome::Done);
        }
        let content = self.delete_content(&key.name).await;
        let current = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        if let Some(conditions) = reconcile::conditions(&current, &content, Timestamp::now()) {
            namespace.status.get_or_insert_default().conditions = Some(conditions);
            namespace = api.replace_status(&key.name, &post_params(), &namespace).await?;
        }
        if !content.is_gone() {
            return Ok(Outcome::After(content.next_look()));
        }
        let rest = finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
        namespace.spec.get_or_insert_default().finalizers = Some(rest);
        match api.replace_subresource("finalize", &key.name, &post_params(), &namespace).await {
            Err(error) if is_not_found(&error) => Ok(Outcome::Done),
            finalized => finalized.map(|_| Outcome::Done).map_err(Into::into),
        }
    }
}

impl Controller {
    /// Deletes what can be deleted and counts the rest. While pods remain, nothing else is touched.
    async fn delete_content(&self, namespace: &str) -> Content {
        let mut content = Content::default();
        let resources = match self.resources().await {
            Ok(resources) => resources,
            Err(error) => {
                content.discovery_failure = Some(message(&error));
                return content;
            }
        };
        let is_pods = |resource: &Deletable| resource.api.group.is_empty() && resource.api.plural == "pods";
        let (pods, others): (Vec<_>, Vec<_>) = resources.into_iter().partition(is_pods);
        for resource in &pods {
            self.delete_all(namespace, resource, &mut content).await;
        }
        if !content.is_gone() {
            return content;
        }
        for resource in &others {
            self.delete_all(namespace, resource, &mut content).await;
        }
        content
    }

    async fn delete_all(&self, namespace: &str, resource: &Deletable, content: &mut Content) {
        let api = Api::<DynamicObject>::namespaced_with(self.context.client.clone(), namespace, &resource.api);
        if let Err(error) = delete_and_count(&api, resource, content).await
            && !is_not_found(&error)
        {
            content.failures.push(message(&error));
        }
    }

    /// Every namespaced kind that can be deleted and listed, each in one version.
    async fn resources(&self) -> Result<Vec<Deletable>, kube::Error> {
        let core = self.context.client.list_core_api_versions_aggregated().await?;
        let groups = self.context.client.list_api_groups_aggregated().await?;
        let mut resources = deletable(&core);
        resources.extend(deletable(&groups));
        Ok(resources)
    }
}

struct Deletable {
    api: ApiResource,
    collection: bool,
}

async fn delete_and_count(
    api: &Api<DynamicObject>,
    resource: &Deletable,
    content: &mut Content,
) -> Result<(), kube::Error> {
    let background =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
    if resource.collection {
        api.delete_collection(&background, &ListParams::default()).await?;
    }
    let left = api.list_metadata(&ListParams::default().limit(PAGE)).await?;
    let unlisted = left.metadata.remaining_item_count.and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    let more = usize::from(left.metadata.continue_.as_ref().is_some_and(|token| !token.is_empty())).max(unlisted);
    if left.items.len() + more > 0 {
        let name = format!("{}.{}", resource.api.plural, resource.api.group);
        content.remaining.insert(name, left.items.len() + more);
    }
    for object in &left.items {
        for finalizer in object.metadata.finalizers.iter().flatten() {
            *content.finalizers.entry(finalizer.clone()).or_insert(0) += 1;
        }
        if !resource.collection && object.metadata.deletion_timestamp.is_none() {
            match api.delete(object.metadata.name.as_deref().unwrap_or_default(), &background).await {
                Err(error) if is_not_found(&error) => {}
                deleted => drop(deleted?),
            }
        }
    }
    Ok(())
}

fn deletable(discovery: &APIGroupDiscoveryList) -> Vec<Deletable> {
    let mut found = Vec::new();
    for group in &discovery.items {
        let name = group.metadata.as_ref().and_then(|meta| meta.name.clone()).unwrap_or_default();
        // The versions are in order of preference: a kind's first one is taken.
        let mut seen = HashSet::new();
        for version in &group.versions {
            let version_name = version.version.clone().unwrap_or_default();
            for resource in &version.resources {
                let has = |verb: &str| resource.verbs.iter().any(|own| own == verb);
                let plural = resource.resource.clone().unwrap_or_default();
                let namespaced = resource.scope.as_deref() == Some("Namespaced");
                if !namespaced || !has("delete") || !has("list") || !seen.insert(plural.clone()) {
                    continue;
                }
                let kind = resource.response_kind.as_ref().and_then(|kind| kind.kind.clone()).unwrap_or_default();
                let api_version = if name.is_empty() { version_name.clone() } else { format!("{name}/{version_name}") };
                let api = ApiResource { group: name.clone(), version: version_name.clone(), api_version, kind, plural };
                found.push(Deletable { api, collection: has("deletecollection") });
            }
        }
    }
    found
}
