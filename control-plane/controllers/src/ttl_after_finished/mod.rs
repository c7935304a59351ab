//! Jobs that ended are deleted when their `ttlSecondsAfterFinished` is over.
//!
//! Watches Jobs. Follows `ttlafterfinished_controller.go`.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::job::reconcile::ended;
use crate::runtime::{ObjectKey, Outcome, Reconcile, ReconcileError, is_not_found, run_workers};

struct Controller {
    context: Context,
}

/// Registers the handlers and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("ttl_jobs_to_delete");
    let jobs = queue.clone();
    context.informers.jobs.on_change(move |change| {
        if time_left(change.object(), Timestamp::now()).is_some() {
            jobs.add(ObjectKey::of(&**change.object()));
        }
    });
    let controller = Arc::new(Controller { context });
    run_workers(tasks, "ttl_after_finished", &controller, &queue, options.concurrency, shutdown);
}

/// How long the Job may still stay; `None` if it has not ended, has no such time, or is being deleted.
fn time_left(job: &Job, now: Timestamp) -> Option<Duration> {
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    let since = ended(job)?.last_transition_time.as_ref()?.0;
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let left = since.checked_add(SignedDuration::from_secs(seconds.into())).ok()?.duration_since(now);
    Some(Duration::try_from(left).unwrap_or_default())
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(job) = self.context.informers.jobs.get(key) else { return Ok(Outcome::Done) };
        match time_left(&job, Timestamp::now()) {
            None => return Ok(Outcome::Done),
            Some(left) if !left.is_zero() => return Ok(Outcome::After(left)),
            Some(_) => {}
        }
        // Read live: the time may have been changed since.
        let api = Api::<Job>::namespaced(self.context.client.clone(), &key.namespace);
        let fresh = match api.get(&key.name).await {
            Err(error) if is_not_found(&error) => return Ok(Outcome::Done),
            fresh => fresh?,
        };
        match time_left(&fresh, Timestamp::now()) {
            None => return Ok(Outcome::Done),
            Some(left) if !left.is_zero() => return Ok(Outcome::After(left)),
            Some(_) => {}
        }
        let preconditions = Preconditions { uid: fresh.metadata.uid.clone(), resource_version: None };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::foreground() };
        match api.delete(&key.name, &parameters).await {
            Err(error) if is_not_found(&error) => Ok(Outcome::Done),
            deleted => deleted.map(|_| Outcome::Done).map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_job_that_ended_and_has_a_time_to_live_is_deleted() {
        let job = |ttl: Option<i32>, condition: &str| {
            serde_json::from_value::<Job>(serde_json::json!({
                "metadata": {"name": "a"},
                "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
                "status": {"conditions": [{"type": condition, "status": "True", "lastTransitionTime": "1970-01-01T00:00:10Z"}]},
            }))
            .expect("a Job")
        };
        let now = Timestamp::from_second(15).expect("a time");
        assert_eq!(time_left(&job(Some(20), "Complete"), now), Some(Duration::from_secs(15)));
        assert_eq!(time_left(&job(Some(2), "Failed"), now), Some(Duration::ZERO));
        assert_eq!(time_left(&job(None, "Complete"), now), None);
        assert_eq!(time_left(&job(Some(2), "Suspended"), now), None);
    }
}
