//! Stopping a container: preStop, the stop signal, and SIGKILL at the end of the grace period, in a task of the worker.
//!
//! Invariant: a stop that is under way is only ever hurried, never begun twice.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Container;
use skep_client::EventType;
use tokio::sync::watch;
use tokio::time::Instant;

use super::node::Node;
use super::worker::{Done, Worker};
use crate::pod::lifecycle::HookTarget;
use crate::pod::observation::ContainerState;

const SIGTERM: u32 = 15;
const SIGKILL: u32 = 9;
/// What each container gets, even when its pod's deletion waived the grace.
const LEAST_GRACE: Duration = Duration::from_secs(1);
/// What is left for the stop signal after a preStop hook that took all (upstream: `minimumGracePeriodInSeconds`).
const AFTER_PRE_STOP: Duration = Duration::from_secs(2);

/// The stops that are under way, by container.
#[derive(Default)]
pub(super) struct Stops {
    deadlines: HashMap<String, watch::Sender<Instant>>,
}

impl Stops {
    /// Whether the container is being stopped.
    pub(super) fn contains(&self, container: &str) -> bool {
        self.deadlines.contains_key(container)
    }

    /// The stop of a container ended.
    pub(super) fn ended(&mut self, container: &str) {
        self.deadlines.remove(container);
    }

    /// Lets no stop that is under way last longer than `grace` from now.
    pub(super) fn hurry(&self, grace: &SignedDuration) {
        let Ok(grace) = Duration::try_from(*grace) else { return };
        let Some(latest) = Instant::now().checked_add(grace) else { return };
        for deadline in self.deadlines.values() {
            deadline.send_if_modified(|deadline| {
                let sooner = latest < *deadline;
                if sooner {
                    *deadline = latest;
                }
                sooner
            });
        }
    }
}

impl Worker {
    /// Begins to stop a container.
    pub(super) fn stop_container(&mut self, name: &str, grace: SignedDuration) {
        if self.stops.contains(name) {
            return;
        }
        let Some(seen) = self.seen.containers.get_mut(name) else { return };
        if let ContainerState::Running { stopping, .. } = &mut seen.state {
            *stopping = true;
        }
        let id = seen.id.clone();
        let gave_up = self.node.probes.state(&self.uid, name).and_then(|state| state.gave_up);
        let own = gave_up.and_then(|gave_up| gave_up.grace_seconds).map(SignedDuration::from_secs);
        let deleting = self.pod.metadata.deletion_timestamp.is_some() || self.gone;
        // A pod whose grace is over or was waived gets what upstream gives at least.
        let grace = Duration::try_from(own.filter(|_| !deleting).unwrap_or(grace)).unwrap_or_default().max(LEAST_GRACE);
        let note = match gave_up {
            Some(gave_up) if !deleting => gave_up.note(name),
            Some(_) | None => format!("Stopping container {name}"),
        };
        let pod = self.pod.clone();
        self.node.event(&pod, Some(name), EventType::Normal, "Killing", note);
        if deleting {
            self.node.probes.quiet(&self.uid);
        }
        let (deadline, changes) = watch::channel(Instant::now() + grace);
        self.stops.deadlines.insert(name.to_owned(), deadline);
        let container = self.container(name).map(Cow::into_owned);
        let of_image = self.signals.get(name).map_or("", String::as_str);
        let signal = container.as_ref().map_or(SIGTERM, |container| stop_signal(container, of_image));
        let (node, name, address) = (self.node.clone(), name.to_owned(), self.seen.addresses.first().copied());
        self.tasks.spawn(async move {
            if let Some(container) = &container {
                let target = HookTarget { pod: &pod, container, container_id: &id, address };
                node.hooks.pre_stop(target, grace).await;
            }
            let hooked = container.and_then(|container| container.lifecycle?.pre_stop).is_some();
            let least = if hooked { AFTER_PRE_STOP } else { Duration::ZERO };
            let result = signal_and_wait(&node, &id, signal, changes, least).await;
            Done::Stop(name, result)
        });
    }
}

async fn signal_and_wait(
    node: &Node,
    id: &str,
    signal: u32,
    deadline: watch::Receiver<Instant>,
    least: Duration,
) -> Result<(), String> {
    let ended = node.containerd.wait(id);
    tokio::pin!(ended);
    // One that has ended already needs no signal.
    let _ = node.containerd.kill(id, signal).await;
    // What a preStop hook took away of the grace, the signal is given back a little of.
    tokio::select! {
        _ = &mut ended => return Ok(()),
        () = passed(deadline, Instant::now() + least) => {}
    }
    match node.containerd.kill(id, SIGKILL).await {
        Err(error) if !error.is_not_found() => return Err(error.to_string()),
        Err(_) | Ok(()) => {}
    }
    let _ = ended.await;
    Ok(())
}

/// Waits until the deadline, which may come nearer meanwhile, but not shorter than until `least` unless it did.
async fn passed(mut deadline: watch::Receiver<Instant>, least: Instant) {
    let mut at = (*deadline.borrow_and_update()).max(least);
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(at) => return,
            changed = deadline.changed() => match changed {
                Ok(()) => at = *deadline.borrow_and_update(),
                // The worker saw the container's end, or is gone itself: nothing will hurry any more.
                Err(_) => return tokio::time::sleep_until(at).await,
            },
        }
    }
}

/// The number of the signal that ends a container: its own `stopSignal`, its image's, or SIGTERM.
fn stop_signal(container: &Container, of_image: &str) -> u32 {
    let own = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    own.and_then(signal_number).or_else(|| signal_number(of_image)).unwrap_or(SIGTERM)
}

/// A signal by number or by name, with or without `SIG` (`signal(7)`, x86-64 and AArch64).
fn signal_number(text: &str) -> Option<u32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    /// `SIGRTMIN` as the C library counts it, and the last.
    const REAL_TIME: (u32, u32) = (34, 64);
    let text = text.trim().to_uppercase();
    if let Ok(number) = text.parse::<u32>() {
        return (1..=REAL_TIME.1).contains(&number).then_some(number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return u32::try_from(index + 1).ok();
    }
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => REAL_TIME.0,
        (Some(offset), _) => REAL_TIME.0.checked_add(offset.strip_prefix('+')?.parse().ok()?)?,
        (_, Some("")) => REAL_TIME.1,
        (_, Some(offset)) => REAL_TIME.1.checked_sub(offset.strip_prefix('-')?.parse().ok()?)?,
        (None, None) => return None,
    };
    (REAL_TIME.0..=REAL_TIME.1).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_known_by_name_and_number() {
        let known = ["SIGTERM", "term", "9", "SIGRTMIN+3", "RTMAX-1", "SIGSYS"].map(signal_number);
        assert_eq!(known, [15, 15, 9, 37, 63, 31].map(Some));
        assert_eq!(["", "SIGNOPE", "0", "65", "SIGRTMIN+40"].map(signal_number), [None; 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hurried_stop_ends_at_the_nearer_deadline() {
        let begun = Instant::now();
        let (sender, receiver) = watch::channel(begun + Duration::from_secs(30));
        let mut stops = Stops::default();
        stops.deadlines.insert("main".to_owned(), sender);
        stops.hurry(&SignedDuration::from_secs(3));
        passed(receiver, begun).await;
        assert_eq!(begun.elapsed().as_secs(), 3);
    }
}
