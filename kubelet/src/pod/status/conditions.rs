//! The conditions that follow from a status whose containers and phase are known (upstream: pkg/kubelet/status/generate.go).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::containers::{by_name, is_sidecar};
use crate::pod::observation::PodObservation;

/// Conditions that the kubelet writes; all others are kept as they are (upstream: `PodConditionsByKubelet`).
const OWN: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizeInProgress",
    "PodResizePending",
    "AllContainersRestarting",
];

/// Conditions that are there only while a resize is.
pub(super) const RESIZE: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];
const INFEASIBLE: &str = "Infeasible";

/// The reason of the condition `DisruptionTarget` of a pod that the node put out.
const PUT_OUT: &str = "TerminationByKubelet";

/// Whether the kubelet writes a condition of this type and reason.
pub(super) fn is_own(kind: &Value, reason: &Value) -> bool {
    kind.as_str().is_some_and(|kind| OWN.contains(&kind)) || (kind == "DisruptionTarget" && reason == PUT_OUT)
}

/// What the conditions follow from: `new` has its containers and its phase.
pub(super) struct Conditions<'a> {
    pub(super) pod: &'a Pod,
    pub(super) spec: &'a PodSpec,
    pub(super) old: &'a PodStatus,
    pub(super) new: &'a PodStatus,
    pub(super) seen: &'a PodObservation,
    pub(super) now: Timestamp,
}

/// A condition's status, reason and message.
#[derive(Clone)]
struct State {
    status: &'static str,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl State {
    const TRUE: Self = Self { status: "True", reason: None, message: None };

    fn not(reason: &'static str) -> Self {
        Self { status: "False", reason: Some(reason), message: None }
    }
}

impl Conditions<'_> {
    /// The foreign ones as they were, then the kubelet's own.
    pub(super) fn all(&self) -> Vec<PodCondition> {
        let old = self.old.conditions.as_deref().unwrap_or_default();
        let mut all: Vec<_> =
            old.iter().filter(|condition| !OWN.contains(&condition.type_.as_str())).cloned().collect();
        self.disruption(&mut all);
        let containers_ready = self.containers_ready();
        let ready = self.ready(&containers_ready, &all);
        all.push(self.condition("PodReadyToStartContainers", self.sandbox_ready()));
        all.push(self.condition("Initialized", self.initialized()));
        all.push(self.condition("Ready", ready));
        all.push(self.condition("ContainersReady", containers_ready));
        all.push(self.condition("PodScheduled", State::TRUE));
        all.extend(self.resize());
        all
    }

    /// A pod that the node put out says so, so that a Job's failure policy can tell it from one that failed (KEP-3329).
    fn disruption(&self, all: &mut Vec<PodCondition>) {
        let evicted = self.seen.failed.as_ref().filter(|failed| failed.reason == "Evicted");
        if let (Some(evicted), Some("Failed")) = (evicted, self.new.phase.as_deref()) {
            all.retain(|condition| condition.type_ != "DisruptionTarget");
            let message = Some(evicted.message.clone());
            let state = State { status: "True", reason: Some(PUT_OUT), message };
            all.push(self.condition("DisruptionTarget", state));
        }
    }

    /// A wish for other resources that is not granted, or not carried out yet (KEP-1287).
    fn resize(&self) -> impl Iterator<Item = PodCondition> {
        let resize = &self.seen.resize;
        let pending = resize.pending.as_ref().map(|why| {
            let reason = if why.reason == INFEASIBLE { INFEASIBLE } else { "Deferred" };
            let state = State { status: "True", reason: Some(reason), message: Some(why.message.clone()) };
            self.condition(RESIZE[0], state)
        });
        let progress = resize.in_progress.then(|| {
            let state =
                State { reason: resize.error.as_ref().map(|_| "Error"), message: resize.error.clone(), ..State::TRUE };
            self.condition(RESIZE[1], state)
        });
        pending.into_iter().chain(progress)
    }

    fn condition(&self, kind: &str, state: State) -> PodCondition {
        let old = self.old.conditions.iter().flatten().find(|condition| condition.type_ == kind);
        let since = old
            .filter(|old| old.status == state.status)
            .and_then(|old| old.last_transition_time.clone())
            .unwrap_or(Time(self.now));
        PodCondition {
            type_: kind.to_owned(),
            status: state.status.to_owned(),
            reason: state.reason.map(str::to_owned),
            message: state.message,
            last_probe_time: None,
            last_transition_time: Some(since),
            observed_generation: self.pod.metadata.generation,
        }
    }

    fn sandbox_ready(&self) -> State {
        if self.seen.sandbox {
            return State::TRUE;
        }
        let never = self.seen.containers.is_empty() && self.new.pod_ips.is_none();
        let message = if never { "no pod sandbox exists" } else { "pod sandbox is not ready" };
        State { message: Some(message.to_owned()), ..State::not("PodSandboxNotReady") }
    }

    fn initialized(&self) -> State {
        let inits = self.spec.init_containers.as_deref().unwrap_or_default();
        let statuses = self.new.init_container_statuses.as_deref().unwrap_or_default();
        if statuses.is_empty() && self.mains().is_empty() && !inits.is_empty() {
            return State::not("UnknownContainerStatuses");
        }
        let (mut unknown, mut incomplete) = (vec![], vec![]);
        for init in inits {
            match by_name(statuses, &init.name) {
                None => unknown.push(init.name.as_str()),
                Some(status) => {
                    let done = if is_sidecar(init) { status.started == Some(true) } else { status.ready };
                    if !done {
                        incomplete.push(init.name.as_str());
                    }
                }
            }
        }
        if self.new.phase.as_deref() == Some("Succeeded") && unknown.is_empty() {
            return State { reason: Some("PodCompleted"), ..State::TRUE };
        }
        let started = |status: &ContainerStatus| {
            status.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        };
        let before = self.old.conditions.iter().flatten().any(|old| old.type_ == "Initialized" && old.status == "True");
        let message = listed([("unknown", &unknown), ("incomplete", &incomplete)]);
        match message {
            Some(_) if self.mains().iter().any(started) || before => State::TRUE,
            Some(_) => State { message, ..State::not("ContainersNotInitialized") },
            None => State::TRUE,
        }
    }

    fn containers_ready(&self) -> State {
        if self.new.phase.as_deref() == Some("Failed") {
            return State::not("PodFailed");
        }
        let inits = self.new.init_container_statuses.as_deref().unwrap_or_default();
        if inits.is_empty() && self.mains().is_empty() {
            return State::not("UnknownContainerStatuses");
        }
        let (mut unknown, mut unready) = (vec![], vec![]);
        let sidecars = self.spec.init_containers.iter().flatten().filter(|init| is_sidecar(init));
        let sidecars = sidecars.map(|init| (&init.name, by_name(inits, &init.name)));
        let mains = self.spec.containers.iter().map(|main| (&main.name, by_name(self.mains(), &main.name)));
        for (name, status) in sidecars.chain(mains) {
            match status {
                None => unknown.push(name.as_str()),
                Some(status) if !status.ready => unready.push(name.as_str()),
                Some(_) => {}
            }
        }
        if self.new.phase.as_deref() == Some("Succeeded") && unknown.is_empty() {
            return State::not("PodCompleted");
        }
        match listed([("unknown", &unknown), ("unready", &unready)]) {
            None => State::TRUE,
            message => State { message, ..State::not("ContainersNotReady") },
        }
    }

    fn ready(&self, containers_ready: &State, conditions: &[PodCondition]) -> State {
        if containers_ready.status != "True" {
            return containers_ready.clone();
        }
        let missing = |gate: &str| match conditions.iter().find(|condition| condition.type_ == gate) {
            None => Some(format!("corresponding condition of pod readiness gate {gate:?} does not exist.")),
            Some(condition) if condition.status != "True" => {
                Some(format!("the status of pod readiness gate {gate:?} is not \"True\", but {}", condition.status))
            }
            Some(_) => None,
        };
        let gates = self.spec.readiness_gates.iter().flatten();
        let missing: Vec<_> = gates.filter_map(|gate| missing(&gate.condition_type)).collect();
        if missing.is_empty() {
            return State::TRUE;
        }
        State { message: Some(missing.join(", ")), ..State::not("ReadinessGatesNotReady") }
    }

    fn mains(&self) -> &[ContainerStatus] {
        self.new.container_statuses.as_deref().unwrap_or_default()
    }
}

/// As `containers with unready status: [a b]`; none when both lists are empty.
fn listed(lists: [(&str, &[&str]); 2]) -> Option<String> {
    let texts: Vec<_> = lists
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("containers with {what} status: [{}]", names.join(" ")))
        .collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}
