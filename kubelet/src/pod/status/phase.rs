//! The phase that follows from the containers' statuses (upstream: `getPhase`).

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, PodSpec, PodStatus};

use super::containers::{by_name, is_sidecar};
use super::restart::should_restart;

/// The phase. `terminal` says that nothing will be started any more, `initialized` that a main container ran in this
/// life of the pod.
pub(super) fn phase(spec: &PodSpec, status: &PodStatus, terminal: bool, initialized: bool) -> &'static str {
    let mut counts = Counts::default();
    let inits = status.init_container_statuses.as_deref().unwrap_or_default();
    for container in spec.init_containers.iter().flatten() {
        let status = by_name(inits, &container.name);
        if is_sidecar(container) { counts.sidecar(status) } else { counts.init(container, spec, status) }
    }
    let mains = status.container_statuses.as_deref().unwrap_or_default();
    for container in &spec.containers {
        counts.main(container, spec, by_name(mains, &container.name));
    }
    counts.phase(terminal, initialized)
}

/// What became of a container, as its status tells it.
enum Fate<'a> {
    Running,
    Terminated(&'a ContainerStateTerminated),
    /// It waits to be started again after it ended so.
    Restarting(&'a ContainerStateTerminated),
    Waiting,
    Unknown,
}

fn fate(status: Option<&ContainerStatus>) -> Fate<'_> {
    let Some(state) = status.and_then(|status| status.state.as_ref()) else { return Fate::Unknown };
    let last = status.and_then(|status| status.last_state.as_ref()?.terminated.as_ref());
    match (&state.running, &state.terminated, last) {
        (Some(_), _, _) => Fate::Running,
        (None, Some(terminated), _) => Fate::Terminated(terminated),
        (None, None, Some(last)) => Fate::Restarting(last),
        (None, None, None) => Fate::Waiting,
    }
}

#[derive(Default)]
struct Counts {
    pending_inits: usize,
    pending_sidecars: usize,
    failed_for_good: usize,
    unknown: usize,
    running: usize,
    waiting: usize,
    stopped: usize,
    stopped_for_good: usize,
    succeeded: usize,
}

impl Counts {
    fn init(&mut self, container: &Container, spec: &PodSpec, status: Option<&ContainerStatus>) {
        match fate(status) {
            Fate::Running | Fate::Waiting | Fate::Unknown => self.pending_inits += 1,
            Fate::Terminated(end) | Fate::Restarting(end) => {
                // One that failed and runs again keeps the main containers waiting, which makes the pod pending.
                let failed = end.exit_code != 0;
                self.failed_for_good += usize::from(failed && !should_restart(container, spec, end.exit_code));
            }
        }
    }

    fn sidecar(&mut self, status: Option<&ContainerStatus>) {
        match fate(status) {
            Fate::Running => {
                let started = status.and_then(|status| status.started) == Some(true);
                self.pending_sidecars += usize::from(!started);
                self.running += 1;
            }
            Fate::Waiting => {
                self.pending_sidecars += 1;
                self.waiting += 1;
            }
            Fate::Unknown => self.unknown += 1,
            // A sidecar that ended says nothing of the pod.
            Fate::Terminated(_) | Fate::Restarting(_) => {}
        }
    }

    fn main(&mut self, container: &Container, spec: &PodSpec, status: Option<&ContainerStatus>) {
        match fate(status) {
            Fate::Running => self.running += 1,
            Fate::Waiting => self.waiting += 1,
            Fate::Unknown => self.unknown += 1,
            Fate::Terminated(end) => {
                self.stopped += 1;
                self.stopped_for_good += usize::from(!should_restart(container, spec, end.exit_code));
                self.succeeded += usize::from(end.exit_code == 0);
            }
            Fate::Restarting(end) => {
                self.stopped += 1;
                self.stopped_for_good += usize::from(!should_restart(container, spec, end.exit_code));
            }
        }
    }

    fn phase(&self, terminal: bool, initialized: bool) -> &'static str {
        let ended = if self.stopped == self.succeeded { "Succeeded" } else { "Failed" };
        if self.failed_for_good > 0 {
            "Failed"
        } else if self.pending_inits > 0 || self.waiting > 0 || (self.pending_sidecars > 0 && !initialized) {
            "Pending"
        } else if self.running > 0 && self.unknown == 0 {
            "Running"
        } else if self.stopped > 0 && self.unknown == 0 {
            if !terminal && self.stopped != self.stopped_for_good { "Running" } else { ended }
        } else {
            "Pending"
        }
    }
}
