//! Feeds the cache from the store: a listing of everything, then one watch on everything.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use skep_store::{At, Error, Event, EventKind, Range, Revision};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Cache;
use super::resource::Incoming;
use crate::keys;
use crate::object::Object;

/// Keys a page of the first listing.
const PAGE: usize = 10_000;

/// Fills the cache and keeps it until cancelled. A watch that breaks is begun again where it was; one whose history is gone by a new listing,
/// which ends the watchers (they list again) and loses nothing.
pub async fn run(cache: Arc<Cache>, shutdown: CancellationToken) {
    let _closed = cache.closed.clone().drop_guard();
    let _forgotten = Forget(cache.clone());
    let mut from: Option<Revision> = None;
    loop {
        let round = async {
            let from_now = match from {
                Some(revision) => revision,
                None => load(&cache).await?,
            };
            from = Some(from_now);
            follow(&cache, &mut from).await
        };
        let outcome = tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = round => outcome,
        };
        match outcome {
            Ok(()) | Err(Error::Closed) => return,
            Err(Error::Lagging) => warn!("the watch cache fell behind the store and watches anew"),
            Err(error @ Error::Compacted { .. }) => {
                warn!(%error, "the watch cache lost its place and lists anew");
                from = None;
            }
            Err(error) => warn!(%error, "the watch cache can't read the store"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
}

/// Lets the observers go once nothing feeds the cache: they may hold what holds the cache, and with it the store.
struct Forget(Arc<Cache>);

impl Drop for Forget {
    fn drop(&mut self) {
        self.0.observers.write().clear();
    }
}

async fn load(cache: &Cache) -> Result<Revision, Error> {
    let store = cache.store();
    let mut at = At::Latest;
    let mut after = None;
    let mut listed = HashSet::new();
    let fresh = !cache.is_loaded();
    let revision = loop {
        let page = store.list(&Range::all(), at, PAGE, after.as_deref()).await?;
        at = At::Exactly(page.revision);
        after = page.entries.last().map(|entry| entry.key.clone());
        let last = page.remaining == 0;
        let revision = page.revision;
        let mut batch = Vec::with_capacity(page.entries.len());
        for entry in page.entries {
            if !fresh {
                listed.insert(entry.key.clone());
            }
            batch.push((entry.key.clone(), entry));
        }
        apply(cache, batch.into_iter().map(|(key, entry)| (key, Some((entry.value, entry.revision)), Revision(0))));
        if last {
            break revision;
        }
    };
    let resources: Vec<_> = cache.resources.read().values().cloned().collect();
    for resource in resources {
        if !fresh {
            let gone = resource.keys().into_iter().filter(|(key, _)| !listed.contains(key));
            let gone = gone.map(|(key, _)| Incoming::Delete(key, revision)).collect();
            for change in resource.apply(gone) {
                cache.observed(&change);
            }
            resource.cut_off_watchers();
        }
        resource.start_at(revision);
    }
    cache.revision.send_replace(revision);
    cache.loaded.send_replace(true);
    info!(%revision, "the watch cache is loaded");
    Ok(revision)
}

async fn follow(cache: &Cache, from: &mut Option<Revision>) -> Result<(), Error> {
    let mut events = cache.store().watch(Range::all(), from.unwrap_or_default()).await?;
    loop {
        let (batch, mark) = events.next().await?;
        apply(cache, batch.into_iter().map(split));
        *from = Some(mark);
        cache.revision.send_replace(mark);
    }
}

type Keyed = (bytes::Bytes, Option<(bytes::Bytes, Revision)>, Revision);

fn split(event: Event) -> Keyed {
    let value = match event.kind {
        EventKind::Put(value) => Some((value, event.revision)),
        EventKind::Delete => None,
    };
    (event.key, value, event.revision)
}

/// Applies changes resource by resource; neighbours of one resource share a lock.
fn apply(cache: &Cache, changes: impl Iterator<Item = Keyed>) {
    let mut run: Vec<Incoming> = Vec::new();
    let mut prefix: Vec<u8> = Vec::new();
    for (key, value, revision) in changes {
        let of = keys::resource_prefix(&key);
        if of != prefix {
            flush(cache, &prefix, std::mem::take(&mut run));
            of.clone_into(&mut prefix);
        }
        match value {
            None => run.push(Incoming::Delete(key, revision)),
            Some((value, revision)) => match Object::from_parts(key, value, revision) {
                // Custom objects may come before their definition: the listing is in the order of keys.
                Ok(object) => {
                    register(cache, &prefix);
                    run.push(Incoming::Put(Arc::new(object)));
                }
                Err(error) if cache.resources.read().contains_key(&prefix) => error!(%error, "skipped"),
                // What the server keeps besides objects.
                Err(_) => {}
            },
        }
    }
    flush(cache, &prefix, run);
}

/// Makes sure that objects of a prefix are kept.
fn register(cache: &Cache, prefix: &[u8]) {
    if !cache.resources.read().contains_key(prefix)
        && let Some(resource) = keys::resource_of(prefix)
    {
        cache.register(resource);
    }
}

fn flush(cache: &Cache, prefix: &[u8], changes: Vec<Incoming>) {
    if changes.is_empty() {
        return;
    }
    let Some(resource) = cache.resources.read().get(prefix).cloned() else { return };
    for change in resource.apply(changes) {
        cache.observed(&change);
    }
}
