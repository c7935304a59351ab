//! The cache of one resource.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use skep_api::GroupResource;
use skep_store::Revision;
use tokio::sync::mpsc;

use super::watcher::{Change, ChangeKind, Filter, QUEUE, Seen, Subscription, Watching};
use crate::object::Shared;

/// Recent changes kept for watchers that resume; older ones come from the store's own history.
const WINDOW: usize = 4096;

/// Objects of a resource, recent changes, and watchers.
pub struct Resource {
    /// Its name.
    pub resource: GroupResource,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Bytes, Shared>,
    window: VecDeque<Arc<Change>>,
    /// Changes above this revision are all in the window.
    window_from: Revision,
    watchers: Vec<Subscription>,
}

/// A consistent view of a part of a resource.
pub struct Snapshot {
    /// In key order.
    pub objects: Vec<Shared>,
    /// How many selected objects follow after the limit.
    pub remaining: usize,
}

/// How a watch begins.
pub struct Start {
    /// The watcher.
    pub watching: Watching,
    /// Changes since the revision asked for that are in the window.
    pub missed: Vec<Seen>,
    /// `Some(oldest)`: the window begins at `oldest` only; changes between must come from the store.
    pub gap_until: Option<Revision>,
}

impl Resource {
    pub(super) fn new(resource: GroupResource) -> Self {
        Self { resource, state: RwLock::default() }
    }

    /// The object of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Shared> {
        self.state.read().objects.get(key).cloned()
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Selected objects in key order, after the key `after`, at most `limit` (0: all). Objects are shared, none is copied.
    #[must_use]
    pub fn list(&self, filter: &Filter, after: Option<&Bytes>, limit: usize) -> Snapshot {
        let state = self.state.read();
        let start = match after {
            Some(after) => Bound::Excluded(after.clone()),
            None => Bound::Included(filter.prefix.clone()),
        };
        let mut objects = Vec::new();
        let mut remaining = 0;
        for (_, object) in
            state.objects.range((start, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(&filter.prefix))
        {
            if limit > 0 && objects.len() == limit {
                if filter.matches.is_none() {
                    remaining += 1;
                    continue;
                }
                // With a selector upstream does not count what remains; one more match is enough to know that there is more.
                if filter.selects(object) {
                    remaining = 1;
                    break;
                }
            } else if filter.selects(object) {
                objects.push(object.clone());
            }
        }
        Snapshot { objects, remaining }
    }

    /// Begins a watch after a revision.
    #[must_use]
    pub fn watch(&self, filter: Filter, from: Revision) -> Start {
        let filter = Arc::new(filter);
        let mut state = self.state.write();
        let gap_until = (from < state.window_from).then_some(state.window_from);
        let first = state.window.partition_point(|change| change.revision() <= from);
        let missed = state.window.range(first..).filter_map(|change| filter.seen(change)).collect();
        Start { watching: state.subscribe(filter), missed, gap_until }
    }

    /// Begins a watch with everything that is there now: the objects, and a watcher of all that comes after.
    #[must_use]
    pub fn watch_from_now(&self, filter: Filter) -> (Vec<Shared>, Watching) {
        let filter = Arc::new(filter);
        let mut state = self.state.write();
        let objects = state
            .objects
            .range((Bound::Included(filter.prefix.clone()), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&filter.prefix))
            .filter(|(_, object)| filter.selects(object))
            .map(|(_, object)| object.clone())
            .collect();
        (objects, state.subscribe(filter))
    }

    /// Applies changes in order of their revisions and queues them for the watchers.
    pub(super) fn apply(&self, changes: Vec<Incoming>) -> Vec<Arc<Change>> {
        let mut applied = Vec::with_capacity(changes.len());
        let mut state = self.state.write();
        for change in changes {
            let change = match change {
                Incoming::Put(object) => {
                    let previous = state.objects.insert(object.key.clone(), object.clone());
                    let kind = if previous.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
                    Change::new(kind, object, previous)
                }
                Incoming::Delete(key, revision) => match state.objects.remove(&key) {
                    Some(last) => Change::new(ChangeKind::Deleted, Arc::new(last.at(revision)), Some(last)),
                    None => continue,
                },
            };
            let change = Arc::new(change);
            state.publish(&change);
            applied.push(change);
        }
        applied
    }

    /// Begins the window: everything at or before this revision is in the objects, and no longer among the changes.
    pub(super) fn start_at(&self, revision: Revision) {
        let mut state = self.state.write();
        state.window.clear();
        state.window_from = revision;
    }

    /// The keys that are there: what a new listing is compared with.
    pub(super) fn keys(&self) -> Vec<(Bytes, Revision)> {
        self.state.read().objects.values().map(|object| (object.key.clone(), object.revision)).collect()
    }

    /// Cuts off every watcher: their history is broken.
    pub(crate) fn cut_off_watchers(&self) {
        self.state.write().watchers.clear();
    }

    /// How many watchers there are.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.state.read().watchers.len()
    }
}

/// A change on its way in.
pub(super) enum Incoming {
    Put(Shared),
    Delete(Bytes, Revision),
}

impl State {
    fn subscribe(&mut self, filter: Arc<Filter>) -> Watching {
        let (sender, queue) = mpsc::channel(QUEUE);
        // Watchers that have gone leave here, so that a resource that never changes does not collect them.
        self.watchers.retain(|watcher| !watcher.queue.is_closed());
        self.watchers.push(Subscription { filter: filter.clone(), queue: sender });
        Watching { filter, queue }
    }

    fn publish(&mut self, change: &Arc<Change>) {
        self.watchers.retain(|watcher| match watcher.filter.seen(change) {
            Some(seen) => watcher.queue.try_send(seen).is_ok(),
            None => true,
        });
        if self.window.len() == WINDOW
            && let Some(oldest) = self.window.pop_front()
        {
            self.window_from = oldest.revision();
        }
        self.window.push_back(change.clone());
    }
}
