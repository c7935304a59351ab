//! EndpointSlices of the Services that have a selector: where their pods are and whether they serve (`controller/endpointslice`).
//!
//! Watches Services, pods and the slices of this controller. Keys are Services; a pod's change comes to those that select it.
//! The slices of a Service that is gone go with it, as their owner.
//!
//! Invariant: nothing is written while an earlier write of the same Service is not seen, so no endpoint gets two places.

pub(crate) mod reconcile;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use skep_client::slim::SlimPod;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::runtime::{
    ObjectKey, ObservedDeletion, Outcome, Queue, Reconcile, ReconcileError, Revision, WriteTracking, is_not_found,
    namespace_is_terminating, post_params, run_workers,
};
use reconcile::{Action, MANAGED_BY, MANAGER, SERVICE_NAME};

const ZONE: &str = "topology.kubernetes.io/zone";
/// How soon it is looked again whether an own write was seen.
const UNSEEN: Duration = Duration::from_millis(100);

/// The slices that this controller manages, as a label selector.
pub(crate) fn managed() -> String {
    format!("{MANAGED_BY}={MANAGER}")
}

pub(crate) struct Controller {
    context: Context,
    tracking: WriteTracking,
}

/// Registers the handlers and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("endpoint_slice");
    watch_services_and_pods(&context, &queue);
    let slices = queue.clone();
    context.informers.endpoint_slices.on_change(move |change| {
        let meta = &change.object().metadata;
        if let Some(name) = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) {
            slices.add(ObjectKey::new(meta.namespace.as_deref().unwrap_or_default(), name));
        }
    });
    let controller = Arc::new(Controller { context, tracking: WriteTracking::default() });
    run_workers(tasks, "endpoint-slice", &controller, &queue, options.concurrency, shutdown);
}

/// Makes a Service's key ready when it changes, or a pod that its selector has or had.
pub(crate) fn watch_services_and_pods(context: &Context, queue: &Queue<ObjectKey>) {
    let services = queue.clone();
    context.informers.services.on_change(move |change| services.add(ObjectKey::of(&**change.object())));
    let (pods, all) = (queue.clone(), context.informers.services.clone());
    context.informers.pods.on_change(move |change| {
        let new = change.object();
        for service in all.in_namespace(new.metadata.namespace.as_deref().unwrap_or_default()) {
            if selects(&service, new) || change.previous().is_some_and(|old| selects(&service, old)) {
                pods.add(ObjectKey::of(&*service));
            }
        }
    });
}

/// Whether a Service's selector has the pod.
pub(crate) fn selects(service: &Service, pod: &SlimPod) -> bool {
    let selector =
        service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty());
    let labels = pod.metadata.labels.as_ref();
    selector.is_some_and(|selector| {
        selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    })
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        let Some(service) = informers.services.get(key) else {
            self.tracking.forget(key);
            return Ok(Outcome::Done);
        };
        let spec = service.spec.as_ref();
        let selecting = spec.and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty());
        let external = spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
        if !selecting || external || service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let gone = |object: &ObjectKey, uid: &str| match informers.endpoint_slices.get(object) {
            Some(slice)
                if slice.metadata.uid.as_deref() == Some(uid) && slice.metadata.deletion_timestamp.is_none() =>
            {
                ObservedDeletion::Unseen
            }
            _ => ObservedDeletion::Seen,
        };
        if !self.tracking.is_settled(key, informers.endpoint_slices.progress(), gone, Instant::now()) {
            return Ok(Outcome::After(UNSEEN));
        }
        let pods: Vec<_> =
            informers.pods.in_namespace(&key.namespace).into_iter().filter(|pod| selects(&service, pod)).collect();
        let zones = pods.iter().filter_map(|pod| {
            let name = pod.spec.node_name.as_deref()?;
            let node = informers.nodes.get(&ObjectKey::new("", name))?;
            Some((name.to_owned(), node.metadata.labels.as_ref()?.get(ZONE)?.clone()))
        });
        let zones = zones.collect();
        let slices = informers.endpoint_slices.in_namespace(&key.namespace).into_iter().filter(|slice| {
            let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
            name.map(String::as_str) == Some(&*key.name) && slice.metadata.deletion_timestamp.is_none()
        });
        let slices: Vec<_> = slices.collect();
        for action in reconcile::reconcile(&service, &pods, &zones, &slices) {
            self.apply(key, action).await?;
        }
        Ok(Outcome::Done)
    }
}

impl Controller {
    async fn apply(&self, key: &ObjectKey, action: Action) -> Result<(), kube::Error> {
        let api = Api::<EndpointSlice>::namespaced(self.context.client.clone(), &key.namespace);
        let (_, lists_begun, _) = self.context.informers.endpoint_slices.progress();
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
