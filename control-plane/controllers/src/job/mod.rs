//! Jobs: pods that run to their end, as often as asked for.
//!
//! Watches Jobs and pods. Each pod carries a finalizer until the Job's status counts it, so that none is lost when it is
//! deleted early; [`orphans`] takes it from pods whose Job is gone or has ended.
//!
//! Invariant: no pod is created while an own earlier write is not yet seen, and no pass starts from a Job older than the
//! last status that was written.

mod backoff;
mod indexes;
mod orphans;
mod pods;
mod policy;
pub(crate) mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::Resource;
use parking_lot::Mutex;
use skep_client::EventType;
use skep_client::slim::SlimPod;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::runtime::{
    Change, ObjectKey, Outcome, PodControl, PodOwner, Queue, Reconcile, ReconcileError, Revision, controller_of,
    is_not_found, post_params, run_workers, selector_matches,
};
use backoff::Backoff;
use reconcile::{Observed, Pass, Work};

/// Who reconciles Jobs that name nobody else.
const MANAGER: &str = "kubernetes.io/job-controller";
/// How long to wait for the watch to show the last status; it comes by itself, this is for a watch that broke.
const STALE: Duration = Duration::from_secs(5);

pub(crate) struct Controller {
    context: Context,
    pods: PodControl,
    memory: Mutex<HashMap<ObjectKey, Memory>>,
}

/// What is kept of a Job between passes.
#[derive(Clone, Debug, Default)]
struct Memory {
    backoff: Backoff,
    written: Revision,
    /// Uids of pods whose finalizer was taken, until the informer shows it.
    removed: HashSet<String>,
}

/// Registers the handlers and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("job");
    watch(&context, &queue);
    orphans::start(&context, options, tasks, shutdown);
    let pods = PodControl::new(context.client.clone(), context.informers.pods.clone(), context.events.clone());
    let controller = Arc::new(Controller { context, pods, memory: Mutex::default() });
    run_workers(tasks, "job", &controller, &queue, options.concurrency, shutdown);
}

fn watch(context: &Context, queue: &Queue<ObjectKey>) {
    let jobs = queue.clone();
    context.informers.jobs.on_change(move |change| jobs.add(ObjectKey::of(&**change.object())));
    let (queue, jobs) = (queue.clone(), context.informers.jobs.clone());
    context.informers.pods.on_change(move |change| {
        let owner = |pod: &SlimPod| controller_of(&pod.metadata).filter(|owner| owner.kind == "Job").cloned();
        let pod = change.object();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for owner in change.previous().and_then(|pod| owner(pod)).iter().chain(&owner(pod)) {
            queue.add(ObjectKey::new(namespace, &owner.name));
        }
        if controller_of(&pod.metadata).is_none() && !matches!(change, Change::Deleted(_)) {
            let jobs = jobs.in_namespace(namespace);
            let adopts = |job: &&Arc<Job>| {
                let selector = job.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                selector.is_some_and(|selector| selector_matches(selector, pod.metadata.labels.as_ref()))
            };
            jobs.iter().filter(adopts).for_each(|job| queue.add(ObjectKey::of(&**job)));
        }
    });
}

/// Whether somebody else reconciles it.
fn is_managed_elsewhere(job: &Job) -> bool {
    let manager = job.spec.as_ref().and_then(|spec| spec.managed_by.as_deref());
    manager.is_some_and(|manager| manager != MANAGER)
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        let Some(job) = informers.jobs.get(key) else {
            self.pods.forget(key);
            self.memory.lock().remove(key);
            return Ok(Outcome::Done);
        };
        let Some(spec) = job.spec.as_ref().filter(|_| !is_managed_elsewhere(&job)) else { return Ok(Outcome::Done) };
        let memory = self.memory.lock().get(key).cloned().unwrap_or_default();
        if Revision::of(&*job) < memory.written {
            return Ok(Outcome::After(STALE));
        }
        if reconcile::ended(&job).is_some() {
            self.memory.lock().remove(key);
            return Ok(Outcome::Done);
        }
        if !matches!(spec.completion_mode.as_deref(), None | Some("NonIndexed" | "Indexed")) {
            let note = "Skipped Job sync because completion mode is unknown".to_owned();
            self.event(&job, EventType::Warning, "UnknownCompletionMode", note);
            return Ok(Outcome::Done);
        }
        let settled = self.pods.is_settled(key);
        let owner = PodOwner::of(&*job);
        let mut candidates = informers.pods.owned_by(job.metadata.uid.as_deref().unwrap_or_default());
        let selector = spec.selector.clone().unwrap_or_default();
        candidates.extend(informers.pods.orphans(&key.namespace));
        let pods = self.pods.claim(&owner, &selector, &candidates, Some(pods::FINALIZER)).await?;
        let removed = self.still_removed(key, &pods);
        let observed = Observed { job: &job, spec, pods: &pods, removed: &removed, settled, backoff: memory.backoff };
        self.pass(key, &owner, Pass::new(observed, Timestamp::now())).await
    }
}

impl Controller {
    async fn pass(&self, key: &ObjectKey, owner: &PodOwner, mut pass: Pass<'_>) -> Result<Outcome, ReconcileError> {
        let failure = match pass.work() {
            Work::Nothing => {
                pass.worked(&[], 0);
                None
            }
            Work::End(pods) => {
                let deleted = self.pods.delete(owner, &pods).await;
                let gone = if deleted.failure.is_none() { &pods[..] } else { &[] };
                pass.worked(gone, 0);
                deleted.failure
            }
            Work::Delete(pods) => {
                let (released, unreleased) = self.pods.remove_finalizer(&pods, pods::FINALIZER).await;
                let deleted = self.pods.delete(owner, &released).await;
                let gone = if deleted.failure.is_none() { &released[..] } else { &[] };
                pass.worked(gone, 0);
                unreleased.or(deleted.failure)
            }
            Work::Create(wanted) => {
                let job = &pass.job;
                let make = |(index, replaced): &(Option<i32>, Option<Arc<SlimPod>>)| {
                    job.spec.as_ref().map(|spec| pods::pod(job, spec, *index, replaced.as_deref()))
                };
                let created = self.pods.create(owner, wanted.iter().filter_map(make).collect()).await;
                pass.worked(&[], created.count);
                created.failure
            }
        };
        self.count(key, &mut pass).await?;
        let again = pass.again;
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(Outcome::Done.or_after(again)),
        }
    }

    /// Writes the uids of ended pods into the status, takes their finalizers, and writes the counts.
    async fn count(&self, key: &ObjectKey, pass: &mut Pass<'_>) -> Result<(), ReconcileError> {
        let release = pass.track();
        if pass.changed {
            self.write_status(key, pass).await?;
        }
        self.memory.lock().entry(key.clone()).or_default().backoff = pass.backoff;
        let uids = release.iter().filter_map(|pod| pod.metadata.uid.clone());
        self.memory.lock().entry(key.clone()).or_default().removed.extend(uids);
        let (removed, failure) = self.pods.remove_finalizer(&release, pods::FINALIZER).await;
        if failure.is_some() {
            let gone = |uid: &String| removed.iter().any(|pod| pod.metadata.uid.as_ref() == Some(uid));
            let kept: HashSet<&String> = release.iter().filter_map(|pod| pod.metadata.uid.as_ref()).collect();
            let mut memory = self.memory.lock();
            memory.entry(key.clone()).or_default().removed.retain(|uid| !kept.contains(uid) || gone(uid));
        }
        pass.finalizers_removed(&removed);
        if failure.is_none() {
            pass.finish();
        }
        if pass.changed {
            self.write_status(key, pass).await?;
        }
        for (r#type, reason, note) in pass.events.drain(..) {
            self.event(&pass.job, r#type, reason, note);
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn write_status(&self, key: &ObjectKey, pass: &mut Pass<'_>) -> Result<(), ReconcileError> {
        let api = Api::<Job>::namespaced(self.context.client.clone(), &key.namespace);
        match api.replace_status(&key.name, &post_params(), &pass.job).await {
            Err(error) if is_not_found(&error) => {}
            written => {
                pass.job = written?;
                self.memory.lock().entry(key.clone()).or_default().written = Revision::of(&pass.job);
            }
        }
        pass.changed = false;
        Ok(())
    }

    /// The uids of pods that lost their finalizer, as far as the informer doesn't show it yet.
    fn still_removed(&self, key: &ObjectKey, pods: &[Arc<SlimPod>]) -> HashSet<String> {
        let mut memory = self.memory.lock();
        let Some(memory) = memory.get_mut(key) else { return HashSet::new() };
        if memory.removed.is_empty() {
            return HashSet::new();
        }
        let shown: HashSet<&str> =
            pods.iter().filter(|pod| pods::has_finalizer(pod)).filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        memory.removed.retain(|uid| shown.contains(uid.as_str()));
        memory.removed.clone()
    }

    fn event(&self, job: &Job, r#type: EventType, reason: &str, note: String) {
        self.context.events.record(job.object_ref(&()), r#type, reason, "Reconcile", note);
    }
}
