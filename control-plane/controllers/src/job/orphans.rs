//! Takes the tracking finalizer from pods that no Job counts any more: their Job is gone, or it has ended.
//!
//! Follows `syncOrphanPod` in `job_controller.go`.

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use skep_client::slim::SlimPod;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::pods::{FINALIZER, has_finalizer};
use super::{is_managed_elsewhere, reconcile};
use crate::Options;
use crate::context::Context;
use crate::runtime::{
    Change, Informer, ObjectKey, Outcome, Reconcile, ReconcileError, controller_of, remove_finalizer, run_workers,
};

struct Orphans {
    context: Context,
}

pub(super) fn start(context: &Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("job_orphan_pod");
    let (pods, jobs) = (queue.clone(), context.informers.jobs.clone());
    context.informers.pods.on_change(move |change| {
        let pod = change.object();
        if !matches!(change, Change::Deleted(_)) && is_orphan(pod, &jobs) {
            pods.add(ObjectKey::of(&**pod));
        }
    });
    let (own, pods) = (queue.clone(), context.informers.pods.clone());
    context.informers.jobs.on_change(move |change| {
        let job = change.object();
        if matches!(change, Change::Deleted(_)) || reconcile::ended(job).is_some() {
            for pod in pods.owned_by(job.metadata.uid.as_deref().unwrap_or_default()) {
                if has_finalizer(&pod) {
                    own.add(ObjectKey::of(&*pod));
                }
            }
        }
    });
    let orphans = Arc::new(Orphans { context: context.clone() });
    run_workers(tasks, "job_orphan_pod", &orphans, &queue, options.concurrency, shutdown);
}

/// Whether it waits to be counted by a Job that is not there or has ended.
fn is_orphan(pod: &SlimPod, jobs: &Informer<Job>) -> bool {
    if !has_finalizer(pod) {
        return false;
    }
    let Some(owner) = controller_of(&pod.metadata) else { return true };
    if owner.kind != "Job" || owner.api_version != "batch/v1" {
        return false;
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let job = jobs.get(&ObjectKey::new(namespace, &owner.name));
    let job = job.filter(|job| job.metadata.uid.as_ref() == Some(&owner.uid));
    job.is_none_or(|job| !is_managed_elsewhere(&job) && reconcile::ended(&job).is_some())
}

impl Reconcile for Orphans {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        if let Some(pod) = informers.pods.get(key).filter(|pod| is_orphan(pod, &informers.jobs)) {
            remove_finalizer(&self.context.client, &pod, FINALIZER).await?;
        }
        Ok(Outcome::Done)
    }
}
