//! One state of the store: what readers look at, and what the next one is made of.

use std::ops::Bound;
use std::sync::Arc;

use super::tree::{Tree, Version};
use crate::{Entry, Page, Range, Revision};

/// The latest values at a revision. Never changes.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) tree: Tree,
    pub(crate) revision: u64,
}

impl View {
    pub(crate) fn page(&self, range: &Range, limit: usize, after: Option<&[u8]>) -> Page {
        let start = match after {
            Some(after) if after >= &range.start[..] => Bound::Excluded(after),
            Some(_) | None => Bound::Included(&range.start[..]),
        };
        let versions = self.tree.page(start, &range.end, limit);
        let remaining = match versions.last() {
            Some(last) if versions.len() == limit => {
                let end = if range.end.is_empty() { self.tree.len() } else { self.tree.rank(&range.end) };
                end - self.tree.rank(&last.key) - 1
            }
            Some(_) | None => 0,
        };
        let entries = versions.iter().map(entry).collect();
        Page { entries, revision: Revision(self.revision), remaining: remaining as u64 }
    }
}

pub(crate) fn entry(version: &Arc<Version>) -> Entry {
    Entry { key: version.key.clone(), value: version.value.clone(), revision: Revision(version.revision) }
}
