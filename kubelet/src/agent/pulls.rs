//! The images of a pod: pulled in tasks, waited for, and tried again with back-off.
//!
//! Invariant: at most one pull an image, policy and pod at a time; an image counts for one start, so that `Always` asks the
//! registry before each.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use skep_client::EventType;
use tracing::{debug, warn};

use super::node::Node;
use super::worker::{Done, Worker};
use crate::images::{Image, ImageError, Keyring, PullPolicy, Reference};
use crate::objects::Freshness;

/// The first and the longest wait after a failed pull (upstream: `imageBackOff`).
const BACK_OFF: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(10), SignedDuration::from_secs(300));

/// How long a container shows why its pull failed before it shows that it waits.
const SHOWN: SignedDuration = SignedDuration::from_secs(2);
/// How old a pull secret may be: many pods share one.
const RECENT: std::time::Duration = std::time::Duration::from_secs(30);

/// An image that a container or a volume of a pod asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    /// What the pod calls it.
    pub(super) reference: String,
    /// When it is pulled.
    pub(super) policy: PullPolicy,
    /// It is mounted: its events are the pod's, not a container's.
    pub(super) volume: bool,
}

impl Wanted {
    /// A container's own.
    pub(super) fn of(container: &Container) -> Self {
        let policy = policy(container.image_pull_policy.as_deref());
        Self { reference: container.image.clone().unwrap_or_default(), policy, volume: false }
    }

    /// Whom events about it regard.
    fn regarding<'a>(&self, container: &'a str) -> Option<&'a str> {
        (!self.volume).then_some(container)
    }
}

/// A pull that ended.
pub(super) struct Pulled {
    container: String,
    wanted: Wanted,
    result: Result<Image, ImageError>,
}

/// By image, how far it is.
#[derive(Default)]
pub(super) struct Pulls {
    states: HashMap<Wanted, State>,
    failures: HashMap<Wanted, u32>,
}

enum State {
    Pulling,
    Ready(Box<Image>),
    /// The error is shown until `shown_until`, then the back-off until its end.
    Failed {
        shown_until: Timestamp,
        until: Timestamp,
        message: String,
        told: bool,
    },
}

impl Worker {
    /// An image for a container that is about to start; none while it is pulled or waited for.
    pub(super) fn image(&mut self, container: &str, wanted: Wanted, now: Timestamp) -> Option<Image> {
        match self.pulls.states.get_mut(&wanted) {
            Some(State::Pulling) => return None,
            Some(State::Ready(image)) => return Some((**image).clone()),
            Some(State::Failed { shown_until, .. }) if *shown_until > now => {
                let shown_until = *shown_until;
                self.wake_by(Some(shown_until));
                return None;
            }
            Some(State::Failed { until, message, told, .. }) if *until > now => {
                let (until, message, told) = (*until, message.clone(), std::mem::replace(told, true));
                let note = format!("Back-off pulling image \"{}\"", wanted.reference);
                self.note_wait(container, "ImagePullBackOff", format!("{note}: {message}"));
                if !told {
                    let pod = self.pod.clone();
                    self.node.event(&pod, wanted.regarding(container), EventType::Normal, "BackOff", note);
                }
                self.wake_by(Some(until));
                return None;
            }
            Some(State::Failed { .. }) | None => {}
        }
        self.pull(container, wanted);
        None
    }

    /// An image that was used for a start: the next start asks for it again.
    pub(super) fn used(&mut self, wanted: &Wanted) {
        self.pulls.states.remove(wanted);
    }

    fn pull(&mut self, container: &str, wanted: Wanted) {
        self.pulls.states.insert(wanted.clone(), State::Pulling);
        let (node, pod, container) = (self.node.clone(), self.pod.clone(), container.to_owned());
        self.tasks.spawn(async move {
            let result = fetch(&node, &pod, wanted.regarding(&container), &wanted.reference, wanted.policy).await;
            Done::Pull(Box::new(Pulled { container, wanted, result }))
        });
    }

    /// Takes a pull's end.
    pub(super) fn pulled(&mut self, pulled: Pulled) {
        let Pulled { container, wanted, result } = pulled;
        let now = Timestamp::now();
        let pod = self.pod.clone();
        match result {
            Ok(image) => {
                self.pulls.failures.remove(&wanted);
                debug!(pod = %self.shown(), image = wanted.reference, "image ready");
                self.pulls.states.insert(wanted, State::Ready(Box::new(image)));
            }
            Err(error) => {
                let failures = self.pulls.failures.entry(wanted.clone()).or_default();
                let wait = (BACK_OFF.0 * (1 << (*failures).min(5))).min(BACK_OFF.1);
                *failures = failures.saturating_add(1);
                let until = now.checked_add(wait).unwrap_or(Timestamp::MAX);
                let message = format!("{}: {error}", error.reason());
                let (reason, note) = error.event(&wanted.reference);
                self.node.event(&pod, wanted.regarding(&container), EventType::Warning, reason, note);
                let note = format!("Error: {}", error.reason());
                self.node.event(&pod, Some(&container), EventType::Warning, "Failed", note);
                self.note_wait(&container, error.reason(), error.to_string());
                let shown_until = now.checked_add(SHOWN).unwrap_or(Timestamp::MAX);
                self.pulls.states.insert(wanted, State::Failed { shown_until, until, message, told: false });
            }
        }
    }
}

/// What the API calls when an image is pulled.
pub(super) fn policy(text: Option<&str>) -> PullPolicy {
    match text {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        // The API server sets Always for `:latest`, and admits no other value.
        Some(_) | None => PullPolicy::IfNotPresent,
    }
}

/// The image, pulled with the pod's secrets if it has to be.
async fn fetch(
    node: &Node,
    pod: &Pod,
    container: Option<&str>,
    reference: &str,
    policy: PullPolicy,
) -> Result<Image, ImageError> {
    let mut keyring = Keyring::default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let secrets = pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.as_ref());
    for secret in secrets.into_iter().flatten() {
        // The pull goes on with what is there, as upstream's does: the image may be public.
        let problem = match node.objects.secret(namespace, &secret.name, Freshness::Within(RECENT)).await {
            Ok(Some(found)) => keyring.add_secret(&found).err(),
            Ok(None) => Some("not found".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem {
            let note = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                secret.name
            );
            warn!(namespace, secret = secret.name, problem, "a pull secret can't be used");
            node.event(pod, None, EventType::Warning, "FailedToRetrieveImagePullSecret", note);
        }
    }
    let auth = Reference::parse(reference).map(|parsed| keyring.lookup(&parsed)).unwrap_or_default();
    if let Some(image) = node.images.present(reference, policy, &auth).await? {
        node.event(pod, container, EventType::Normal, "Pulled", node.images.present_message(reference));
        return Ok(image);
    }
    node.event(pod, container, EventType::Normal, "Pulling", format!("Pulling image \"{reference}\""));
    let pulled = node.images.pull(reference, policy, &auth).await?;
    node.event(pod, container, EventType::Normal, "Pulled", pulled.message(reference));
    Ok(pulled.image)
}
