//! The driver: pods and nodes from the API in, bindings, conditions and events out.
//!
//! One task owns the [`state::State`] and makes one attempt at a time; writes run beside it, at most [`Options::concurrency`]
//! at once, and attempts pause while all are taken. A decision is assumed at once, so the next attempt already counts it.
//!
//! Invariant: no attempt is made before the first lists of pods and nodes are complete, and none after `shutdown`.
//!
//! Data flow: watch → `State` → `Work` → writes → outcome → `State`.

mod queue;
mod state;
#[cfg(test)]
mod tests;
mod writes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use skep_client::slim::{SlimNode, SlimPod};
use skep_client::{EventRecorder, EventType};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::core::{Pod, VictimPod};
use queue::Waits;
use state::{Condition, State, Work};

/// The name in events (`reportingController`).
const COMPONENT: &str = "default-scheduler";

/// How the scheduler runs. [`Options::default`] has upstream's numbers.
#[derive(Clone, Debug)]
pub struct Options {
    /// This replica in events (`reportingInstance`), usually the host's name.
    pub instance: String,
    /// How many bindings and status writes may be under way at once.
    pub concurrency: usize,
    /// What breaks ties between nodes of equal score; each attempt uses the next number.
    pub seed: u64,
    /// How long a pod waits after its first failed attempt; doubled with each further one.
    pub initial_backoff: Duration,
    /// The longest that a pod waits between two attempts that the cluster's changes ask for.
    pub max_backoff: Duration,
    /// After this time a pod is tried again though nothing changed that could help it.
    pub max_unschedulable: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            instance: COMPONENT.to_owned(),
            concurrency: 64,
            seed: 0,
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            max_unschedulable: Duration::from_secs(300),
        }
    }
}

/// Starts the scheduler for pods whose `schedulerName` is `default-scheduler`. It ends after `shutdown` is cancelled; the set is
/// then empty. Writes that are under way are dropped then: whoever schedules next reads what became of them.
///
/// Only one may run at a time: the caller holds the leadership (`kube-scheduler` in upstream's clusters). The client needs the
/// rights of `system:kube-scheduler`: to watch pods and nodes, to create `pods/binding`, to patch `pods/status` and to write events.
#[must_use]
pub fn run(client: Client, options: Options, shutdown: CancellationToken) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (events, writer) = EventRecorder::new(client.clone(), COMPONENT, &options.instance, shutdown.clone());
    tasks.spawn(writer);
    tasks.spawn(drive(client, options, events, shutdown));
    tasks
}

/// What became of a write.
enum Outcome {
    Bound,
    BindFailed { pod: Arc<Pod> },
    Told,
    TellingFailed { pod: Arc<Pod> },
    PreemptionFailed { pod: Arc<Pod>, victims: Vec<VictimPod> },
}

async fn drive(client: Client, options: Options, events: EventRecorder, shutdown: CancellationToken) {
    let waits = Waits {
        initial_backoff: options.initial_backoff,
        max_backoff: options.max_backoff,
        max_unschedulable: options.max_unschedulable,
    };
    let mut state = State::new(waits, options.seed);
    let mut writes = JoinSet::new();
    let nodes = watcher(Api::<SlimNode>::all(client.clone()), watcher::Config::default()).default_backoff();
    let pods = watcher(Api::<SlimPod>::all(client.clone()), watcher::Config::default()).default_backoff();
    let (mut nodes, mut pods) = (std::pin::pin!(nodes), std::pin::pin!(pods));
    info!("scheduling pods");
    loop {
        let attempts = writes.len() < options.concurrency.max(1) && state.has_work();
        let timer = state.next_timer();
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(outcome) = writes.join_next(), if !writes.is_empty() => match outcome {
                Ok(outcome) => settle(&mut state, &outcome),
                Err(error) => warn!(%error, "a write was lost"),
            },
            Some(event) = nodes.next() => match event {
                Ok(event) => state.apply_node(event, now()),
                Err(error) => warn!(kind = "Node", %error, "watch failed, trying again"),
            },
            Some(event) = pods.next() => match event {
                Ok(event) => state.apply_pod(event, now()),
                Err(error) => warn!(kind = "Pod", %error, "watch failed, trying again"),
            },
            () = until(timer), if timer.is_some() => state.advance(now()),
            () = std::future::ready(()), if attempts => {
                if let Some(work) = state.next(now()) {
                    writes.spawn(perform(client.clone(), events.clone(), work));
                }
            }
        }
    }
    writes.shutdown().await;
}

/// The clock of the queue: tokio's, so that tests can stop it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn until(timer: Option<Instant>) {
    match timer {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn settle(state: &mut State, outcome: &Outcome) {
    match outcome {
        // The watch confirms a binding; until then the placement stays assumed.
        Outcome::Bound | Outcome::Told => {}
        Outcome::BindFailed { pod } => state.bind_failed(&pod.uid, now()),
        Outcome::TellingFailed { pod } => state.telling_failed(&pod.uid),
        Outcome::PreemptionFailed { pod, victims } => state.preemption_failed(&pod.uid, victims, now()),
    }
}

async fn perform(client: Client, events: EventRecorder, work: Work) -> Outcome {
    match work {
        Work::Bind { pod, node, on_failure } => bind(&client, &events, pod, &node, on_failure).await,
        Work::Unschedulable { pod, message, condition } => {
            let note = writes::note(&message);
            events.record(writes::reference(&pod), EventType::Warning, "FailedScheduling", "Scheduling", note);
            let Some(condition) = condition else { return Outcome::Told };
            tell(&client, pod, "Unschedulable", &message, condition, None).await
        }
        Work::Preempt { pod, node, victims, message, condition } => {
            for victim in victims.iter().filter(|victim| !victim.terminating) {
                if let Err(error) = writes::evict(&client, victim).await {
                    let (namespace, name) = (&victim.namespace, &victim.name);
                    warn!(%namespace, victim = %name, %error, "a pod that is to make room can't be deleted");
                    return Outcome::PreemptionFailed { pod, victims };
                }
                let note = format!("Preempted by pod {} on node {node}", pod.uid);
                events.record(writes::reference_to(victim), EventType::Normal, "Preempted", "Preempting", note);
            }
            let note = writes::note(&message);
            events.record(writes::reference(&pod), EventType::Warning, "FailedScheduling", "Scheduling", note);
            tell(&client, pod, "Unschedulable", &message, condition, Some(&node)).await
        }
    }
}

async fn bind(client: &Client, events: &EventRecorder, pod: Arc<Pod>, node: &str, on_failure: Condition) -> Outcome {
    let error = match writes::bind(client, &pod, node).await {
        Ok(()) => {
            let note = format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
            debug!(namespace = %pod.namespace, pod = %pod.name, node, "bound");
            events.record(writes::reference(&pod), EventType::Normal, "Scheduled", "Binding", note);
            return Outcome::Bound;
        }
        Err(error) => error,
    };
    // A pod that went in the meantime needs no word: the watch will say so.
    if matches!(&error, kube::Error::Api(status) if status.code == 404) {
        return Outcome::BindFailed { pod };
    }
    warn!(namespace = %pod.namespace, pod = %pod.name, node, %error, "can't bind, trying again");
    let reason = match &error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    };
    let message = format!("running Bind plugin \"DefaultBinder\": {reason}");
    let note = writes::note(&message);
    events.record(writes::reference(&pod), EventType::Warning, "FailedScheduling", "Scheduling", note);
    tell(client, Arc::clone(&pod), "SchedulerError", &message, on_failure, None).await;
    Outcome::BindFailed { pod }
}

async fn tell(
    client: &Client,
    pod: Arc<Pod>,
    reason: &str,
    message: &str,
    condition: Condition,
    nominated: Option<&str>,
) -> Outcome {
    let since = condition.since.unwrap_or_else(Timestamp::now);
    let word = writes::NotScheduled { generation: condition.generation, reason, message, since, nominated };
    match writes::set_not_scheduled(client, &pod, word).await {
        Ok(()) => Outcome::Told,
        Err(error) => {
            warn!(namespace = %pod.namespace, pod = %pod.name, %error, "can't write why a pod is not scheduled");
            Outcome::TellingFailed { pod }
        }
    }
}
