//! EndpointSlices for Endpoints that a user made for a Service without a selector, so that what reads slices sees them.
//!
//! Watches Endpoints, Services and the slices made here.

mod reconcile;

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::endpoint_slice::reconcile::{MANAGED_BY, SERVICE_NAME};
use crate::runtime::{
    ObjectKey, ObservedDeletion, Outcome, Reconcile, ReconcileError, Revision, WriteTracking, is_not_found,
    namespace_is_terminating, post_params, run_workers,
};
use reconcile::{Action, MANAGER};

/// How soon it is looked again whether an own write was seen.
const UNSEEN: Duration = Duration::from_millis(100);

/// The slices that this controller manages, as a label selector.
pub(crate) fn managed() -> String {
    format!("{MANAGED_BY}={MANAGER}")
}

struct Controller {
    context: Context,
    tracking: WriteTracking,
}

/// Registers the handlers and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("endpoint_slice_mirroring");
    let (own, services, slices) = (queue.clone(), queue.clone(), queue.clone());
    context.informers.endpoints.on_change(move |change| own.add(ObjectKey::of(&**change.object())));
    context.informers.services.on_change(move |change| services.add(ObjectKey::of(&**change.object())));
    context.informers.mirrored_slices.on_change(move |change| {
        let meta = &change.object().metadata;
        if let Some(name) = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) {
            slices.add(ObjectKey::new(meta.namespace.as_deref().unwrap_or_default(), name));
        }
    });
    let controller = Arc::new(Controller { context, tracking: WriteTracking::default() });
    run_workers(tasks, "endpoint-slice-mirroring", &controller, &queue, options.concurrency, shutdown);
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        let gone = |object: &ObjectKey, uid: &str| {
            let slice = informers.mirrored_slices.get(object);
            let alive = slice.is_some_and(|slice| {
                slice.metadata.uid.as_deref() == Some(uid) && slice.metadata.deletion_timestamp.is_none()
            });
            if alive { ObservedDeletion::Unseen } else { ObservedDeletion::Seen }
        };
        if !self.tracking.is_settled(key, informers.mirrored_slices.progress(), gone, Instant::now()) {
            return Ok(Outcome::After(UNSEEN));
        }
        let service = informers.services.get(key).filter(|service| {
            service.spec.as_ref().is_none_or(|spec| spec.selector.as_ref().is_none_or(|own| own.is_empty()))
        });
        let endpoints = informers.endpoints.get(key).filter(|own| service.is_some() && reconcile::is_mirrored(own));
        let slices = informers.mirrored_slices.in_namespace(&key.namespace).into_iter().filter(|slice| {
            let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
            name.map(String::as_str) == Some(&*key.name) && slice.metadata.deletion_timestamp.is_none()
        });
        let slices: Vec<_> = slices.collect();
        for action in reconcile::reconcile(endpoints.as_deref(), &slices) {
            self.apply(key, action).await?;
        }
        Ok(Outcome::Done)
    }
}

impl Controller {
    async fn apply(&self, key: &ObjectKey, action: Action) -> Result<(), kube::Error> {
        let api = Api::<EndpointSlice>::namespaced(self.context.client.clone(), &key.namespace);
        let (_, lists_begun, _) = self.context.informers.mirrored_slices.progress();
        let written = match action {
            Action::Create(slice) => match api.create(&post_params(), &slice).await {
                Err(error) if namespace_is_terminating(&error) => return Ok(()),
                created => created?,
            },
            Action::Update(slice) => {
                api.replace(slice.metadata.name.as_deref().unwrap_or_default(), &post_params(), &slice).await?
            }
            Action::Delete(slice) => {
                let uid = slice.metadata.uid.clone().unwrap_or_default();
                let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: None };
                let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                return match api.delete(slice.metadata.name.as_deref().unwrap_or_default(), &parameters).await {
                    Err(error) if is_not_found(&error) => Ok(()),
                    Err(error) => Err(error),
                    Ok(_) => {
                        self.tracking.deleted(key, ObjectKey::of(&*slice), &uid, Instant::now());
                        Ok(())
                    }
                };
            }
        };
        self.tracking.created(key, Revision::of(&written), lists_begun, Instant::now());
        Ok(())
    }
}
