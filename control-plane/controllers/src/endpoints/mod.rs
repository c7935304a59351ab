//! Endpoints, the older form of EndpointSlices: one object a Service with a selector.
//!
//! Watches Services, pods and Endpoints. Those of Services without a selector are their user's, who also deletes them.

mod reconcile;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Endpoints;
use kube::api::DeleteParams;
use kube::{Api, Resource};
use skep_client::EventType;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::endpoint_slice::{selects, watch_services_and_pods};
use crate::runtime::{
    Change, ObjectKey, Outcome, Reconcile, ReconcileError, is_not_found, message, namespace_is_terminating,
    post_params, run_workers,
};

struct Controller {
    context: Context,
}

/// Registers the handlers and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("endpoint");
    watch_services_and_pods(&context, &queue);
    let own = queue.clone();
    context.informers.endpoints.on_change(move |change| own.add(ObjectKey::of(&**change.object())));
    let deleted = queue.clone();
    context.informers.services.on_change(move |change| {
        if matches!(change, Change::Deleted(_)) {
            deleted.add(ObjectKey::of(&**change.object()));
        }
    });
    let controller = Arc::new(Controller { context });
    run_workers(tasks, "endpoint", &controller, &queue, options.concurrency, shutdown);
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        let api = Api::<Endpoints>::namespaced(self.context.client.clone(), &key.namespace);
        let old = informers.endpoints.get(key);
        let Some(service) = informers.services.get(key) else {
            // Those that a user made for a Service of that name stay the user's.
            if old.as_ref().is_some_and(|old| reconcile::is_own(old)) {
                match api.delete(&key.name, &DeleteParams::default()).await {
                    Err(error) if is_not_found(&error) => {}
                    deleted => drop(deleted?),
                }
            }
            return Ok(Outcome::Done);
        };
        let spec = service.spec.as_ref();
        let selecting = spec.is_some_and(|spec| spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()));
        if !selecting || spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
            return Ok(Outcome::Done);
        }
        let pods = informers.pods.in_namespace(&key.namespace);
        let pods: Vec<_> = pods.into_iter().filter(|pod| selects(&service, pod)).collect();
        let Some(endpoints) = reconcile::reconcile(&service, &pods, old.as_deref()) else { return Ok(Outcome::Done) };
        let (written, reason, verb) = if old.is_none() {
            (api.create(&post_params(), &endpoints).await, "FailedToCreateEndpoint", "create endpoint for service")
        } else {
            let written = api.replace(&key.name, &post_params(), &endpoints).await;
            (written, "FailedToUpdateEndpoint", "update endpoint")
        };
        match written {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if namespace_is_terminating(&error) => Ok(Outcome::Done),
            Err(error) => {
                if !crate::runtime::is_conflict(&error) && !crate::runtime::already_exists(&error) {
                    let note = format!("Failed to {verb} {key}: {}", message(&error));
                    let object = endpoints.object_ref(&());
                    self.context.events.record(object, EventType::Warning, reason, "Reconcile", note);
                }
                Err(error.into())
            }
        }
    }
}
