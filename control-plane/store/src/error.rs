//! What can go wrong, by what the caller can do about it.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::Revision;

/// The result of a store operation.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A write's condition does not hold; nothing was written.
    #[error("key {key:?} is at revision {current:?}, not as the write's condition says")]
    Conflict {
        /// The first key whose condition failed.
        key: Bytes,
        /// The revision of its value; `None` if it has none.
        current: Option<Revision>,
    },
    /// The history asked for is gone.
    #[error("revision has been compacted; the oldest that can be read is {oldest}")]
    Compacted {
        /// The oldest revision that can still be asked for.
        oldest: Revision,
    },
    /// A revision was asked for that does not exist yet.
    #[error("revision {requested} is in the future; the store is at {current}")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// What is there.
        current: Revision,
    },
    /// A key, a value or a batch is over the limit.
    #[error("{what} of {size} bytes is over the limit of {limit}")]
    TooLarge {
        /// `key`, `value` or `batch`.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The disk is full: writes fail until there is room, reads go on.
    #[error("the store's disk is full: {0}")]
    Full(String),
    /// The store can't be reached, or is overloaded.
    #[error("the store is unavailable: {why}")]
    Unavailable {
        /// What failed.
        why: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// A file is damaged. The engine refuses to start.
    #[error("{} is damaged at byte {offset}: {why}; `skep-control-plane store verify` tells more, `store restore` brings back a backup", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong there.
        why: String,
    },
    /// Another process has the data directory.
    #[error("{} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The directory was written by a version that this one does not know.
    #[error("{} has format version {found}; this version reads up to {known}", path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What is known.
        known: u32,
    },
    /// A watcher was too slow and has been ended: list and watch again.
    #[error("the watcher fell too far behind and was ended")]
    Lagging,
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
    /// The directory can't be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}
