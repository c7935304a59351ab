//! Namespaces that are on their way out: everything in them is deleted, pods first, and then the namespace's own finalizer is
//! (`namespaced_resources_deleter.go`, ordered deletion of KEP-5080).
//!
//! Watches namespaces. What can be deleted is asked of discovery each time: kinds come and go. Invariant: the finalizer goes only
//! when every kind was asked for and had nothing left.

mod conditions;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::core::discovery::{ApiCapabilities, ApiResource, Scope, verbs};
use kube::{Api, Discovery};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::conditions::Content;
use crate::Options;
use crate::context::Context;
use crate::runtime::{ObjectKey, Outcome, Reconcile, ReconcileError, is_not_found, message, post_params, run_workers};

/// The finalizer that this controller answers for.
const FINALIZER: &str = "kubernetes";
/// When to look again while pods end gracefully or others' finalizers hold something: soon at first, then by the back-off.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Controller {
    context: Context,
}

/// Registers the handler and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("namespace");
    let namespaces = queue.clone();
    context.informers.namespaces.on_change(move |change| {
        if is_ending(change.object()) {
            namespaces.add(ObjectKey::of(&**change.object()));
        }
    });
    let controller = Arc::new(Controller { context });
    run_workers(tasks, "namespace", &controller, &queue, options.concurrency, shutdown);
}

/// Whether a namespace waits for this controller.
fn is_ending(namespace: &Namespace) -> bool {
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    namespace.metadata.deletion_timestamp.is_some()
        && finalizers.is_some_and(|finalizers| finalizers.iter().any(|finalizer| finalizer == FINALIZER))
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let api = Api::<Namespace>::all(self.context.client.clone());
        // The newest state decides: the informer may still show a namespace that is gone.
        let Some(namespace) = api.get_opt(&key.name).await?.filter(is_ending) else { return Ok(Outcome::Done) };
        let content = self.delete_content(&key.name).await;
        if content.is_gone() {
            return self.finalize(namespace).await;
        }
        let mut changed = namespace.clone();
        let status = changed.status.get_or_insert_default();
        status.phase = Some("Terminating".to_owned());
        if conditions::set(status.conditions.get_or_insert_default(), &content, Timestamp::now()) {
            match api.replace_status(&key.name, &post_params(), &changed).await {
                Err(error) if is_not_found(&error) => return Ok(Outcome::Done),
                written => written.map(|_| ())?,
            }
        }
        Ok(if content.failures.is_empty() { Outcome::After(AGAIN) } else { Outcome::Retry })
    }
}

impl Controller {
    /// Deletes what is there, pods before all else, and tells what is left.
    async fn delete_content(&self, namespace: &str) -> Content {
        let mut content = Content::default();
        let mut resources = match Discovery::new(self.context.client.clone()).run().await {
            Ok(discovery) => deletable(&discovery),
            Err(error) => {
                content.discovery_failure = Some(message(&error));
                return content;
            }
        };
        resources.sort_by_key(|resource| !(resource.group.is_empty() && resource.plural == "pods"));
        for resource in resources {
            let pods = resource.group.is_empty() && resource.plural == "pods";
            match self.delete_resource(namespace, &resource).await {
                Ok(left) => content.add(&resource, &left),
                Err(error) => content.failures.push(format!("{}: {}", name_of(&resource), message(&error))),
            }
            // Others' objects are what pods may still need while they end.
            if pods && !content.is_gone() {
                break;
            }
        }
        content
    }

    /// Deletes the objects of one kind, and lists those that stay.
    async fn delete_resource(&self, namespace: &str, resource: &ApiResource) -> kube::Result<Vec<DynamicObject>> {
        let api = Api::<DynamicObject>::namespaced_with(self.context.client.clone(), namespace, resource);
        let there = api.list(&ListParams::default()).await?.items;
        if there.is_empty() {
            return Ok(there);
        }
        api.delete_collection(&DeleteParams::background(), &ListParams::default()).await?;
        api.list(&ListParams::default()).await.map(|list| list.items)
    }

    /// Takes this controller's finalizer away; with it the namespace goes, if nobody else holds it.
    async fn finalize(&self, mut namespace: Namespace) -> Result<Outcome, ReconcileError> {
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
        let name = namespace.metadata.name.clone().unwrap_or_default();
        let api = Api::<Namespace>::all(self.context.client.clone());
        let written: kube::Result<Namespace> =
            api.replace_subresource("finalize", &name, &post_params(), &namespace).await;
        match written {
            Err(error) if is_not_found(&error) => Ok(Outcome::Done),
            written => written.map(|_| Outcome::Done).map_err(Into::into),
        }
    }
}

/// The namespaced kinds whose objects can be listed and deleted, each once: in the preferred version of its group.
fn deletable(discovery: &Discovery) -> Vec<ApiResource> {
    let can = |capabilities: &ApiCapabilities| {
        capabilities.scope == Scope::Namespaced
            && capabilities.supports_operation(verbs::LIST)
            && capabilities.supports_operation(verbs::DELETE_COLLECTION)
    };
    let groups = discovery.groups();
    groups
        .flat_map(|group| group.recommended_resources())
        .filter(|(_, c)| can(c))
        .map(|(resource, _)| resource)
        .collect()
}

/// `deployments.apps`
fn name_of(resource: &ApiResource) -> String {
    if resource.group.is_empty() { resource.plural.clone() } else { format!("{}.{}", resource.plural, resource.group) }
}
