//! The embedded engine: the default, with nothing to install. One process, one data directory.
//!
//! ```text
//! commit ─► queue ─► writer thread ─► log (one fdatasync a group) ─► window ─► view ─► answers
//!                                                                       │        └─► get, list
//!                                                                       └─► dispatcher thread ─► watchers' queues
//! ```
//!
//! Latest values are in memory: a read loads the current `view::View`, which never changes, and waits for nobody. The log has every retained change;
//! it is read at the start, for watches from far back and for reads at an old revision.
//!
//! Invariant: nothing is visible before it is durable, and revisions become visible in order.

mod history;
mod hub;
pub(crate) mod load;
pub(crate) mod log;
mod metrics;
mod options;
pub(crate) mod record;
mod retention;
pub(crate) mod tree;
mod view;
mod watch;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch as latest};

use self::hub::{Group, Hub, Limits};
use self::log::{Directory, Log};
pub use self::metrics::{Counter, Histogram, Metrics};
pub use self::options::{Clock, Options};
use self::view::View;
use self::watch::Watch;
use self::writer::{Request, Writer};
use crate::{At, Batch, Entry, Error, Events, Op, Page, Range, Result, Revision, Store};

/// The longest key.
pub const MAX_KEY: usize = 4096;
/// Groups that may wait for the dispatcher before the writer waits for it.
const DISPATCH_QUEUE: usize = 64;
/// How long opening the log anew waits for readers of the old one.
const REOPEN_WAIT: Duration = Duration::from_secs(5);

/// A store in a directory of this machine. Dropping it closes it.
pub struct Embedded {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the engine's threads and readers have in common.
pub(crate) struct Shared {
    options: Options,
    directory: Directory,
    log: ArcSwapOption<Log>,
    view: ArcSwap<View>,
    /// The newest visible revision, for those who wait for one.
    visible: latest::Sender<u64>,
    hub: Hub,
    pins: history::Pins,
    metrics: Arc<Metrics>,
    compacted: AtomicU64,
    /// Bytes of changes above the compacted revision.
    history: AtomicU64,
    compacting: Mutex<()>,
}

/// A state of the store for a reader that takes its time.
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    view: Arc<View>,
}

/// Sizes of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// The newest revision.
    pub revision: Revision,
    /// The oldest revision that can be read.
    pub oldest: Revision,
    /// Keys that have a value.
    pub keys: u64,
    /// Bytes of records above the oldest revision.
    pub history_bytes: u64,
    /// Bytes on the disk.
    pub disk_bytes: u64,
    /// Running watches that are up to date with memory.
    pub watchers: u64,
}

impl Embedded {
    /// Opens the store in a directory, and makes it if there is none.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Format`], [`Error::Corrupt`], [`Error::Full`], [`Error::Io`].
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        let directory = Directory::lock(directory.as_ref())?;
        let begun = std::time::Instant::now();
        let log = directory.open(options.cache_bytes)?;
        let loaded = load::load(&directory, &log)?;
        directory.settle();
        let keys = loaded.tree.len();
        tracing::info!(
            directory = %directory.path().display(), revision = loaded.revision, keys, records = loaded.records,
            milliseconds = options::milliseconds(begun.elapsed()), "the store is open"
        );
        let metrics = Arc::<Metrics>::default();
        let limits = Limits {
            window_bytes: options.window_bytes,
            watcher_events: options.watcher_events,
            watcher_bytes: options.watcher_bytes,
        };
        let versions = loaded.tree.page(std::ops::Bound::Unbounded, b"", 0);
        let expiries = writer::expiries(versions.iter());
        drop(versions);
        let shared = Arc::new(Shared {
            directory,
            log: ArcSwapOption::from_pointee(log),
            view: ArcSwap::from_pointee(View { tree: loaded.tree, revision: loaded.revision }),
            visible: latest::Sender::new(loaded.revision),
            hub: Hub::new(loaded.revision, limits, metrics.clone()),
            pins: history::Pins::default(),
            metrics,
            compacted: AtomicU64::new(loaded.compacted),
            history: AtomicU64::new(loaded.history),
            compacting: Mutex::new(()),
            options,
        });
        Self::start(shared, expiries)
    }

    fn start(shared: Arc<Shared>, expiries: std::collections::BTreeSet<(u64, bytes::Bytes)>) -> Result<Self> {
        let (requests, queue) = mpsc::channel(shared.options.queue);
        let (groups, dispatched) = std::sync::mpsc::sync_channel::<Group>(DISPATCH_QUEUE);
        let (alive, closed) = std::sync::mpsc::channel::<()>();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(log::io("starting a timer"))?;
        let writer = Writer::new(shared.clone(), groups, expiries);
        let writer = spawn("store-writer", move || {
            writer.run(&runtime, queue);
            drop(alive);
        })?;
        let hub = shared.clone();
        let dispatcher =
            spawn("store-watch", move || hub::dispatch(&hub.hub, &dispatched, hub.options.progress_interval))?;
        let retained = shared.clone();
        let compactor = spawn("store-compact", move || {
            let timeout = Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            while closed.recv_timeout(retained.options.sweep_interval) == timeout {
                if let Err(error) = retention::retain(&retained) {
                    tracing::error!(%error, "old history can't be forgotten");
                }
            }
        })?;
        Ok(Self { shared, requests, threads: Mutex::new(vec![writer, dispatcher, compactor]) })
    }

    /// Finishes the commits that wait, ends the watches with [`Error::Closed`] and refuses what comes after.
    pub async fn close(&self) {
        let _ = self.requests.send(Request::Close).await;
        self.requests.closed().await;
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(join)).await;
        if let Err(error) = joined {
            tracing::error!(%error, "waiting for the store's threads failed");
        }
        self.shared.hub.close();
    }

    /// Deletes expired keys and forgets old history now, instead of at the next interval.
    ///
    /// # Errors
    /// As for a commit.
    pub async fn sweep(&self) -> Result<()> {
        let (reply, outcome) = oneshot::channel();
        self.requests.send(Request::Sweep(reply)).await.map_err(|_| Error::Closed)?;
        outcome.await.map_err(|_| Error::Closed)??;
        blocking(&self.shared, |shared| retention::retain(shared).map(drop)).await
    }

    /// What the engine counted since it was opened.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }

    /// How large the store is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let view = self.shared.view.load();
        Stats {
            revision: Revision(view.revision),
            oldest: Revision(self.shared.compacted()),
            keys: view.tree.len() as u64,
            history_bytes: self.shared.history(),
            disk_bytes: self.shared.log().map_or(0, |log| log.disk_space()),
            watchers: self.shared.hub.watchers() as u64,
        }
    }

    /// The newest state, as it stays.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let view = self.shared.view.load_full();
        Snapshot { revision: view.revision, view }
    }

    fn check_size(&self, batch: &Batch) -> Result<()> {
        let options = &self.shared.options;
        let mut total = 0;
        for write in &batch.writes {
            let value = match &write.op {
                Op::Put { value, .. } => value.len(),
                Op::Delete => 0,
            };
            check("key", write.key.len(), MAX_KEY)?;
            check("value", value, options.max_value)?;
            total += write.key.len() + value;
        }
        check("batch", total, options.max_batch)?;
        check_keys(batch)
    }
}

impl Snapshot {
    pub(crate) fn len(&self) -> u64 {
        self.view.tree.len() as u64
    }

    /// In key order.
    pub(crate) fn versions(&self) -> impl Iterator<Item = Arc<tree::Version>> {
        self.view.tree.page(std::ops::Bound::Unbounded, b"", 0).into_iter()
    }
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded")
            .field("directory", &self.shared.directory.path())
            .field("stats", &self.stats())
            .finish()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // The writer ends when nobody can ask any more.
        self.requests = mpsc::channel(1).0;
        std::mem::take(self.threads.get_mut()).into_iter().for_each(join);
        self.shared.hub.close();
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &[u8], at: At) -> Result<Option<Entry>> {
        let view = self.shared.reach(at).await?;
        let revision = exact(at, &view);
        if revision == view.revision {
            return Ok(view.tree.get(key).map(view::entry));
        }
        self.shared.check_retained(revision)?;
        if let Some(pinned) = self.shared.pins.at(revision) {
            return Ok(pinned.tree.get(key).map(view::entry));
        }
        let key = bytes::Bytes::copy_from_slice(key);
        let found = blocking(&self.shared, move |shared| history::version_at(shared, &view, revision, &key)).await?;
        Ok(found.as_ref().map(view::entry))
    }

    async fn list(&self, range: &Range, at: At, limit: usize, after: Option<&[u8]>) -> Result<Page> {
        let newest = self.shared.reach(at).await?;
        let revision = exact(at, &newest);
        let view = if revision == newest.revision {
            newest
        } else {
            self.shared.check_retained(revision)?;
            match self.shared.pins.at(revision) {
                Some(pinned) => pinned,
                None => blocking(&self.shared, move |shared| history::rewind(shared, &newest, revision)).await?,
            }
        };
        let page = view.page(range, limit, after);
        if page.remaining > 0 {
            self.shared.pins.pin(&view);
        }
        Ok(page)
    }

    async fn commit(&self, batch: Batch) -> Result<Revision> {
        self.check_size(&batch)?;
        let (reply, outcome) = oneshot::channel();
        let wait = self.shared.options.commit_wait;
        self.requests.send_timeout(Request::Commit(batch, reply), wait).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => {
                let why = "commits come faster than the disk takes them".to_owned();
                Error::Unavailable { why, retry_after: Duration::from_secs(1) }
            }
            mpsc::error::SendTimeoutError::Closed(_) => Error::Closed,
        })?;
        outcome.await.map_err(|_| Error::Closed)?
    }

    async fn watch(&self, range: Range, from: Revision) -> Result<Box<dyn Events>> {
        Ok(Box::new(Watch::start(self.shared.clone(), range, from.0)?))
    }

    async fn current(&self, _range: &Range) -> Result<Revision> {
        Ok(Revision(self.shared.view.load().revision))
    }

    async fn compact(&self, before: Revision) -> Result<()> {
        blocking(&self.shared, move |shared| retention::compact(shared, before.0).map(drop)).await
    }
}

impl Shared {
    /// # Errors
    /// [`Error::Unavailable`] while the log is opened anew after a failed write.
    pub(crate) fn log(&self) -> Result<Arc<Log>> {
        self.log.load_full().ok_or_else(|| Error::Unavailable {
            why: "the log is being opened anew after a failed write".to_owned(),
            retry_after: Duration::from_secs(1),
        })
    }

    /// Closes the log and opens it again: the library takes no more writes after one has failed.
    fn reopen(&self) -> Result<Arc<Log>> {
        if let Some(mut log) = self.log.swap(None) {
            // Readers of history hold it for the length of a read; the library's lock is free when the last one is done.
            let deadline = std::time::Instant::now() + REOPEN_WAIT;
            while let Err(shared) = Arc::try_unwrap(log) {
                if std::time::Instant::now() > deadline {
                    self.log.store(Some(shared));
                    let why = "reads of history hold the log open".to_owned();
                    return Err(Error::Unavailable { why, retry_after: REOPEN_WAIT });
                }
                std::thread::park_timeout(Duration::from_millis(1));
                log = shared;
            }
        }
        let log = Arc::new(self.directory.open(self.options.cache_bytes)?);
        self.log.store(Some(log.clone()));
        Ok(log)
    }

    pub(crate) fn compacted(&self) -> u64 {
        self.compacted.load(Ordering::SeqCst)
    }

    fn move_compacted(&self, revision: u64) {
        self.compacted.fetch_max(revision, Ordering::SeqCst);
    }

    fn history(&self) -> u64 {
        self.history.load(Ordering::Relaxed)
    }

    fn grow_history(&self, bytes: u64) {
        self.history.fetch_add(bytes, Ordering::Relaxed);
    }

    fn shrink_history(&self, bytes: u64) {
        self.history.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The newest view, once it has what `at` asks for.
    async fn reach(&self, at: At) -> Result<Arc<View>> {
        let requested = match at {
            At::Latest => return Ok(self.view.load_full()),
            At::NotBefore(revision) | At::Exactly(revision) => revision,
        };
        let view = self.view.load_full();
        if view.revision >= requested.0 {
            return Ok(view);
        }
        let mut visible = self.visible.subscribe();
        let reached =
            tokio::time::timeout(self.options.read_wait, visible.wait_for(|newest| *newest >= requested.0)).await;
        let view = self.view.load_full();
        match reached {
            Ok(Ok(_)) => Ok(view),
            Ok(Err(_)) | Err(_) => Err(Error::Future { requested, current: Revision(view.revision) }),
        }
    }
}

/// The revision that a read is for, once a view that reaches it is there.
fn exact(at: At, view: &View) -> u64 {
    match at {
        At::Latest | At::NotBefore(_) => view.revision,
        At::Exactly(revision) => revision.0,
    }
}

fn check(what: &'static str, size: usize, limit: usize) -> Result<()> {
    if size > limit { Err(Error::TooLarge { what, size, limit }) } else { Ok(()) }
}

fn check_keys(batch: &Batch) -> Result<()> {
    if batch.writes.len() < 2 {
        return Ok(());
    }
    let mut keys: Vec<_> = batch.writes.iter().map(|write| &write.key).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => {
            let why = format!("a batch names the key {:?} twice", pair[0]);
            let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, why);
            Err(Error::Io { what: "checking a batch".to_owned(), source })
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(log::io("starting a thread"))
}

fn join(thread: JoinHandle<()>) {
    let name = thread.thread().name().unwrap_or_default().to_owned();
    if thread.join().is_err() {
        tracing::error!(thread = name, "a thread of the store has panicked");
    }
}

/// Runs what reads the disk where it stops nobody.
async fn blocking<T: Send + 'static>(
    shared: &Arc<Shared>,
    read: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
) -> Result<T> {
    let shared = shared.clone();
    tokio::task::spawn_blocking(move || read(&shared)).await.unwrap_or(Err(Error::Closed))
}
