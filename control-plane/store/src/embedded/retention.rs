//! Forgetting history: records of values that were overwritten or deleted before a revision, and the deletes themselves.
//!
//! A record at or below the compacted revision stays as long as its value is the key's newest one at that revision. Each change names the
//! revision that it replaced, so moving on by a stretch of history means to walk just that stretch. Each step removes a chunk and notes the new
//! compacted revision in one atomic batch; a process that dies in between has done a part, and nothing by half.

use super::Shared;
use super::options::milliseconds;
use crate::{Error, Result, Revision};

/// Records walked in one step.
const CHUNK: usize = 1_000;

/// Forgets what is older than the options say; returns the compacted revision.
pub(crate) fn retain(shared: &Shared) -> Result<u64> {
    let now = shared.options.clock.now();
    let young = now.saturating_sub(milliseconds(shared.options.retention));
    forget(shared, shared.view.load().revision, |time, history| {
        time < young && history > shared.options.retention_bytes
    })
}

/// Forgets history before a revision.
pub(crate) fn compact(shared: &Shared, before: u64) -> Result<u64> {
    let current = shared.view.load().revision;
    if before > current {
        return Err(Error::Future { requested: Revision(before), current: Revision(current) });
    }
    forget(shared, before, |_, _| true)
}

/// Forgets changes up to and with `until`, as long as `old` says so of a change's time and of the bytes of history left.
fn forget(shared: &Shared, until: u64, old: impl Fn(u64, u64) -> bool) -> Result<u64> {
    // One at a time: steps build on each other.
    let _turn = shared.compacting.lock();
    loop {
        let from = shared.compacted();
        let log = shared.log()?;
        let (mut reached, mut freed, mut gone) = (from, 0, Vec::new());
        for record in log.records(from + 1).take(CHUNK) {
            let record = record?;
            if record.revision > until || !old(record.time, shared.history().saturating_sub(freed)) {
                break;
            }
            reached = record.revision;
            freed += record.size() as u64;
            if record.previous > 0 {
                gone.push(record.previous);
            }
            if record.value.is_none() {
                gone.push(record.revision);
            }
        }
        if reached == from {
            return Ok(from);
        }
        // Readers check after reading: they must find the mark moved before anything is gone.
        shared.move_compacted(reached);
        shared.shrink_history(freed);
        shared.pins.forget(reached);
        shared.metrics.forgotten.add(gone.len() as u64);
        log.forget(gone.into_iter(), reached)?;
    }
}
