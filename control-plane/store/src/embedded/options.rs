//! How an embedded store is opened.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The engine's limits and times.
#[derive(Clone, Debug)]
pub struct Options {
    /// History is kept at least this long. Default: 10 minutes.
    pub retention: Duration,
    /// History is kept at least up to this many bytes. Default: 64 MiB.
    pub retention_bytes: u64,
    /// History held in memory for watches that start a little in the past and reads at an older revision; what is older is read from disk.
    /// Default: 64 MiB.
    pub window_bytes: usize,
    /// Changes that may wait for one watcher before it is ended as lagging. Default: 65 536.
    pub watcher_events: usize,
    /// Bytes that may wait for one watcher before it is ended as lagging. Default: 64 MiB.
    pub watcher_bytes: usize,
    /// How often a watcher without changes of its own hears how far the store is. Default: 10 ms.
    pub progress_interval: Duration,
    /// How often expired keys and old history are looked for. Default: 1 s.
    pub sweep_interval: Duration,
    /// How long a read waits for a revision that is not there yet. Default: 3 s.
    pub read_wait: Duration,
    /// How long a commit waits for a place in the queue. Default: 10 s.
    pub commit_wait: Duration,
    /// Batches that may wait for the writer. Default: 16 384.
    pub queue: usize,
    /// The largest value. Default: 4 MiB.
    pub max_value: usize,
    /// The largest batch, keys and values together. Default: 16 MiB.
    pub max_batch: usize,
    /// Space on the disk that is left to deletes and compaction: with less than this free, writes fail as full. Default: 64 MiB.
    pub reserve: u64,
    /// Memory for blocks read from disk. Default: 16 MiB: reads of history are rare, latest values never come from there.
    pub cache_bytes: u64,
    /// What time it is.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(600),
            retention_bytes: 64 << 20,
            window_bytes: 64 << 20,
            watcher_events: 65_536,
            watcher_bytes: 64 << 20,
            progress_interval: Duration::from_millis(10),
            sweep_interval: Duration::from_secs(1),
            read_wait: Duration::from_secs(3),
            commit_wait: Duration::from_secs(10),
            queue: 16_384,
            max_value: 4 << 20,
            max_batch: 16 << 20,
            reserve: 64 << 20,
            cache_bytes: 16 << 20,
            clock: Clock::system(),
        }
    }
}

/// Wall time in milliseconds since 1970, for times to live and retention.
#[derive(Clone)]
pub struct Clock(Option<Arc<AtomicU64>>);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(None)
    }

    /// A clock that only [`Clock::advance`] moves.
    #[must_use]
    pub fn manual(milliseconds: u64) -> Self {
        Self(Some(Arc::new(AtomicU64::new(milliseconds))))
    }

    /// Moves a manual clock. The machine's clock goes by itself.
    pub fn advance(&self, by: Duration) {
        if let Some(time) = &self.0 {
            time.fetch_add(milliseconds(by), Ordering::SeqCst);
        }
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        match &self.0 {
            Some(time) => time.load(Ordering::SeqCst),
            None => milliseconds(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "manual" } else { "system" })
    }
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
