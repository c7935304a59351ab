//! What a watcher sees: changes, filtered before they are queued, in a queue of its own that is bounded. A watcher whose queue is full is cut off.

use std::sync::Arc;
use std::sync::OnceLock;

use bytes::{Bytes, BytesMut};
use skep_store::Revision;
use tokio::sync::mpsc;

use crate::object::{Object, Shared};

/// How many changes may wait for a watcher. One that is further behind is cut off, and lists again.
pub(super) const QUEUE: usize = 1024;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new (or new to this watcher's selector).
    Added,
    /// It has changed.
    Modified,
    /// It is gone (or gone from this watcher's selector).
    Deleted,
}

impl ChangeKind {
    /// The word of a watch event's `type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object, shared by all watchers.
#[derive(Debug)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The object after it; for a deletion, its last state at the revision of the deletion.
    pub object: Shared,
    /// The object before it.
    pub previous: Option<Shared>,
    line: OnceLock<Bytes>,
    frame: OnceLock<Bytes>,
}

impl Change {
    /// A change.
    #[must_use]
    pub fn new(kind: ChangeKind, object: Shared, previous: Option<Shared>) -> Self {
        Self { kind, object, previous, line: OnceLock::new(), frame: OnceLock::new() }
    }

    /// The revision of the change.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.object.revision
    }

    /// The change as a line of a JSON watch stream: encoded on first demand, then shared by every watcher.
    #[must_use]
    pub fn line(&self) -> Bytes {
        self.line.get_or_init(|| event_line(self.kind, &self.object)).clone()
    }

    /// The change as a frame of a protobuf watch stream: made on first demand, then shared by every watcher.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn frame<E>(&self, make: impl FnOnce() -> Result<Bytes, E>) -> Result<Bytes, E> {
        if let Some(made) = self.frame.get() {
            return Ok(made.clone());
        }
        let made = make()?;
        Ok(self.frame.get_or_init(|| made).clone())
    }
}

/// An object as a line of a JSON watch stream.
#[must_use]
pub(crate) fn event_line(kind: ChangeKind, object: &Object) -> Bytes {
    let mut line = BytesMut::with_capacity(object.size() + 40);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.as_str().as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    object.write_json(&mut line);
    line.extend_from_slice(b"}\n");
    line.freeze()
}

/// A selection of objects.
pub type Matches = Box<dyn Fn(&Object) -> bool + Send + Sync>;

/// Which objects a list or a watch is about.
pub struct Filter {
    /// What the key begins with (a whole resource, or a namespace of it).
    pub prefix: Bytes,
    /// Selectors; `None` matches everything.
    pub matches: Option<Matches>,
}

impl Filter {
    /// Whether an object is selected.
    #[must_use]
    pub fn selects(&self, object: &Object) -> bool {
        object.key.starts_with(&self.prefix) && self.matches.as_ref().is_none_or(|matches| matches(object))
    }

    /// What a change is to this watcher: entering the selection is an addition, leaving it a deletion, whatever it was to the object.
    #[must_use]
    pub fn seen(&self, change: &Arc<Change>) -> Option<Seen> {
        if !change.object.key.starts_with(&self.prefix) {
            return None;
        }
        let Some(matches) = &self.matches else {
            return Some(Seen::Whole(change.clone()));
        };
        let before = change.previous.as_ref().is_some_and(|object| matches(object));
        let now = change.kind != ChangeKind::Deleted && matches(&change.object);
        match (before, now, change.kind) {
            (false, false, _) => None,
            (true, true, _) | (true, false, ChangeKind::Deleted) | (false, true, ChangeKind::Added) => {
                Some(Seen::Whole(change.clone()))
            }
            (false, true, _) => Some(Seen::As(ChangeKind::Added, change.object.clone())),
            (true, false, _) => {
                // Clients expect the last state that they knew, at the revision at which it left.
                let last = change.previous.as_ref().unwrap_or(&change.object);
                Some(Seen::As(ChangeKind::Deleted, Arc::new(last.at(change.revision()))))
            }
        }
    }
}

/// A change as one watcher sees it.
#[derive(Clone, Debug)]
pub enum Seen {
    /// As it was: the shared line is sent.
    Whole(Arc<Change>),
    /// An object that came into or left the selection.
    As(ChangeKind, Shared),
}

impl Seen {
    /// Kind and object.
    #[must_use]
    pub fn parts(&self) -> (ChangeKind, &Shared) {
        match self {
            Self::Whole(change) => (change.kind, &change.object),
            Self::As(kind, object) => (*kind, object),
        }
    }

    /// The line of a JSON watch stream.
    #[must_use]
    pub fn line(&self) -> Bytes {
        match self {
            Self::Whole(change) => change.line(),
            Self::As(kind, object) => event_line(*kind, object),
        }
    }
}

/// The cache's side of a watcher.
pub struct Subscription {
    pub(super) filter: Arc<Filter>,
    pub(super) queue: mpsc::Sender<Seen>,
}

/// The watcher's side. Dropping it ends the subscription.
pub struct Watching {
    /// Which objects it is about.
    pub filter: Arc<Filter>,
    pub(super) queue: mpsc::Receiver<Seen>,
}

impl Watching {
    /// The next change; `None` when the watcher was too slow and has been cut off. Cancel-safe.
    pub async fn next(&mut self) -> Option<Seen> {
        self.queue.recv().await
    }

    /// The next change that already waits.
    pub fn try_next(&mut self) -> Option<Seen> {
        self.queue.try_recv().ok()
    }
}
