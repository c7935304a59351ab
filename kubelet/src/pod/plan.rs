//! What to do next for one pod: a pure function from its specification and what runs to steps.
//!
//! Invariant: no I/O, no clock; and when every step has been done and reported, the next plan is empty until something
//! changes or [`Plan::wake_at`] comes. A step is only ever given for what was observed, so that a worker may execute a
//! plan, observe again and ask again.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::status::should_restart;

/// The first wait before a container is started again (upstream: `backOffPeriod`).
const BACK_OFF_START: SignedDuration = SignedDuration::from_secs(10);
/// The longest wait (upstream: `MaxContainerBackOff`).
const BACK_OFF_LIMIT: SignedDuration = SignedDuration::from_secs(300);
/// A container that ran this long starts anew with the first wait.
const BACK_OFF_RESET: SignedDuration = SignedDuration::from_secs(600);
/// `terminationGracePeriodSeconds` where the pod says nothing.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// One action for a pod's worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the cgroup, the namespaces and the network.
    CreateSandbox,
    /// Make and start the container of this name as its `attempt`th run, counted from 0.
    Start {
        /// The container's name in the pod.
        container: String,
        /// Names the log file and becomes the restart count.
        attempt: u32,
    },
    /// Run preStop, send the stop signal, and SIGKILL at the end of the grace period.
    Stop {
        /// The container's name in the pod.
        container: String,
        /// The longest time that preStop and the stop signal may take together.
        grace: SignedDuration,
    },
    /// Take down the network, the namespaces and the cgroup.
    RemoveSandbox,
    /// Delete the Pod from the API with grace period 0: nothing of it is left on the node.
    DeleteFromApi,
}

/// The steps to do now, and when to plan again though nothing happens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be done in this order.
    pub steps: Vec<Step>,
    /// The end of the nearest back-off or deadline.
    pub wake_at: Option<Timestamp>,
    /// Containers that wait out their back-off, with its end: shown as `CrashLoopBackOff`.
    pub backing_off: BTreeMap<String, Timestamp>,
}

/// What was seen of a container's latest run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// Its process lives.
    Running {
        /// Its startup probe passed, or there is none. A sidecar must be started before what follows it.
        started: bool,
        /// A liveness or startup probe gave up on it: it is to be stopped.
        unhealthy: bool,
        /// A stop is under way.
        stopping: bool,
    },
    /// It ended.
    Exited {
        /// Its exit code; 128 + N for signal N.
        exit_code: i32,
        /// When it started.
        started_at: Timestamp,
        /// When it ended.
        finished_at: Timestamp,
    },
}

/// The latest run of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// Which run it is, counted from 0.
    pub attempt: u32,
    /// Runs in a row that failed to last: what the back-off grows with.
    pub short_runs: u32,
    /// Only a new run of it has the resources that were granted: it is to be stopped if it runs, and was stopped for it if
    /// it ended.
    pub restart: bool,
    /// Its state.
    pub run: Run,
}

/// What was seen of a pod on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeState {
    /// The namespaces, the cgroup and the network are there.
    pub sandbox: bool,
    /// By name, of containers that ran at least once.
    pub containers: BTreeMap<String, Observed>,
}

/// Decides what `pod` needs now.
pub fn plan(pod: &Pod, state: &RuntimeState, now: Timestamp) -> Plan {
    let Some(spec) = &pod.spec else { return Plan::default() };
    let mut plan = Plan::default();
    if pod.metadata.deletion_timestamp.is_some() {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_else(|| grace_seconds(spec));
        if stop_all(spec, state, grace, &mut plan) {
            if state.sandbox {
                plan.steps.push(Step::RemoveSandbox);
            }
            plan.steps.push(Step::DeleteFromApi);
        }
        return plan;
    }
    if is_finished(pod, state) || exceeds_deadline(pod, state, now) {
        if stop_all(spec, state, grace_seconds(spec), &mut plan) && state.sandbox {
            plan.steps.push(Step::RemoveSandbox);
        }
        return plan;
    }
    wake(&mut plan, deadline(pod, spec));
    if !state.sandbox {
        plan.steps.push(Step::CreateSandbox);
        return plan;
    }
    run_ephemeral(spec, state, &mut plan);
    run_containers(spec, state, now, &mut plan);
    plan
}

/// Whether the API has the pod as ended: it never runs again, whatever is left of it here.
pub fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the pod is to be ended since it was active for longer than `activeDeadlineSeconds`; one that has ended by itself
/// is not.
pub fn exceeds_deadline(pod: &Pod, state: &RuntimeState, now: Timestamp) -> bool {
    let deadline = pod.spec.as_ref().and_then(|spec| deadline(pod, spec));
    deadline.is_some_and(|deadline| deadline <= now) && !is_finished(pod, state)
}

/// Whether nothing of the pod runs again: all of it ended, or the API says so.
pub fn is_finished(pod: &Pod, state: &RuntimeState) -> bool {
    let outcome = pod.spec.as_ref().map(|spec| outcome(spec, state));
    is_terminal(pod) || matches!(outcome, Some(Outcome::Succeeded | Outcome::Failed))
}

/// The longest time that stopping the pod's containers may take from now on.
pub fn stop_grace(pod: &Pod) -> SignedDuration {
    let of_spec = || pod.spec.as_ref().map_or(DEFAULT_GRACE_SECONDS, grace_seconds);
    let deleting = pod.metadata.deletion_timestamp.is_some();
    let of_deletion = pod.metadata.deletion_grace_period_seconds.filter(|_| deleting);
    SignedDuration::from_secs(of_deletion.unwrap_or_else(of_spec).max(0))
}

/// How a pod's containers ended, all taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Init containers are not done, or a container has not run yet.
    Pending,
    /// A container runs or will run again.
    Running,
    /// Every container ended with 0 and none runs again.
    Succeeded,
    /// None runs again, and one failed.
    Failed,
}

/// The outcome that the pod's phase follows from (upstream: `getPhase`).
pub fn outcome(spec: &PodSpec, state: &RuntimeState) -> Outcome {
    let mut initialized = true;
    for init in spec.init_containers.iter().flatten() {
        match state.containers.get(&init.name).map(|observed| &observed.run) {
            _ if is_sidecar(init) => {}
            Some(Run::Exited { exit_code: 0, .. }) => {}
            Some(Run::Exited { exit_code, .. }) if !should_restart(init, spec, *exit_code) => return Outcome::Failed,
            Some(_) | None => initialized = false,
        }
    }
    let restarts = |name: &str| state.containers.get(name).is_some_and(|observed| observed.restart);
    let (mut missing, mut failed, mut live) = (false, false, false);
    for container in &spec.containers {
        match state.containers.get(&container.name).map(|observed| &observed.run) {
            None => missing = true,
            Some(Run::Running { .. }) => live = true,
            Some(Run::Exited { exit_code, .. }) => {
                live |= should_restart(container, spec, *exit_code) || restarts(&container.name);
                failed |= *exit_code != 0;
            }
        }
    }
    // Main containers that ran prove the init containers' end, even when those have been removed meanwhile.
    match (initialized || !missing, missing, live, failed) {
        (false, ..) | (true, true, ..) => Outcome::Pending,
        (true, false, true, _) => Outcome::Running,
        (true, false, false, true) => Outcome::Failed,
        (true, false, false, false) => Outcome::Succeeded,
    }
}

/// The wait after `short_runs` runs in a row that ended early: 10 s, doubling to 5 min; none after 0.
pub fn back_off(short_runs: u32) -> SignedDuration {
    match short_runs.checked_sub(1) {
        None => SignedDuration::ZERO,
        // 10 s << 5 is over the limit already, so that a greater shift changes nothing.
        Some(doublings) => (BACK_OFF_START * (1 << doublings.min(5))).min(BACK_OFF_LIMIT),
    }
}

/// The `short_runs` of a container's next run, from the run that ended.
pub fn next_short_runs(short_runs: u32, started_at: Timestamp, finished_at: Timestamp) -> u32 {
    if finished_at.duration_since(started_at) >= BACK_OFF_RESET { 0 } else { short_runs.saturating_add(1) }
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn grace_seconds(spec: &PodSpec) -> i64 {
    spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS)
}

fn deadline(pod: &Pod, spec: &PodSpec) -> Option<Timestamp> {
    let start = pod.status.as_ref()?.start_time.as_ref()?.0;
    // A deadline beyond the end of time is none.
    start.checked_add(SignedDuration::from_secs(spec.active_deadline_seconds?)).ok()
}

fn wake(plan: &mut Plan, at: Option<Timestamp>) {
    plan.wake_at = [plan.wake_at, at].into_iter().flatten().min();
}

/// Stops what runs: first the containers, then sidecars in the reverse of their order. True when nothing runs.
fn stop_all(spec: &PodSpec, state: &RuntimeState, grace_seconds: i64, plan: &mut Plan) -> bool {
    let grace = SignedDuration::from_secs(grace_seconds.max(0));
    let running =
        |name: &&String| matches!(state.containers.get(*name), Some(Observed { run: Run::Running { .. }, .. }));
    let (sidecars, inits): (Vec<_>, Vec<_>) =
        spec.init_containers.iter().flatten().partition(|container| is_sidecar(container));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| &container.name);
    let mains = spec.containers.iter().chain(inits).map(|container| &container.name);
    let mains: Vec<_> = mains.chain(ephemeral).filter(running).collect();
    let next: Vec<_> = if mains.is_empty() {
        sidecars.into_iter().rev().map(|container| &container.name).filter(running).take(1).collect()
    } else {
        mains
    };
    plan.steps.extend(next.iter().filter_map(|name| stop(name, state, grace)));
    next.is_empty()
}

fn stop(name: &str, state: &RuntimeState, grace: SignedDuration) -> Option<Step> {
    let stopping =
        matches!(state.containers.get(name), Some(Observed { run: Run::Running { stopping: true, .. }, .. }));
    (!stopping).then(|| Step::Stop { container: name.to_owned(), grace })
}

/// Ephemeral containers run once, beside whatever else runs, and never again.
fn run_ephemeral(spec: &PodSpec, state: &RuntimeState, plan: &mut Plan) {
    let unseen = spec.ephemeral_containers.iter().flatten().map(|container| &container.name);
    let unseen = unseen.filter(|name| !state.containers.contains_key(*name));
    plan.steps.extend(unseen.map(|name| Step::Start { container: name.clone(), attempt: 0 }));
}

fn run_containers(spec: &PodSpec, state: &RuntimeState, now: Timestamp, plan: &mut Plan) {
    let grace = SignedDuration::from_secs(grace_seconds(spec));
    // Once a main container ran, init containers are over, whatever is left of them; sidecars go on.
    let initialized = spec.containers.iter().any(|container| state.containers.contains_key(&container.name));
    for init in spec.init_containers.iter().flatten() {
        let sidecar = is_sidecar(init);
        if initialized && !sidecar {
            continue;
        }
        // An init container that succeeded is done under every policy.
        let restarts = |exit_code| (sidecar || exit_code != 0) && should_restart(init, spec, exit_code);
        keep(init, restarts, state, now, grace, plan);
        let passed = match state.containers.get(&init.name).map(|observed| &observed.run) {
            Some(Run::Running { started, .. }) => sidecar && *started,
            Some(Run::Exited { exit_code, .. }) => !sidecar && *exit_code == 0,
            None => false,
        };
        if !passed && !initialized {
            return;
        }
    }
    for container in &spec.containers {
        keep(container, |exit_code| should_restart(container, spec, exit_code), state, now, grace, plan);
    }
}

/// Starts a container that should run, or stops it when its probes gave up on it.
fn keep(
    container: &Container,
    restarts: impl Fn(i32) -> bool,
    state: &RuntimeState,
    now: Timestamp,
    grace: SignedDuration,
    plan: &mut Plan,
) {
    let start = |attempt| Step::Start { container: container.name.clone(), attempt };
    match state.containers.get(&container.name) {
        None => plan.steps.push(start(0)),
        Some(Observed { restart, run: Run::Running { unhealthy, .. }, .. }) => {
            if *unhealthy || *restart {
                plan.steps.extend(stop(&container.name, state, grace));
            }
        }
        Some(Observed { attempt, restart: true, run: Run::Exited { .. }, .. }) => {
            plan.steps.push(start(attempt.saturating_add(1)));
        }
        Some(Observed { attempt, short_runs, run: Run::Exited { exit_code, started_at, finished_at }, .. }) => {
            if !restarts(*exit_code) {
                return;
            }
            // The first restart of a row comes at once, as upstream's does; the back-off begins with the second.
            let row = next_short_runs(*short_runs, *started_at, *finished_at).saturating_sub(1);
            let at = finished_at.checked_add(back_off(row)).unwrap_or(Timestamp::MAX);
            if at <= now {
                plan.steps.push(start(attempt.saturating_add(1)));
            } else {
                plan.backing_off.insert(container.name.clone(), at);
                wake(plan, Some(at));
            }
        }
    }
}

/// Names of the containers that a plan starts; what the images are needed for.
pub fn starting(plan: &Plan) -> BTreeSet<&str> {
    plan.steps
        .iter()
        .filter_map(|step| match step {
            Step::Start { container, .. } => Some(container.as_str()),
            Step::CreateSandbox | Step::Stop { .. } | Step::RemoveSandbox | Step::DeleteFromApi => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
