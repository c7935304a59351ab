//! The words of the contract.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::Result;

/// A point in the history of the store: 0 is before everything; each write gets the next one, with no gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which state a read wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Linearizable: everything acknowledged before the call.
    Latest,
    /// Any state at or after this revision; the read waits for it (for a bounded time).
    NotBefore(Revision),
    /// The state at exactly this revision, repeatable until it is compacted.
    Exactly(Revision),
}

/// A half-open range of keys: `start <= key < end`; an empty `end` is the end of all keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First key that belongs to it.
    pub start: Bytes,
    /// First key that no longer does.
    pub end: Bytes,
}

impl Range {
    /// All keys.
    #[must_use]
    pub const fn all() -> Self {
        Self { start: Bytes::new(), end: Bytes::new() }
    }

    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start: Bytes = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                break;
            }
        }
        Self { start, end: end.into() }
    }

    /// Whether a key belongs to it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && (self.end.is_empty() || key < &self.end[..])
    }
}

/// A key's value, and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value, as it was written.
    pub value: Bytes,
    /// The revision of the write that made this value (etcd's `mod_revision`).
    pub revision: Revision,
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page {
    /// In key order.
    pub entries: Vec<Entry>,
    /// The revision of the snapshot.
    pub revision: Revision,
    /// How many entries of the range follow after this page.
    pub remaining: u64,
}

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Anything.
    None,
    /// The key has no value.
    Absent,
    /// The key's value was written at this revision.
    At(Revision),
}

/// What a write does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets the value; with a time to live the key goes away by itself, as a delete that watchers see.
    Put {
        /// The new value.
        value: Bytes,
        /// Counted from the commit.
        ttl: Option<Duration>,
    },
    /// Removes the key. With [`Condition::None`] a key that is not there is no error, and takes a revision all the same.
    Delete,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key; at most 4 KiB.
    pub key: Bytes,
    /// What to do.
    pub op: Op,
    /// Under which condition.
    pub condition: Condition,
}

/// Writes that happen together. A key occurs once.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// In the order of their revisions.
    pub writes: Vec<Write>,
}

impl From<Write> for Batch {
    fn from(write: Write) -> Self {
        Self { writes: vec![write] }
    }
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It has this value now.
    Put(Bytes),
    /// It is gone.
    Delete,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision of the change.
    pub revision: Revision,
    /// The key.
    pub key: Bytes,
    /// What happened.
    pub kind: EventKind,
    /// The value before, with its revision; `None` if there was none.
    pub previous: Option<(Bytes, Revision)>,
}

/// A running watch. Dropping it ends it.
#[async_trait]
pub trait Events: Send + 'static {
    /// Waits for changes: all that are ready, in order, and the revision up to which the watcher has now seen everything (a progress mark,
    /// at or above the last change; the list may be empty when only the mark moved). Cancel-safe.
    ///
    /// # Errors
    /// [`crate::Error::Lagging`] once the watcher was too slow and has been ended; [`crate::Error::Closed`] when the store shuts down.
    async fn next(&mut self) -> Result<(Vec<Event>, Revision)>;
}
