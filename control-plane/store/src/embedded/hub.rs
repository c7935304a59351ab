//! Where committed changes go: a window of the newest ones in memory, and the queues of the watchers.
//!
//! The writer puts each durable group into the window ([`Hub::publish`]) before anyone can see its revision; a thread of its own ([`dispatch`])
//! sorts it into the watchers' queues, so that ten thousand watchers don't make a commit slower. Watchers of the same range share one filter.
//!
//! Invariant: a queue holds every matching change above what its watcher took and at or below its mark, in order. A full queue ends its watcher.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::metrics::Metrics;
use super::tree::Version;
use crate::{Error, Event, EventKind, Range, Result, Revision};

/// A committed change.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) key: Bytes,
    pub(crate) after: Option<Arc<Version>>,
    pub(crate) before: Option<Arc<Version>>,
}

/// Changes that were made durable together.
pub(crate) type Group = Arc<[Arc<Change>]>;

#[derive(Debug)]
pub(crate) struct Hub {
    state: Mutex<State>,
    limits: Limits,
    metrics: Arc<Metrics>,
}

/// Bounds of memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) window_bytes: usize,
    pub(crate) watcher_events: usize,
    pub(crate) watcher_bytes: usize,
}

#[derive(Debug)]
struct State {
    /// Consecutive revisions, the last of them is the newest published.
    window: VecDeque<Arc<Change>>,
    window_bytes: usize,
    newest: u64,
    ranges: Vec<Watched>,
    closed: bool,
}

/// The watchers of one range.
#[derive(Debug)]
struct Watched {
    range: Range,
    watchers: Vec<Arc<Watcher>>,
}

/// A watcher's queue.
#[derive(Debug)]
pub(crate) struct Watcher {
    queue: Mutex<Queue>,
    ready: Notify,
}

#[derive(Debug)]
struct Queue {
    changes: VecDeque<Arc<Change>>,
    /// How many of the changes, and of how many bytes, came since the watcher took some last. What it began with does not count.
    pushed: usize,
    bytes: usize,
    /// Everything that matches up to here is in the queue, or was.
    mark: u64,
    /// The mark that the watcher heard last.
    reported: u64,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Lagging,
    Closed,
}

impl Change {
    fn size(&self) -> usize {
        let value = |version: &Option<Arc<Version>>| version.as_ref().map_or(0, |version| version.value.len());
        // The constant stands for the bookkeeping around a change.
        200 + self.key.len() + value(&self.after) + value(&self.before)
    }

    pub(crate) fn event(&self) -> Event {
        Event {
            revision: Revision(self.revision),
            key: self.key.clone(),
            kind: self.after.as_ref().map_or(EventKind::Delete, |version| EventKind::Put(version.value.clone())),
            previous: self.before.as_ref().map(|version| (version.value.clone(), Revision(version.revision))),
        }
    }
}

impl Hub {
    pub(crate) fn new(newest: u64, limits: Limits, metrics: Arc<Metrics>) -> Self {
        let state = State { window: VecDeque::new(), window_bytes: 0, newest, ranges: Vec::new(), closed: false };
        Self { state: Mutex::new(state), limits, metrics }
    }

    /// Takes a durable group into the window. Its revisions follow those before.
    pub(crate) fn publish(&self, group: &[Arc<Change>]) {
        let mut dropped = Vec::new();
        let mut state = self.state.lock();
        for change in group {
            debug_assert_eq!(change.revision, state.newest + 1, "revisions are consecutive");
            state.newest = change.revision;
            state.window_bytes += change.size();
            state.window.push_back(change.clone());
        }
        while state.window_bytes > self.limits.window_bytes {
            let Some(oldest) = state.window.pop_front() else { break };
            state.window_bytes -= oldest.size();
            dropped.push(oldest);
        }
        drop(state);
        // Values are freed without the lock.
        drop(dropped);
    }

    /// The changes after `from` up to and with `to`, as far as they are in memory, and the revision before the first of them.
    pub(crate) fn recent(&self, from: u64, to: u64) -> (u64, Vec<Arc<Change>>) {
        let state = self.state.lock();
        let from = from.max(state.before_window());
        let changes =
            state.after(from).take(usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX)).cloned().collect();
        (from, changes)
    }

    /// Begins a watch after `from`. `None` when the window begins later: what is missing has to be read from disk first.
    pub(crate) fn register(&self, range: &Range, from: u64) -> Result<Option<Arc<Watcher>>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        if from < state.before_window() {
            return Ok(None);
        }
        let changes: VecDeque<_> = state.after(from).filter(|change| range.contains(&change.key)).cloned().collect();
        let queue = Queue { changes, pushed: 0, bytes: 0, mark: from.max(state.newest), reported: from, end: None };
        let watcher = Arc::new(Watcher { queue: Mutex::new(queue), ready: Notify::new() });
        match state.ranges.iter_mut().find(|watched| watched.range == *range) {
            Some(watched) => watched.watchers.push(watcher.clone()),
            None => state.ranges.push(Watched { range: range.clone(), watchers: vec![watcher.clone()] }),
        }
        Ok(Some(watcher))
    }

    pub(crate) fn unregister(&self, range: &Range, watcher: &Arc<Watcher>) {
        let mut state = self.state.lock();
        let Some(at) = state.ranges.iter().position(|watched| watched.range == *range) else { return };
        let watched = &mut state.ranges[at];
        watched.watchers.retain(|other| !Arc::ptr_eq(other, watcher));
        if watched.watchers.is_empty() {
            state.ranges.swap_remove(at);
        }
    }

    /// Watchers that are registered.
    pub(crate) fn watchers(&self) -> usize {
        self.state.lock().ranges.iter().map(|watched| watched.watchers.len()).sum()
    }

    /// Ends every watcher, once it has taken what is in its queue, and takes no new ones.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for watched in &state.ranges {
            for watcher in &watched.watchers {
                watcher.queue.lock().end.get_or_insert(End::Closed);
                watcher.ready.notify_one();
            }
        }
    }

    /// Sorts a group into the queues. Watchers without a change of their own are not woken.
    fn deliver(&self, group: &[Arc<Change>]) {
        let Some(last) = group.last() else { return };
        let state = self.state.lock();
        for watched in &state.ranges {
            let matching: Vec<_> = group.iter().filter(|change| watched.range.contains(&change.key)).collect();
            for watcher in &watched.watchers {
                let woken = watcher.push(&matching, last.revision, &self.limits, &self.metrics);
                if woken {
                    watcher.ready.notify_one();
                }
            }
        }
    }

    fn progress(&self) {
        for watched in &self.state.lock().ranges {
            for watcher in &watched.watchers {
                let queue = watcher.queue.lock();
                if queue.mark > queue.reported {
                    watcher.ready.notify_one();
                }
            }
        }
    }
}

/// Delivers groups until the writer is gone; between them, and at least every `progress`, watchers hear of new marks.
pub(crate) fn dispatch(hub: &Hub, groups: &Receiver<Group>, progress: Duration) {
    let mut quiet_since: Option<Instant> = None;
    loop {
        let group = match quiet_since {
            None => groups.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(since) => groups.recv_timeout(progress.saturating_sub(since.elapsed())),
        };
        match group {
            Ok(group) => {
                hub.deliver(&group);
                let since = *quiet_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= progress {
                    hub.progress();
                    quiet_since = None;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                hub.progress();
                quiet_since = None;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl State {
    /// The revision before the first one in the window.
    fn before_window(&self) -> u64 {
        self.newest - self.window.len() as u64
    }

    /// The window's changes after `from`, which is not before the window.
    fn after(&self, from: u64) -> impl Iterator<Item = &Arc<Change>> {
        let skip = usize::try_from(from - self.before_window()).unwrap_or(usize::MAX);
        self.window.range(skip.min(self.window.len())..)
    }
}

impl Watcher {
    fn push(&self, changes: &[&Arc<Change>], mark: u64, limits: &Limits, metrics: &Metrics) -> bool {
        let mut queue = self.queue.lock();
        if queue.end.is_some() || mark <= queue.mark {
            return false;
        }
        let known = queue.mark;
        let mut pushed = 0;
        for change in changes.iter().filter(|change| change.revision > known) {
            queue.bytes += change.size();
            queue.changes.push_back(Arc::clone(change));
            pushed += 1;
        }
        queue.mark = mark;
        queue.pushed += pushed;
        // One group alone never ends a watcher: it had no chance to take it.
        let full = queue.pushed > limits.watcher_events || queue.bytes > limits.watcher_bytes;
        if full && pushed > 0 && queue.pushed > pushed {
            queue.end = Some(End::Lagging);
            queue.changes = VecDeque::new();
            metrics.lagging.add(1);
        }
        metrics.delivered.add(pushed as u64);
        pushed > 0
    }

    /// Waits for changes or a new mark.
    pub(crate) async fn next(&self) -> Result<(Vec<Event>, Revision)> {
        loop {
            if let Some((changes, mark)) = self.take()? {
                return Ok((changes.iter().map(|change| change.event()).collect(), Revision(mark)));
            }
            self.ready.notified().await;
        }
    }

    fn take(&self) -> Result<Option<(VecDeque<Arc<Change>>, u64)>> {
        let mut queue = self.queue.lock();
        if let Some(End::Lagging) = queue.end {
            return Err(Error::Lagging);
        }
        if queue.mark > queue.reported {
            queue.reported = queue.mark;
            queue.pushed = 0;
            queue.bytes = 0;
            return Ok(Some((std::mem::take(&mut queue.changes), queue.mark)));
        }
        match queue.end {
            Some(End::Closed) => Err(Error::Closed),
            Some(End::Lagging) | None => Ok(None),
        }
    }
}
