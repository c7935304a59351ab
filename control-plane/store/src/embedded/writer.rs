//! The one thread that commits: takes all batches that wait, checks their conditions, writes them with one sync, and answers them together.
//!
//! Conditions are checked against the writer's own copy of the latest values, which already has the group's earlier batches in it. If the disk fails,
//! that copy is dropped for the one that readers see, and the log is opened anew.
//!
//! Invariant: what is published (view, window, answers) is durable; revisions are published in order; a refused batch leaves no trace.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::hub::{Change, Group};
use super::log::corrupt;
use super::options::milliseconds;
use super::record::Record;
use super::tree::{Tree, Version};
use super::view::View;
use crate::{Batch, Condition, Error, Op, Result, Revision, Write};

/// A group is closed at this many writes or bytes: a bound of memory and of the time that its first batch waits.
const GROUP_WRITES: usize = 8_192;
const GROUP_BYTES: usize = 16 << 20;
/// Expired keys deleted in one group.
const SWEEP: usize = 1_000;
/// How often the file system is asked for its free space.
const SPACE_CHECK: Duration = Duration::from_millis(100);
/// Tries to open the log anew after a failed write, before the batches are answered without an outcome.
const REOPEN_TRIES: u32 = 5;

/// What the writer is asked for.
#[derive(Debug)]
pub(crate) enum Request {
    Commit(Batch, Reply),
    /// Delete what has expired by now.
    Sweep(oneshot::Sender<Result<()>>),
    /// Finish what is queued and stop.
    Close,
}

pub(crate) type Reply = oneshot::Sender<Result<Revision>>;

pub(crate) struct Writer {
    shared: Arc<Shared>,
    groups: SyncSender<Group>,
    /// The latest values, with the group that is being made.
    tree: Tree,
    /// The newest revision given out.
    revision: u64,
    /// When which key goes away.
    expiries: BTreeSet<(u64, Bytes)>,
    pending: Pending,
    space_checked: Option<Instant>,
    /// A write failed, and the log could not be opened since.
    broken: bool,
}

/// The group that is being made.
#[derive(Default)]
struct Pending {
    records: Vec<(u64, Bytes)>,
    changes: Vec<Arc<Change>>,
    bytes: usize,
    replies: Vec<(Reply, Result<Revision>)>,
    sweeps: Vec<oneshot::Sender<Result<()>>>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, groups: SyncSender<Group>, expiries: BTreeSet<(u64, Bytes)>) -> Self {
        let view = shared.view.load();
        let (tree, revision) = (view.tree.clone(), view.revision);
        Self {
            shared,
            groups,
            tree,
            revision,
            expiries,
            pending: Pending::default(),
            space_checked: None,
            broken: false,
        }
    }

    /// Works until closed, or until nobody can ask any more.
    pub(crate) fn run(mut self, runtime: &tokio::runtime::Runtime, mut requests: mpsc::Receiver<Request>) {
        let interval = self.shared.options.sweep_interval;
        let mut swept = Instant::now();
        let mut closing = false;
        while !closing {
            let wait = interval.saturating_sub(swept.elapsed());
            let first = runtime.block_on(async { tokio::time::timeout(wait, requests.recv()).await });
            match first {
                Ok(None) => closing = true,
                Ok(Some(request)) => closing |= self.take(request),
                Err(_) => {}
            }
            // While one group was on its way to the disk the next one came together.
            while !closing && self.pending.has_room() {
                match requests.try_recv() {
                    Ok(request) => closing |= self.take(request),
                    Err(_) => break,
                }
            }
            if closing {
                requests.close();
                while let Ok(request) = requests.try_recv() {
                    self.take(request);
                    if !self.pending.has_room() {
                        self.finish();
                    }
                }
            }
            if swept.elapsed() >= interval {
                self.sweep();
                swept = Instant::now();
            }
            self.finish();
        }
        if let Err(error) = self.shared.log().and_then(|log| log.sync()) {
            tracing::error!(%error, "the store's last sync failed");
        }
    }

    /// Puts a request into the group; `true` if it asks for the end.
    fn take(&mut self, request: Request) -> bool {
        match request {
            Request::Commit(batch, reply) => {
                let outcome = self.prepare(&batch);
                if outcome.is_err() {
                    self.shared.metrics.conflicts.add(1);
                }
                self.pending.replies.push((reply, outcome));
            }
            Request::Sweep(reply) => {
                self.sweep();
                self.pending.sweeps.push(reply);
            }
            Request::Close => return true,
        }
        false
    }

    /// Checks a batch's conditions and puts its writes into the group.
    fn prepare(&mut self, batch: &Batch) -> Result<Revision> {
        for write in &batch.writes {
            let current = self.tree.get(&write.key).map(|version| Revision(version.revision));
            let holds = match write.condition {
                Condition::None => true,
                Condition::Absent => current.is_none(),
                Condition::At(revision) => current == Some(revision),
            };
            if !holds {
                return Err(Error::Conflict { key: write.key.clone(), current });
            }
        }
        if batch.writes.is_empty() {
            return Ok(Revision(self.revision));
        }
        let first = self.revision + 1;
        let now = self.shared.options.clock.now();
        for write in &batch.writes {
            self.write(write, now);
        }
        Ok(Revision(first))
    }

    fn write(&mut self, write: &Write, now: u64) {
        self.revision += 1;
        let (value, expires) = match &write.op {
            Op::Put { value, ttl } => {
                (Some(value.clone()), ttl.map_or(0, |ttl| now.saturating_add(milliseconds(ttl)).max(1)))
            }
            Op::Delete => (None, 0),
        };
        let previous = self.tree.get(&write.key).map_or(0, |version| version.revision);
        let record = Record { revision: self.revision, time: now, previous, expires, key: write.key.clone(), value };
        let (bytes, record) = record.encode();
        let after = record.version().map(Arc::new);
        let before = match &after {
            Some(version) => self.tree.insert(version.clone()),
            None => self.tree.remove(&write.key),
        };
        if let Some(version) = before.as_ref().filter(|version| version.expires > 0) {
            self.expiries.remove(&(version.expires, version.key.clone()));
        }
        if expires > 0 {
            self.expiries.insert((expires, record.key.clone()));
        }
        self.pending.bytes += bytes.len();
        self.pending.records.push((self.revision, bytes));
        self.pending.changes.push(Arc::new(Change { revision: self.revision, key: record.key, after, before }));
    }

    fn sweep(&mut self) {
        let now = self.shared.options.clock.now();
        let expired: Vec<_> = self.expiries.iter().take_while(|(at, _)| *at <= now).take(SWEEP).cloned().collect();
        for (_, key) in expired {
            self.write(&Write { key, op: Op::Delete, condition: Condition::None }, now);
            self.shared.metrics.expired.add(1);
        }
    }

    /// Makes the group durable, publishes it, and answers.
    fn finish(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        let failed = if pending.records.is_empty() { None } else { self.store(&mut pending).err() };
        let Some(error) = failed else {
            if !pending.changes.is_empty() {
                self.publish(&pending);
            }
            for (reply, outcome) in pending.replies {
                // Who asked may be gone; the commit stands.
                let _ = reply.send(outcome);
            }
            for reply in pending.sweeps {
                let _ = reply.send(Ok(()));
            }
            return;
        };
        tracing::error!(%error, batches = pending.replies.len(), "a group was not committed");
        self.shared.metrics.failures.add(1);
        self.roll_back();
        for (reply, _) in pending.replies {
            let _ = reply.send(Err(again(&error)));
        }
        for reply in pending.sweeps {
            let _ = reply.send(Err(again(&error)));
        }
    }

    fn store(&mut self, pending: &mut Pending) -> Result<()> {
        if self.broken {
            self.reopen()?;
        }
        self.check_space(&pending.changes)?;
        let begun = Instant::now();
        let written = self.shared.log().and_then(|log| log.append(std::mem::take(&mut pending.records).into_iter()));
        self.shared.metrics.sync_microseconds.observe_time(begun.elapsed());
        let Err(error) = written else { return Ok(()) };
        tracing::error!(%error, "writing to the log failed; it is opened anew to see what has reached the disk");
        self.broken = true;
        for attempt in 1..=REOPEN_TRIES {
            match self.reopen() {
                // Groups are there whole or not at all.
                Ok(newest) if newest == self.revision => return Ok(()),
                Ok(_) => return Err(error),
                Err(error) => tracing::error!(%error, attempt, "the log can't be opened"),
            }
            std::thread::park_timeout(Duration::from_millis(20) * attempt);
        }
        let why = format!("{error}; the log can't be opened any more, so the outcome is not known");
        Err(Error::Unavailable { why, retry_after: Duration::from_secs(5) })
    }

    /// Opens the log anew; returns its newest revision. What is there beyond the published state and the current group is none of ours to keep.
    fn reopen(&mut self) -> Result<u64> {
        let published = self.shared.view.load().revision;
        let log = self.shared.reopen()?;
        if published > self.shared.compacted() && log.record(published)?.is_none() {
            return Err(corrupt(log.path(), &format!("revision {published} was committed and is missing")));
        }
        let mut newest = published;
        for record in log.records(published + 1) {
            newest = record?.revision;
        }
        if newest > published && newest != self.revision {
            // From a group whose batches were answered with an error when the log could not be opened.
            log.forget(published + 1..=newest, self.shared.compacted())?;
            log.sync()?;
            newest = published;
        }
        self.shared.directory.settle();
        self.broken = false;
        Ok(newest)
    }

    /// Deletes may use what is reserved: they are how room is made.
    fn check_space(&mut self, changes: &[Arc<Change>]) -> Result<()> {
        if self.space_checked.is_some_and(|at| at.elapsed() < SPACE_CHECK)
            || changes.iter().all(|change| change.after.is_none())
        {
            return Ok(());
        }
        let path = self.shared.directory.path();
        let Ok(space) = rustix::fs::statvfs(path) else { return Ok(()) };
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let reserve = self.shared.options.reserve;
        if free < reserve {
            return Err(Error::Full(format!(
                "{free} bytes are free where {} is, {reserve} are kept in reserve",
                path.display()
            )));
        }
        self.space_checked = Some(Instant::now());
        Ok(())
    }

    fn publish(&mut self, pending: &Pending) {
        let shared = &self.shared;
        if let Err(error) = shared.directory.acknowledge(self.revision) {
            // It is a help against damage, not what durability rests on.
            tracing::warn!(%error, "the high-water mark can't be written");
        }
        shared.hub.publish(&pending.changes);
        shared.view.store(Arc::new(View { tree: self.tree.clone(), revision: self.revision }));
        shared.visible.send_replace(self.revision);
        let committed = pending.replies.iter().filter(|(_, outcome)| outcome.is_ok()).count() as u64;
        shared.metrics.commits.add(committed);
        shared.metrics.group_size.observe(committed);
        shared.metrics.writes.add(pending.changes.len() as u64);
        shared.metrics.bytes.add(pending.bytes as u64);
        shared.grow_history(pending.bytes as u64);
        // A dispatcher that is gone has been closed; so are its watchers.
        let _ = self.groups.send(pending.changes.as_slice().into());
    }

    /// Back to what readers see.
    fn roll_back(&mut self) {
        let view = self.shared.view.load();
        self.tree = view.tree.clone();
        self.revision = view.revision;
        let versions = self.tree.page(std::ops::Bound::Unbounded, b"", 0);
        self.expiries = expiries(versions.iter());
    }
}

/// When which key goes away.
pub(crate) fn expiries<'a>(versions: impl Iterator<Item = &'a Arc<Version>>) -> BTreeSet<(u64, Bytes)> {
    versions.filter(|version| version.expires > 0).map(|version| (version.expires, version.key.clone())).collect()
}

impl Pending {
    fn has_room(&self) -> bool {
        self.records.len() < GROUP_WRITES && self.bytes < GROUP_BYTES && self.replies.len() < GROUP_WRITES
    }
}

/// The same error for another caller.
fn again(error: &Error) -> Error {
    match error {
        Error::Full(why) => Error::Full(why.clone()),
        Error::Unavailable { why, retry_after } => Error::Unavailable { why: why.clone(), retry_after: *retry_after },
        other => Error::Unavailable { why: other.to_string(), retry_after: Duration::from_secs(1) },
    }
}
