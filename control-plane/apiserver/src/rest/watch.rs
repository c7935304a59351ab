//! `watch`: a stream of changes from the cache, begun anywhere that the store's history reaches.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use skep_api::Status;
use skep_api::kinds::Kind;
use skep_store::{Error as StoreError, EventKind, Range, Revision};
use tokio::time::Instant;

use super::{Answer, Call, Engine, Payload, selection, store_error};
use crate::cache::{Cache, Change, ChangeKind, Filter, Resource, Seen, Watching};
use crate::object::{Object, Shared};

/// How often an idle watcher that wants bookmarks gets one.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// How long a watch lasts when the client does not say: between this and twice this, so that watchers do not all come back at once.
const MIN_TIMEOUT: Duration = Duration::from_secs(1800);

/// What a watcher gets next.
pub enum WatchItem {
    /// A change.
    Change(Seen),
    /// A progress mark: everything up to this revision has been sent. `true` ends the initial objects.
    Bookmark(Revision, bool),
}

/// A running watch.
pub struct WatchBody {
    /// The kind in the version asked for.
    pub kind: Arc<Kind>,
    cache: Arc<Cache>,
    resource: Arc<Resource>,
    ready: VecDeque<WatchItem>,
    watching: Watching,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    /// Set where a webhook makes the objects of the version that is watched.
    converter: Option<Arc<Engine>>,
}

impl WatchBody {
    /// Lets an engine's webhooks convert what is watched.
    pub(crate) fn convert_by(&mut self, engine: Arc<Engine>) {
        self.converter = Some(engine);
    }

    /// A change in the version that is watched; `None` when its webhook fails, which ends the watch.
    pub(crate) async fn converted(&self, item: WatchItem) -> Option<WatchItem> {
        let (Some(engine), WatchItem::Change(seen)) = (&self.converter, &item) else { return Some(item) };
        let (kind, object) = seen.parts();
        let made = engine.in_version(&self.kind, vec![object.clone()]).await.ok()?.pop()?;
        Some(WatchItem::Change(Seen::As(kind, made)))
    }

    /// The next item; `None` when the time is over, the server stops, or the watcher was too slow and has to list again. Cancel-safe.
    pub async fn next(&mut self) -> Option<WatchItem> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(item);
            }
            tokio::select! {
                biased;
                seen = self.watching.next() => {
                    return Some(WatchItem::Change(seen?));
                }
                () = self.cache.closed() => return None,
                () = tokio::time::sleep_until(self.end) => return None,
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    // The revision first, then what waits: everything up to it is queued by now.
                    let mut mark = self.cache.revision();
                    while let Some(seen) = self.watching.try_next() {
                        mark = mark.max(seen.parts().1.revision);
                        self.ready.push_back(WatchItem::Change(seen));
                    }
                    self.next_bookmark = Instant::now() + BOOKMARK_PERIOD;
                    self.ready.push_back(WatchItem::Bookmark(mark, false));
                }
            }
        }
    }

    /// What is ready without waiting: lets many changes share a write to the socket.
    pub fn try_next(&mut self) -> Option<WatchItem> {
        if let Some(item) = self.ready.pop_front() {
            return Some(item);
        }
        let seen = self.watching.try_next()?;
        Some(WatchItem::Change(seen))
    }

    /// The resource's name, for metrics.
    #[must_use]
    pub fn resource(&self) -> &skep_api::GroupResource {
        &self.resource.resource
    }
}

impl Engine {
    /// `watch`.
    ///
    /// # Errors
    /// 400 for parameters that contradict each other, 410 when the history after the revision is gone.
    pub async fn watch(&self, call: &Call<'_>) -> Result<Answer, Status> {
        let query = call.query;
        check(query)?;
        let filter = || selection::filter(call.kind, call.namespace, call.name, query);
        let resource = self.cache.resource(&call.kind.storage_resource()).ok_or_else(Status::no_such_path)?;
        let timeout = query.timeout.filter(|timeout| !timeout.is_zero()).unwrap_or_else(|| {
            let spread = uuid::Uuid::new_v4().as_u128() % u128::from(MIN_TIMEOUT.as_secs());
            MIN_TIMEOUT + Duration::from_secs(u64::try_from(spread).unwrap_or_default())
        });
        let mut ready = VecDeque::new();
        let streaming = query.initial_events == Some(true);
        let watching = match query.resource_version {
            Some(revision) if revision.0 > 0 && !streaming => {
                let (missed, watching) = self.resume(&resource, filter, revision).await?;
                ready.extend(missed.into_iter().map(WatchItem::Change));
                watching
            }
            version => {
                // "Any" is what the cache has; "most recent" waits for what was acknowledged.
                match version {
                    Some(Revision(0)) => {}
                    Some(revision) => self.cache.wait_for(revision).await?,
                    None => {
                        self.cache.wait_for_latest(&call.kind.storage_resource()).await?;
                    }
                }
                let revision = self.cache.revision();
                let (objects, watching) = resource.watch_from_now(filter()?);
                let newest = objects.iter().map(|object| object.revision).max().unwrap_or_default();
                let revision = revision.max(newest);
                // Upstream's synthetic events come for a watch without a revision, and are left out when the client says so.
                if query.initial_events != Some(false) {
                    ready.extend(
                        objects.into_iter().map(|object| WatchItem::Change(Seen::As(ChangeKind::Added, object))),
                    );
                }
                if streaming && query.bookmarks {
                    ready.push_back(WatchItem::Bookmark(revision, true));
                }
                watching
            }
        };
        let now = Instant::now();
        let body = WatchBody {
            kind: call.kind.clone(),
            cache: self.cache.clone(),
            resource,
            ready,
            watching,
            bookmarks: query.bookmarks,
            next_bookmark: now
                + BOOKMARK_PERIOD.min(timeout.saturating_sub(Duration::from_secs(2)).max(Duration::from_secs(1))),
            end: now + timeout,
            converter: None,
        };
        Ok(Answer::ok(Payload::Watch(Box::new(body))))
    }

    /// A watcher after `revision`: what it missed, from the cache's window and before that from the store's history, and what comes.
    async fn resume(
        &self,
        resource: &Arc<Resource>,
        filter: impl Fn() -> Result<Filter, Status>,
        revision: Revision,
    ) -> Result<(Vec<Seen>, Watching), Status> {
        let start = resource.watch(filter()?, revision);
        let Some(until) = start.gap_until else { return Ok((start.missed, start.watching)) };
        let mut missed = self.history(&filter()?, revision, until).await?;
        missed.extend(start.missed);
        Ok((missed, start.watching))
    }

    async fn history(&self, filter: &Filter, after: Revision, until: Revision) -> Result<Vec<Seen>, Status> {
        let too_old = |error: &StoreError| match error {
            StoreError::Compacted { oldest } => {
                Status::expired(format!("too old resource version: {after} ({oldest})"))
            }
            error => store_error(error),
        };
        let range = Range::prefix(filter.prefix.clone());
        let mut events = self.store().watch(range, after).await.map_err(|error| too_old(&error))?;
        let mut missed = Vec::new();
        loop {
            let (batch, mark) = events.next().await.map_err(|error| too_old(&error))?;
            for event in batch.into_iter().filter(|event| event.revision <= until) {
                missed.extend(filter.seen(&Arc::new(change(event)?)));
            }
            if mark >= until {
                return Ok(missed);
            }
        }
    }
}

/// A change as the store's history tells it.
fn change(event: skep_store::Event) -> Result<Change, Status> {
    let previous: Option<Shared> = match event.previous {
        Some((value, at)) => {
            Some(Arc::new(Object::from_parts(event.key.clone(), value, at).map_err(Status::internal)?))
        }
        None => None,
    };
    Ok(match (event.kind, previous) {
        (EventKind::Put(value), previous) => {
            let kind = if previous.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
            let object = Object::from_parts(event.key, value, event.revision).map_err(Status::internal)?;
            Change::new(kind, Arc::new(object), previous)
        }
        (EventKind::Delete, Some(last)) => {
            Change::new(ChangeKind::Deleted, Arc::new(last.at(event.revision)), Some(last))
        }
        (EventKind::Delete, None) => return Err(Status::internal("a deletion without a value before it")),
    })
}

fn check(query: &super::Query) -> Result<(), Status> {
    let list_options = |why: &str| {
        Err(Status::new(422, skep_api::Reason::Invalid, format!("ListOptions.meta.k8s.io \"\" is invalid: {why}")))
    };
    match (query.initial_events, query.version_match.as_str()) {
        (Some(_), "NotOlderThan") | (None, "") => {}
        (Some(_), _) => {
            return list_options(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            );
        }
        (None, _) => {
            return list_options(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            );
        }
    }
    Ok(())
}
