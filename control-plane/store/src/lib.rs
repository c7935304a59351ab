//! Ordered keys with one 64-bit revision: what the API server keeps everything in. One trait ([`Store`]), several engines, one meaning.
//!
//! Invariant: a value is bytes, and is never parsed here. Nothing here knows what a Kubernetes object is.
//!
//! The contract is that of design "etcd's, without etcd": see each method of [`Store`]. `conformance` holds every engine to it.

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod embedded;
mod error;
pub mod maintenance;
mod types;

use async_trait::async_trait;
pub use error::{Error, Result};
pub use types::{At, Batch, Condition, Entry, Event, EventKind, Events, Op, Page, Range, Revision, Write};

/// A store engine. All methods may be called from any number of tasks at once.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The entry of a key, as of `at`. `Ok(None)` when there was none.
    ///
    /// # Errors
    /// [`Error::Compacted`] when `at` names a revision whose history is gone, [`Error::Future`] when it has not been reached in time.
    async fn get(&self, key: &[u8], at: At) -> Result<Option<Entry>>;

    /// Up to `limit` entries (0: all) of a range in key order, after the key `after` if one is given. All pages at one revision are one snapshot:
    /// the first page says which ([`Page::revision`]), the next ones ask for it by [`At::Exactly`].
    ///
    /// # Errors
    /// As for [`Store::get`].
    async fn list(&self, range: &Range, at: At, limit: usize, after: Option<&[u8]>) -> Result<Page>;

    /// Commits all writes of a batch, or none. The i-th write gets revision `first + i`, where `first` is what is returned.
    /// When this returns `Ok`, the batch survives a SIGKILL and a power cut. An outcome that is not known is settled before this returns.
    /// An empty batch commits nothing, and gives the newest revision.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a condition does not hold (nothing was written), [`Error::TooLarge`], [`Error::Full`], [`Error::Unavailable`]
    /// (before anything was written; or, when the disk fails so that even looking is not possible, saying that the outcome is not known),
    /// [`Error::Io`] for a batch that names a key twice, [`Error::Closed`].
    async fn commit(&self, batch: Batch) -> Result<Revision>;

    /// Every change of a range with a revision above `from`, once, in order, each with the value before it; and progress marks.
    /// `from` may be in the future: then nothing is told up to and with it.
    ///
    /// # Errors
    /// [`Error::Compacted`] when changes after `from` are gone.
    async fn watch(&self, range: Range, from: Revision) -> Result<Box<dyn Events>>;

    /// The newest revision of the domain that the range belongs to; every commit acknowledged before the call is at or below it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn current(&self, range: &Range) -> Result<Revision>;

    /// Forgets history before a revision: values that were overwritten or deleted before it, and changes up to it.
    ///
    /// # Errors
    /// [`Error::Future`] when the revision has not been reached.
    async fn compact(&self, before: Revision) -> Result<()>;
}
