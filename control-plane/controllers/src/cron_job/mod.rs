//! CronJobs: Jobs at the times of a schedule.
//!
//! Watches CronJobs and the Jobs that they own. A Job's name follows from its time, so that a view which lags can't start it
//! twice.

mod reconcile;
mod schedule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{DeleteParams, PropagationPolicy};
use kube::{Api, Resource};
use skep_client::EventType;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::runtime::{
    ObjectKey, Outcome, Reconcile, ReconcileError, already_exists, controller_of, is_controlled_by, is_not_found,
    message, namespace_is_terminating, post_params, run_workers,
};
use reconcile::{Note, Tidied};

struct Controller {
    context: Context,
}

/// Registers the handlers and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("cronjob");
    let own = queue.clone();
    context.informers.cron_jobs.on_change(move |change| own.add(ObjectKey::of(&**change.object())));
    let jobs = queue.clone();
    context.informers.jobs.on_change(move |change| {
        let job = change.object();
        if let Some(owner) = controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob") {
            jobs.add(ObjectKey::new(job.metadata.namespace.as_deref().unwrap_or_default(), &owner.name));
        }
    });
    let controller = Arc::new(Controller { context });
    run_workers(tasks, "cronjob", &controller, &queue, options.concurrency, shutdown);
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        let Some(cron) = informers.cron_jobs.get(key) else { return Ok(Outcome::Done) };
        let mut cron = (*cron).clone();
        let jobs = informers.jobs.owned_by(cron.metadata.uid.as_deref().unwrap_or_default());
        let before = cron.status.clone().unwrap_or_default();
        let Tidied { mut status, missing, unexpected, surplus, notes } = reconcile::tidy(&cron, &jobs);
        self.record(&cron, notes);
        if !unexpected.is_empty() {
            // The status here may only be old; what the API server has decides.
            let fresh = self.api(key).get(&key.name).await?;
            let own = fresh.status.unwrap_or_default();
            for job in unexpected.iter().filter(|job| !reconcile::is_active(&own, job)) {
                let name = job.metadata.name.as_deref().unwrap_or_default();
                let note = format!("Saw a job that the controller did not create or forgot: {name}");
                self.record(&cron, vec![(EventType::Warning, "UnexpectedJob", note)]);
            }
        }
        for job in surplus {
            self.delete(&cron, &mut status, &job.object_ref(&())).await;
        }
        for reference in missing {
            let name = reference.name.as_deref().unwrap_or_default();
            match self.jobs(key).get(name).await {
                Err(error) if is_not_found(&error) => {
                    reconcile::remove_active(&mut status, reference.uid.as_deref());
                    let note = format!("Active job went missing: {name}");
                    self.record(&cron, vec![(EventType::Normal, "MissingJob", note)]);
                }
                found => drop(found?),
            }
        }
        let outcome = self.run(key, &cron, &mut status).await;
        if status != before {
            cron.status = Some(status);
            match self.api(key).replace_status(&key.name, &post_params(), &cron).await {
                Err(error) if is_not_found(&error) => {}
                written => drop(written?),
            }
        }
        outcome
    }
}

impl Controller {
    /// Starts what is due.
    async fn run(
        &self,
        key: &ObjectKey,
        cron: &CronJob,
        status: &mut CronJobStatus,
    ) -> Result<Outcome, ReconcileError> {
        let now = Timestamp::now();
        let plan = reconcile::plan(cron, status, now);
        self.record(cron, plan.notes);
        let Some(time) = plan.start else { return Ok(Outcome::Done.or_after(plan.again)) };
        for reference in &plan.replace {
            if !self.delete(cron, status, reference).await {
                let name = reference.name.as_deref().unwrap_or_default();
                return Err(ReconcileError::Invalid(format!("could not replace job {}/{name}", key.namespace)));
            }
        }
        let job = reconcile::job(cron, time);
        let started = match self.jobs(key).create(&post_params(), &job).await {
            Ok(job) => {
                let name = job.metadata.name.as_deref().unwrap_or_default();
                self.record(cron, vec![(EventType::Normal, "SuccessfulCreate", format!("Created job {name}"))]);
                job
            }
            Err(error) if already_exists(&error) => {
                let own = self.jobs(key).get(job.metadata.name.as_deref().unwrap_or_default()).await?;
                let is_own = is_controlled_by(&own.metadata, cron.metadata.uid.as_deref().unwrap_or_default());
                if !is_own || reconcile::is_active(status, &own) {
                    return Ok(Outcome::Done.or_after(plan.again));
                }
                own
            }
            Err(error) => {
                if !namespace_is_terminating(&error) {
                    let note = format!("Error creating job: {}", message(&error));
                    self.record(cron, vec![(EventType::Warning, "FailedCreate", note)]);
                }
                return Err(error.into());
            }
        };
        reconcile::add_active(status, &started, time);
        Ok(Outcome::Done.or_after(reconcile::after_start(cron, status, now)))
    }

    /// Deletes a Job with its pods, and takes it out of the status. Gives whether it is so.
    async fn delete(&self, cron: &CronJob, status: &mut CronJobStatus, job: &ObjectReference) -> bool {
        let name = job.name.as_deref().unwrap_or_default();
        let parameters =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        let note = match self.jobs(&ObjectKey::of(cron)).delete(name, &parameters).await {
            Err(error) if !is_not_found(&error) => {
                (EventType::Warning, "FailedDelete", format!("Deleted job: {}", message(&error)))
            }
            _ => {
                reconcile::remove_active(status, job.uid.as_deref());
                (EventType::Normal, "SuccessfulDelete", format!("Deleted job {name}"))
            }
        };
        let deleted = note.1 == "SuccessfulDelete";
        self.record(cron, vec![note]);
        deleted
    }

    fn record(&self, cron: &CronJob, notes: Vec<Note>) {
        for (r#type, reason, note) in notes {
            self.context.events.record(cron.object_ref(&()), r#type, reason, "Reconcile", note);
        }
    }

    fn api(&self, key: &ObjectKey) -> Api<CronJob> {
        Api::namespaced(self.context.client.clone(), &key.namespace)
    }

    fn jobs(&self, key: &ObjectKey) -> Api<Job> {
        Api::namespaced(self.context.client.clone(), &key.namespace)
    }
}
