//! Own writes that the informer has not yet shown, so that a controller never acts twice on the same gap.
//!
//! Upstream counts expected creations and deletions; here the informer's progress is compared with what was written: a
//! created object is seen once the informer has passed its revision, a deleted one once it is gone or terminating.
//!
//! Invariant: while [`WriteTracking::is_settled`] is false for a key, its controller creates and deletes nothing more.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{ObjectKey, Revision};

/// Upstream's `ExpectationsTimeout`: a write that is still unseen then is given up waiting for.
const TIMEOUT: Duration = Duration::from_secs(300);

/// What an informer knows of an object that was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservedDeletion {
    /// It is gone or has a deletion timestamp.
    Seen,
    /// It still looks alive.
    Unseen,
}

/// The unseen writes of one controller, by the key that it works on.
#[derive(Debug, Default)]
pub struct WriteTracking {
    pending: Mutex<HashMap<ObjectKey, Pending>>,
}

#[derive(Debug)]
struct Pending {
    revision: Revision,
    lists_begun: u64,
    deleted: HashSet<ObjectKeyAndUid>,
    since: Instant,
}

/// A deleted object: its key, and the uid as the name may be used again.
type ObjectKeyAndUid = (ObjectKey, Box<str>);

impl WriteTracking {
    /// An object was created at `revision`, when the informer had begun that many lists.
    pub fn created(&self, key: &ObjectKey, revision: Revision, lists_begun: u64, now: Instant) {
        let mut pending = self.pending.lock();
        let entry = pending.entry(key.clone()).or_insert_with(|| Pending::new(now));
        entry.revision = entry.revision.max(revision);
        entry.lists_begun = entry.lists_begun.max(lists_begun);
        entry.since = now;
    }

    /// The object of that key and uid was deleted.
    pub fn deleted(&self, key: &ObjectKey, object: ObjectKey, uid: &str, now: Instant) {
        let mut pending = self.pending.lock();
        let entry = pending.entry(key.clone()).or_insert_with(|| Pending::new(now));
        entry.deleted.insert((object, uid.into()));
        entry.since = now;
    }

    /// The key's object is gone: nothing of it is waited for.
    pub fn forget(&self, key: &ObjectKey) {
        self.pending.lock().remove(key);
    }

    /// Whether the informer shows all writes of the key. `progress` is [`super::Informer::progress`], `observed` says what the
    /// informer knows of a deleted object.
    pub fn is_settled(
        &self,
        key: &ObjectKey,
        progress: (Revision, u64, u64),
        observed: impl Fn(&ObjectKey, &str) -> ObservedDeletion,
        now: Instant,
    ) -> bool {
        let mut pending = self.pending.lock();
        let Some(entry) = pending.get_mut(key) else { return true };
        let (revision, _, list_done) = progress;
        // A list that began after the write shows it, even if the object is gone again.
        let created_seen = revision >= entry.revision || list_done > entry.lists_begun;
        entry.deleted.retain(|(object, uid)| observed(object, uid) == ObservedDeletion::Unseen);
        let settled = created_seen && entry.deleted.is_empty();
        let expired = now.saturating_duration_since(entry.since) > TIMEOUT;
        if settled || expired {
            pending.remove(key);
        }
        settled || expired
    }
}

impl Pending {
    fn new(now: Instant) -> Self {
        Self { revision: Revision::default(), lists_begun: 0, deleted: HashSet::new(), since: now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSEEN: fn(&ObjectKey, &str) -> ObservedDeletion = |_, _| ObservedDeletion::Unseen;
    const SEEN: fn(&ObjectKey, &str) -> ObservedDeletion = |_, _| ObservedDeletion::Seen;

    #[test]
    fn a_created_object_is_waited_for_until_the_informer_passes_its_revision() {
        let (tracking, key, now) = (WriteTracking::default(), ObjectKey::new("n", "a"), Instant::now());
        tracking.created(&key, Revision(7), 1, now);
        assert!(!tracking.is_settled(&key, (Revision(6), 1, 1), SEEN, now));
        assert!(tracking.is_settled(&key, (Revision(7), 1, 1), SEEN, now));
        assert!(tracking.is_settled(&key, (Revision(0), 1, 1), SEEN, now), "settled once is settled");
    }

    #[test]
    fn a_list_begun_after_the_write_shows_it() {
        let (tracking, key, now) = (WriteTracking::default(), ObjectKey::new("n", "a"), Instant::now());
        tracking.created(&key, Revision(7), 1, now);
        assert!(!tracking.is_settled(&key, (Revision(6), 2, 1), SEEN, now));
        assert!(tracking.is_settled(&key, (Revision(6), 2, 2), SEEN, now));
    }

    #[test]
    fn a_deleted_object_is_waited_for_until_it_is_seen_to_go_or_five_minutes_passed() {
        let (tracking, key, now) = (WriteTracking::default(), ObjectKey::new("n", "a"), Instant::now());
        tracking.deleted(&key, ObjectKey::new("n", "pod"), "uid", now);
        assert!(!tracking.is_settled(&key, (Revision(9), 1, 1), UNSEEN, now));
        assert!(tracking.is_settled(&key, (Revision(9), 1, 1), SEEN, now));
        tracking.deleted(&key, ObjectKey::new("n", "pod"), "uid", now);
        assert!(tracking.is_settled(&key, (Revision(9), 1, 1), UNSEEN, now + Duration::from_secs(301)));
    }
}
