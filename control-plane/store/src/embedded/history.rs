//! Reads at an older revision: the latest state with the changes since then taken back.
//!
//! Changes come from the window in memory and, before it, from the log on disk. A list that ends with more to come pins its snapshot, so its next
//! pages cost no more than the first one. Everything here may read the disk: it runs on a blocking thread.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Shared;
use super::hub::Change;
use super::log::{Log, corrupt};
use super::tree::Version;
use super::view::View;
use crate::{Error, Range, Result, Revision};

/// Lists in progress whose snapshots stay at hand. One that is gone is made again from history.
const PINS: usize = 64;

/// Snapshots of lists that are being paged through, the most recently used one last.
#[derive(Debug, Default)]
pub(crate) struct Pins(Mutex<Vec<Arc<View>>>);

impl Pins {
    pub(crate) fn pin(&self, view: &Arc<View>) {
        let mut pins = self.0.lock();
        pins.retain(|pinned| pinned.revision != view.revision);
        if pins.len() == PINS {
            pins.remove(0);
        }
        pins.push(view.clone());
    }

    pub(crate) fn at(&self, revision: u64) -> Option<Arc<View>> {
        let mut pins = self.0.lock();
        let at = pins.iter().position(|pinned| pinned.revision == revision)?;
        let pinned = pins.remove(at);
        pins.push(pinned.clone());
        Some(pinned)
    }

    /// Lets go of snapshots before a revision.
    pub(crate) fn forget(&self, before: u64) {
        self.0.lock().retain(|pinned| pinned.revision >= before);
    }
}

/// The state at `revision`, which is before that of `newest`.
pub(crate) fn rewind(shared: &Shared, newest: &View, revision: u64) -> Result<Arc<View>> {
    let mut tree = newest.tree.clone();
    for (key, before) in first_before(shared, newest.revision, revision, &Range::all())? {
        match before {
            Some(version) => tree.insert(version),
            None => tree.remove(&key),
        };
    }
    Ok(Arc::new(View { tree, revision }))
}

/// The version of one key at `revision`.
pub(crate) fn version_at(shared: &Shared, newest: &View, revision: u64, key: &[u8]) -> Result<Option<Arc<Version>>> {
    let mut end = key.to_vec();
    end.push(0);
    let range = Range { start: Bytes::copy_from_slice(key), end: end.into() };
    match first_before(shared, newest.revision, revision, &range)?.remove(key) {
        Some(before) => Ok(before),
        None => Ok(newest.tree.get(key).cloned()),
    }
}

/// The state before the first change of each key of a range that changed after `revision`, up to `newest`.
fn first_before(
    shared: &Shared,
    newest: u64,
    revision: u64,
    range: &Range,
) -> Result<HashMap<Bytes, Option<Arc<Version>>>> {
    let (window, recent) = shared.hub.recent(revision, newest);
    let mut first = HashMap::new();
    if revision < window {
        let log = shared.log()?;
        for record in log.records(revision + 1) {
            let record = record?;
            if record.revision > window.min(newest) {
                break;
            }
            if !range.contains(&record.key) {
                continue;
            }
            if let Slot::Vacant(slot) = first.entry(record.key) {
                slot.insert(previous(&log, record.previous)?);
            }
        }
    }
    for change in recent {
        if range.contains(&change.key) {
            first.entry(change.key.clone()).or_insert_with(|| change.before.clone());
        }
    }
    // Compaction may have overtaken the reading.
    shared.check_retained(revision)?;
    Ok(first)
}

/// Changes after `from` out of the log, at most `limit` of them and `bytes` bytes, and the revision up to which they are complete.
pub(crate) fn changes(
    shared: &Shared,
    from: u64,
    until: u64,
    range: &Range,
    limit: usize,
    bytes: usize,
) -> Result<(u64, Vec<Change>)> {
    let log = shared.log()?;
    let mut changes = Vec::new();
    let (mut reached, mut size, mut read) = (from, 0, 0);
    for record in log.records(from + 1) {
        let record = record?;
        if record.revision > until || read == limit || size >= bytes {
            break;
        }
        if record.revision != reached + 1 {
            shared.check_retained(from)?;
            return Err(corrupt(log.path(), &format!("revision {} is missing", reached + 1)));
        }
        reached = record.revision;
        size += record.size();
        read += 1;
        if range.contains(&record.key) {
            let before = previous(&log, record.previous)?;
            let (key, revision) = (record.key.clone(), record.revision);
            changes.push(Change { revision, key, after: record.version().map(Arc::new), before });
        }
    }
    shared.check_retained(from)?;
    Ok((reached, changes))
}

/// The version that a change replaced. It may be gone already; then the caller finds that its place was compacted.
fn previous(log: &Log, revision: u64) -> Result<Option<Arc<Version>>> {
    if revision == 0 {
        return Ok(None);
    }
    Ok(log.record(revision)?.and_then(|record| record.version()).map(Arc::new))
}

impl Shared {
    /// # Errors
    /// [`Error::Compacted`].
    pub(crate) fn check_retained(&self, revision: u64) -> Result<()> {
        let oldest = self.compacted();
        if revision < oldest { Err(Error::Compacted { oldest: Revision(oldest) }) } else { Ok(()) }
    }
}
