//! The watch cache: every object of every kind, as the store has it now, with a window of recent changes.
//!
//! Data comes in by one watch on the whole store (`feed`) and goes out as shared objects: to GET and list by reading, to watchers by their
//! own bounded queue. Invariant: a resource's changes are applied and queued before the cache's revision moves past them, so whoever waits for a
//! revision ([`Cache::wait_for`]) and then reads has seen everything up to it. No lock is held across an await, or while encoding.

mod feed;
mod resource;
mod watcher;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use skep_api::{GroupResource, NamespacedName, Status};
use skep_store::{Revision, Store};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use feed::run;
pub use resource::{Resource, Snapshot};
pub use watcher::{Change, ChangeKind, Filter, Matches, Seen, Subscription, Watching};

use crate::keys;
use crate::object::Shared;

/// How long a read waits for a revision that it names and that is not there yet; upstream's `blockTimeout`.
const WAIT: Duration = Duration::from_secs(3);

/// Called for every change, in order, before the cache's revision moves: indexes that must never lag (RBAC, the node graph) hang here.
pub type Observer = Arc<dyn Fn(&GroupResource, NamespacedName, Option<&Shared>) + Send + Sync>;

/// The caches of all resources.
pub struct Cache {
    store: Arc<dyn Store>,
    resources: RwLock<HashMap<Vec<u8>, Arc<Resource>>>,
    observers: RwLock<Vec<(GroupResource, Observer)>>,
    revision: watch::Sender<Revision>,
    loaded: watch::Sender<bool>,
    /// Nothing feeds it any more: watchers end, so that a server that stops need not wait for them.
    closed: CancellationToken,
}

impl Cache {
    /// An empty cache over a store; [`run`] fills it and keeps it.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            resources: RwLock::default(),
            observers: RwLock::default(),
            revision: watch::Sender::new(Revision(0)),
            loaded: watch::Sender::new(false),
            closed: CancellationToken::new(),
        })
    }

    /// Returns when nothing feeds the cache any more.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Declares a resource; its objects are ignored until then.
    pub fn register(&self, resource: GroupResource) {
        let prefix = keys::prefix(&resource).into_bytes();
        let revision = self.revision();
        self.resources.write().entry(prefix).or_insert_with(|| {
            let made = Resource::new(resource);
            // What was before is in the store's history only.
            made.start_at(revision);
            Arc::new(made)
        });
    }

    /// Ends the watchers of a resource that is no more, and forgets it, unless it has objects: those are found again when it comes back.
    pub fn unregister(&self, resource: &GroupResource) {
        let prefix = keys::prefix(resource).into_bytes();
        let mut resources = self.resources.write();
        let Some(found) = resources.get(&prefix) else { return };
        found.cut_off_watchers();
        if found.is_empty() {
            resources.remove(&prefix);
        }
    }

    /// Adds an observer of a resource. It is called from the feeding task and must not block.
    pub fn observe(&self, resource: GroupResource, observer: Observer) {
        self.observers.write().push((resource, observer));
    }

    /// The cache of a resource.
    #[must_use]
    pub fn resource(&self, resource: &GroupResource) -> Option<Arc<Resource>> {
        self.resources.read().get(keys::prefix(resource).as_bytes()).cloned()
    }

    /// The object of a key as the cache has it; for reads that need the newest state, [`Self::wait_for_latest`] comes first.
    #[must_use]
    pub fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Shared> {
        self.resource(resource)?.get(&keys::object(resource, namespace, name))
    }

    /// The revision up to which the cache has everything.
    #[must_use]
    pub fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// The store underneath.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Whether the first listing is in: before that nothing may be read or watched, since what is missing would look deleted.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    /// Waits for the first listing.
    ///
    /// # Errors
    /// 503 when it does not come in time.
    pub async fn wait_until_loaded(&self) -> Result<(), Status> {
        if self.is_loaded() {
            return Ok(());
        }
        let mut loaded = self.loaded.subscribe();
        match tokio::time::timeout(WAIT, loaded.wait_for(|loaded| *loaded)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Status::unavailable("the server's cache is not loaded yet", 1)),
        }
    }

    /// Waits until the cache has everything up to a revision.
    ///
    /// # Errors
    /// 504 with upstream's `ResourceVersionTooLarge` when it does not come in time.
    pub async fn wait_for(&self, revision: Revision) -> Result<(), Status> {
        if self.revision() >= revision {
            return Ok(());
        }
        let mut seen = self.revision.subscribe();
        let arrived = tokio::time::timeout(WAIT, seen.wait_for(|current| *current >= revision)).await;
        match arrived {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Status::version_too_large(revision.0, self.revision().0)),
        }
    }

    /// Waits until the cache has everything that was acknowledged before the call: what makes reads from it linearizable.
    ///
    /// # Errors
    /// When the store can't tell, or the cache does not get there in time.
    pub async fn wait_for_latest(&self, resource: &GroupResource) -> Result<Revision, Status> {
        let current = self.store.current(&keys::range(resource, "")).await.map_err(|e| crate::rest::store_error(&e))?;
        self.wait_for(current).await?;
        Ok(current)
    }

    fn observed(&self, change: &Change) {
        let observers = self.observers.read();
        if observers.is_empty() {
            return;
        }
        let (namespace, name) = change.object.namespaced_name();
        let prefix = keys::resource_prefix(&change.object.key);
        for (resource, observer) in observers.iter().filter(|(resource, _)| keys::prefix(resource).as_bytes() == prefix)
        {
            let at = NamespacedName { namespace: namespace.to_owned(), name: name.to_owned() };
            observer(resource, at, (change.kind != ChangeKind::Deleted).then_some(&change.object));
        }
    }
}

#[cfg(test)]
mod tests;
