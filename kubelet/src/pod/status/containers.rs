//! The status of each container (upstream: `convertToAPIContainerStatuses`, `UpdatePodStatus` of the prober,
//! `TerminatePod`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    EphemeralContainer, ImageVolumeStatus, Pod, PodSpec, PodStatus, ResourceRequirements, VolumeMount,
    VolumeMountStatus, VolumeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::restart::should_restart;
use super::{container_id, seconds};
use crate::pod::observation::{ContainerObservation, ContainerState as Seen, Ended, PodObservation};
use crate::pod::resize;

/// Why a container ended whose end nobody saw.
const UNKNOWN_REASON: &str = "ContainerStatusUnknown";
/// The exit code that is shown for it: that of a process that was killed.
const UNKNOWN_EXIT_CODE: i32 = 137;

/// Fills in the three lists of container statuses.
pub(super) fn set(status: &mut PodStatus, pod: &Pod, spec: &PodSpec, old: &PodStatus, seen: &PodObservation) {
    let ephemeral: Vec<Container> = spec.ephemeral_containers.iter().flatten().map(as_container).collect();
    let list = |containers: &[Container], old: &Option<Vec<ContainerStatus>>, role| {
        let old = old.as_deref().unwrap_or_default();
        let of =
            |container: &Container| Builder { pod, spec, seen, role }.build(container, by_name(old, &container.name));
        let statuses: Vec<_> = containers.iter().map(of).collect();
        (!statuses.is_empty()).then_some(statuses)
    };
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    status.init_container_statuses = list(inits, &old.init_container_statuses, Role::Init);
    status.container_statuses = list(&spec.containers, &old.container_statuses, Role::Main);
    status.ephemeral_container_statuses = list(&ephemeral, &old.ephemeral_container_statuses, Role::Ephemeral);
}

/// Ends what nobody saw ending, once nothing of the pod runs or will run: whether it succeeded is not known, so that it
/// counts as failed.
pub(super) fn end(status: &mut PodStatus, spec: &PodSpec) {
    let evidence = |status: &ContainerStatus| {
        let state = status.state.as_ref();
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            || status.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
    };
    let unknown = |statuses: &mut [ContainerStatus]| {
        for status in statuses {
            if !has_ended(status.state.as_ref()) {
                status.state =
                    Some(terminated(unknown_end("The container could not be located when the pod was terminated")));
            }
        }
    };
    let inits = status.init_container_statuses.as_deref_mut().unwrap_or_default();
    let mains = status.container_statuses.as_deref_mut().unwrap_or_default();
    let last_done = || {
        let (last, container) = (inits.last()?, spec.init_containers.as_ref()?.last()?);
        Some(if is_sidecar(container) { last.started == Some(true) } else { succeeded(last) })
    };
    let initialized = inits.is_empty() || mains.iter().any(evidence) || last_done() == Some(true);
    // Init containers run in turn: those before one that ran have run too.
    let ran = inits.iter().rposition(evidence).map_or(0, |last| last + 1);
    unknown(inits.get_mut(..ran).unwrap_or_default());
    if initialized {
        unknown(mains);
    }
}

/// The status of this name.
pub(super) fn by_name<'a>(statuses: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    statuses.iter().find(|status| status.name == name)
}

/// An init container that goes on beside the main ones.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Init,
    Main,
    Ephemeral,
}

struct Builder<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    seen: &'a PodObservation,
    role: Role,
}

impl Builder<'_> {
    fn build(&self, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
        let mut status = match self.seen.containers.get(&container.name) {
            Some(seen) => self.seen(container, seen, old),
            None => self.unseen(container, old),
        };
        self.show_waiting(container, &mut status);
        status
    }

    fn seen(
        &self,
        container: &Container,
        seen: &ContainerObservation,
        old: Option<&ContainerStatus>,
    ) -> ContainerStatus {
        let id = container_id(&seen.id);
        let (state, started, ready) = match &seen.state {
            Seen::Running { started_at, started, ready, .. } => {
                let running = ContainerStateRunning { started_at: Some(Time(seconds(*started_at))) };
                // An init container is ready by being done.
                let ready = *started && *ready && (self.role != Role::Init || is_sidecar(container));
                (ContainerState { running: Some(running), ..ContainerState::default() }, *started, ready)
            }
            Seen::Ended(ended) => {
                let done = self.role == Role::Init && !is_sidecar(container) && ended.exit_code == 0;
                (terminated(end_of(ended)), false, done)
            }
        };
        let same = old.filter(|old| old.container_id.as_deref() == Some(&id));
        let last = seen.last.as_ref().map(|last| terminated(end_of(last)));
        // The run before may be gone from containerd; the API still knows it.
        let remembered = || match old {
            Some(old) if same.is_none() && has_ended(old.state.as_ref()) => old.state.clone(),
            Some(old) if has_ended(old.last_state.as_ref()) => old.last_state.clone(),
            Some(_) | None => None,
        };
        ContainerStatus {
            name: container.name.clone(),
            image: seen.image.clone(),
            image_id: seen.image_id.clone(),
            container_id: Some(id),
            restart_count: i32::try_from(seen.attempt).unwrap_or(i32::MAX).max(old.map_or(0, |old| old.restart_count)),
            state: Some(state),
            last_state: last.or_else(remembered).or_else(|| Some(ContainerState::default())),
            ready,
            started: Some(started),
            resources: Some(actual(container, seen)),
            allocated_resources: container.resources.as_ref().and_then(|resources| resources.requests.clone()),
            user: same.and_then(|same| same.user.clone()),
            stop_signal: container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.clone()),
            volume_mounts: volume_mounts(container, &seen.volume_images),
            ..ContainerStatus::default()
        }
    }

    /// A container that never ran, or whose remains are gone.
    fn unseen(&self, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
        if let Some(old) = old.filter(|old| has_ended(old.state.as_ref())) {
            return ContainerStatus { ready: old.ready && succeeded(old), started: Some(false), ..old.clone() };
        }
        let has_inits = self.spec.init_containers.as_ref().is_some_and(|inits| !inits.is_empty());
        let waiting = if has_inits { "PodInitializing" } else { "ContainerCreating" };
        let mut status = ContainerStatus {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            restart_count: old.map_or(0, |old| old.restart_count),
            state: Some(self::waiting(waiting, None)),
            last_state: old.and_then(|old| old.last_state.clone()).or_else(|| Some(ContainerState::default())),
            started: Some(false),
            volume_mounts: volume_mounts(container, &BTreeMap::new()),
            ..ContainerStatus::default()
        };
        let main_ran = self.spec.containers.iter().any(|main| self.seen.containers.contains_key(&main.name));
        if self.role == Role::Init && !is_sidecar(container) && main_ran {
            status.state = Some(terminated(ContainerStateTerminated {
                reason: Some("Completed".to_owned()),
                message: Some(
                    "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally"
                        .to_owned(),
                ),
                ..ContainerStateTerminated::default()
            }));
            status.ready = true;
            return status;
        }
        let ran = old.and_then(|old| old.state.as_ref()).is_some_and(|state| state.running.is_some());
        if ran && !has_ended(status.last_state.as_ref()) {
            let message =
                "The container could not be located when the pod was deleted.  The container used to be Running";
            status.last_state = Some(terminated(unknown_end(message)));
            // A pod that is not deleted has been restarted, then.
            status.restart_count += i32::from(self.pod.metadata.deletion_timestamp.is_none());
        }
        status
    }

    /// A container that is to be started (again) shows why it has not been.
    fn show_waiting(&self, container: &Container, status: &mut ContainerStatus) {
        let Some(reason) = self.seen.waiting.get(&container.name) else { return };
        if self.pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        let done = self.role == Role::Init && !is_sidecar(container);
        let start = match self.seen.containers.get(&container.name).map(|seen| &seen.state) {
            None => true,
            Some(Seen::Running { .. }) => false,
            Some(Seen::Ended(ended)) if done && ended.exit_code == 0 => false,
            Some(Seen::Ended(ended)) => should_restart(container, self.spec, ended.exit_code),
        };
        if !start {
            return;
        }
        if has_ended(status.state.as_ref()) {
            status.last_state = status.state.take();
        }
        status.state = Some(waiting(&reason.reason, Some(reason.message.clone())));
        status.ready = false;
    }
}

/// What the container has, which is not yet what it was granted while a resize is under way.
fn actual(container: &Container, seen: &ContainerObservation) -> ResourceRequirements {
    let mut resources = container.resources.clone().unwrap_or_default();
    if matches!(seen.state, Seen::Running { .. }) {
        resize::replace(&mut resources, &seen.resources);
    }
    resources
}

fn has_ended(state: Option<&ContainerState>) -> bool {
    state.is_some_and(|state| state.terminated.is_some())
}

fn succeeded(status: &ContainerStatus) -> bool {
    let end = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    end.is_some_and(|end| end.exit_code == 0)
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting =
        ContainerStateWaiting { reason: Some(reason.to_owned()), message: message.filter(|text| !text.is_empty()) };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn terminated(end: ContainerStateTerminated) -> ContainerState {
    ContainerState { terminated: Some(end), ..ContainerState::default() }
}

fn end_of(ended: &Ended) -> ContainerStateTerminated {
    ContainerStateTerminated {
        container_id: Some(container_id(&ended.id)),
        exit_code: ended.exit_code,
        reason: Some(ended.reason.clone()),
        message: ended.message.clone().filter(|message| !message.is_empty()),
        started_at: Some(Time(seconds(ended.started_at))),
        finished_at: Some(Time(seconds(ended.finished_at))),
        signal: None,
    }
}

fn unknown_end(message: &str) -> ContainerStateTerminated {
    ContainerStateTerminated {
        reason: Some(UNKNOWN_REASON.to_owned()),
        message: Some(message.to_owned()),
        exit_code: UNKNOWN_EXIT_CODE,
        ..ContainerStateTerminated::default()
    }
}

fn volume_mounts(container: &Container, images: &BTreeMap<String, String>) -> Option<Vec<VolumeMountStatus>> {
    let status = |mount: &VolumeMount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only.filter(|read_only| *read_only),
        // Mounts below a volume stay as they are: no recursive read-only mounts here.
        recursive_read_only: (mount.read_only == Some(true)).then(|| "Disabled".to_owned()),
        volume_status: images
            .get(&mount.name)
            .map(|image| VolumeStatus { image: Some(ImageVolumeStatus { image_ref: image.clone() }) }),
    };
    let statuses: Vec<_> = container.volume_mounts.iter().flatten().map(status).collect();
    (!statuses.is_empty()).then_some(statuses)
}

fn as_container(ephemeral: &EphemeralContainer) -> Container {
    Container {
        name: ephemeral.name.clone(),
        image: ephemeral.image.clone(),
        resources: ephemeral.resources.clone(),
        volume_mounts: ephemeral.volume_mounts.clone(),
        // An ephemeral container runs once.
        restart_policy: Some("Never".to_owned()),
        ..Container::default()
    }
}
