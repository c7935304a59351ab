//! Events (`events.k8s.io/v1`) about what a component did or could not do.
//!
//! [`EventRecorder::record`] never waits and never fails: it puts the event into a bounded queue, and one task writes it.
//! When the queue is full the event is dropped and counted in the log: an event is a courtesy, not a record.
//!
//! Like events become one with a `series` (a count and the last time); many similar ones become one that says so; and an
//! object that has too many is limited, all by upstream's numbers (`client-go/tools/record/events_cache.go`).
//!
//! Data flow: component → queue → `correlate` (pure) → create or patch of an Event.

mod correlate;

use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use correlate::{Correlator, Verdict};

/// How many events may wait to be written.
const QUEUE: usize = 1024;
/// The longest note that the API server takes, in bytes.
const NOTE_LIMIT: usize = 1024;

/// An event's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Information.
    Normal,
    /// Something needs attention.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What is recorded: one call of [`EventRecorder::record`].
#[derive(Clone, Debug, PartialEq)]
struct Occurrence {
    regarding: ObjectReference,
    related: Option<ObjectReference>,
    r#type: EventType,
    reason: String,
    action: String,
    note: String,
}

/// Records events in the name of one component. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    queue: Option<mpsc::Sender<Occurrence>>,
}

impl EventRecorder {
    /// A recorder for `controller` (`deployment-controller`) of this `instance` (usually the host's name), and the task
    /// that writes, which the caller owns. It ends on `shutdown`; events that still wait are dropped then.
    pub fn new(
        client: Client,
        controller: &str,
        instance: &str,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = Writer { client, controller: controller.to_owned(), instance: instance.to_owned() };
        (Self { queue: Some(sender) }, writer.run(receiver, shutdown))
    }

    /// A recorder that drops all, for tests and for dry runs.
    #[must_use]
    pub fn none() -> Self {
        Self { queue: None }
    }

    /// Records that something happened to `regarding`.
    ///
    /// `reason` is a CamelCase word (`ScalingReplicaSet`), `action` what was tried (`Scaling`), `note` the text for people,
    /// cut at 1024 bytes.
    pub fn record(&self, regarding: ObjectReference, r#type: EventType, reason: &str, action: &str, note: String) {
        self.record_related(regarding, None, r#type, reason, action, note);
    }

    /// As [`EventRecorder::record`], with a second object that has a part in it.
    pub fn record_related(
        &self,
        regarding: ObjectReference,
        related: Option<ObjectReference>,
        r#type: EventType,
        reason: &str,
        action: &str,
        mut note: String,
    ) {
        let Some(queue) = &self.queue else { return };
        cut_note(&mut note);
        let occurrence =
            Occurrence { regarding, related, r#type, reason: reason.to_owned(), action: action.to_owned(), note };
        if let Err(error) = queue.try_send(occurrence) {
            debug!(reason, %error, "dropped an event: its queue is full");
        }
    }
}

struct Writer {
    client: Client,
    controller: String,
    instance: String,
}

impl Writer {
    async fn run(self, mut queue: mpsc::Receiver<Occurrence>, shutdown: CancellationToken) {
        let mut correlator = Correlator::default();
        let mut serial = 0u64;
        loop {
            let occurrence = tokio::select! {
                () = shutdown.cancelled() => return,
                next = queue.recv() => match next {
                    Some(occurrence) => occurrence,
                    None => return,
                },
            };
            let now = Timestamp::now();
            let namespace = occurrence.regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
            let api = Api::<Event>::namespaced(self.client.clone(), &namespace);
            let verdict = correlator.observe(occurrence, Instant::now());
            let outcome = match verdict {
                Verdict::Drop => Ok(()),
                Verdict::First { key, occurrence } => {
                    serial = serial.wrapping_add(1);
                    let event = self.event(*occurrence, &namespace, now, serial);
                    let created = api.create(&PostParams::default(), &event).await;
                    created.map(|event| correlator.written(key, event.metadata.name.unwrap_or_default()))
                }
                Verdict::Repeat { key, name, count } => {
                    let series = serde_json::json!({"series": {"count": count, "lastObservedTime": MicroTime(now)}});
                    let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(&series)).await;
                    if patched.is_err() {
                        correlator.forget(&key);
                    }
                    patched.map(|_| ())
                }
            };
            if let Err(error) = outcome {
                warn!(controller = %self.controller, %error, "can't write an event");
            }
        }
    }

    fn event(&self, occurrence: Occurrence, namespace: &str, now: Timestamp, serial: u64) -> Event {
        let object = occurrence.regarding.name.as_deref().unwrap_or_default();
        let nanoseconds = u64::try_from(now.as_nanosecond()).unwrap_or_default().wrapping_add(serial);
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{object}.{nanoseconds:x}")),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            regarding: Some(occurrence.regarding),
            related: occurrence.related,
            type_: Some(occurrence.r#type.as_str().to_owned()),
            reason: Some(occurrence.reason),
            action: Some(occurrence.action),
            note: Some(occurrence.note),
            reporting_controller: Some(self.controller.clone()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

/// Cuts a note to what the API server takes, between two characters.
fn cut_note(note: &mut String) {
    let mut end = note.len().min(NOTE_LIMIT);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note.truncate(end);
}
