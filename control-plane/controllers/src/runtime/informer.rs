//! A watched kind in memory, shared by all controllers that read it.
//!
//! Invariant: handlers see each object's changes in the order of the watch, and the store already holds the new state when
//! a handler runs. After a relist, objects that are gone are reported as deleted with their last known state.
//!
//! Data flow: one task a kind drives [`kube::runtime::watcher`] and applies its events; readers take `Arc`s out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use parking_lot::RwLock;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// An object's namespace (empty for cluster-scoped kinds) and name: what queues are keyed by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The namespace, or empty.
    pub namespace: Box<str>,
    /// The name.
    pub name: Box<str>,
}

impl ObjectKey {
    /// The key of that namespace and name.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of an object.
    #[must_use]
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// A resource version as a number: larger is later. The server's contract since KEP-5504.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision of an object; 0 if it has none.
    #[must_use]
    pub fn of<K: Resource>(object: &K) -> Self {
        Self(object.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0))
    }
}

/// What happened to an object.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// It was seen for the first time.
    Added(Arc<K>),
    /// It changed.
    Updated {
        /// How it was.
        old: Arc<K>,
        /// How it is.
        new: Arc<K>,
    },
    /// It is gone; this is its last known state.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The latest state.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Self::Added(object) | Self::Deleted(object) | Self::Updated { new: object, .. } => object,
        }
    }

    /// The state before, of an update.
    pub fn previous(&self) -> Option<&Arc<K>> {
        match self {
            Self::Updated { old, .. } => Some(old),
            Self::Added(_) | Self::Deleted(_) => None,
        }
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// The store of one kind. Cheap to clone; all clones are the same store.
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    state: RwLock<State<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

struct State<K> {
    objects: HashMap<ObjectKey, Arc<K>>,
    /// By the controlling owner's uid; objects without one are under their namespace (see [`Informer::orphans`]).
    by_owner: HashMap<Box<str>, HashSet<ObjectKey>>,
    by_namespace: HashMap<Box<str>, HashSet<ObjectKey>>,
    revision: Revision,
    lists_begun: u64,
    list_done: u64,
    listed: HashSet<ObjectKey>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K> std::fmt::Debug for Informer<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Informer").field("objects", &self.shared.state.read().objects.len()).finish()
    }
}

impl<K> Default for Informer<K> {
    fn default() -> Self {
        Self {
            shared: Arc::new(Shared {
                state: RwLock::new(State {
                    objects: HashMap::new(),
                    by_owner: HashMap::new(),
                    by_namespace: HashMap::new(),
                    revision: Revision::default(),
                    lists_begun: 0,
                    list_done: 0,
                    listed: HashSet::new(),
                }),
                handlers: RwLock::new(Vec::new()),
                synced: watch::Sender::new(false),
            }),
        }
    }
}

impl<K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static> Informer<K> {
    /// Watches `api` until `shutdown`. Errors are logged and tried again with back-off.
    pub async fn run(self, api: Api<K>, config: watcher::Config, shutdown: CancellationToken) {
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(event)) => self.apply(event),
                Some(Err(error)) => warn!(kind = %K::kind(&()), %error, "watch failed, trying again"),
                None => return,
            }
        }
    }
}

impl<K: Resource> Informer<K> {
    /// Adds a handler. It must only map the change to keys and enqueue them: it runs in the watch's task. Objects that are
    /// already stored are given to it as added.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = self.shared.handlers.write();
        let present: Vec<Arc<K>> = self.shared.state.read().objects.values().cloned().collect();
        for object in present {
            handler(&Change::Added(object));
        }
        handlers.push(Box::new(handler));
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        // The sender lives as long as self does, so waiting can't fail.
        let _ = self.shared.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Whether the first list is complete.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// The object of that key.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.shared.state.read().objects.get(key).cloned()
    }

    /// All objects.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<K>> {
        self.shared.state.read().objects.values().cloned().collect()
    }

    /// The objects of a namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let state = self.shared.state.read();
        state.resolve(state.by_namespace.get(namespace))
    }

    /// The objects whose controlling owner has that uid.
    #[must_use]
    pub fn owned_by(&self, uid: &str) -> Vec<Arc<K>> {
        let state = self.shared.state.read();
        state.resolve(state.by_owner.get(uid))
    }

    /// The objects of a namespace that no controller owns.
    #[must_use]
    pub fn orphans(&self, namespace: &str) -> Vec<Arc<K>> {
        self.owned_by(&orphan_index(namespace))
    }

    /// The latest revision that was seen, and how many lists were begun and which of them was last completed: what
    /// [`super::WriteTracking`] compares own writes with.
    #[must_use]
    pub fn progress(&self) -> (Revision, u64, u64) {
        let state = self.shared.state.read();
        (state.revision, state.lists_begun, state.list_done)
    }

    /// Applies an event of the watch to the store and tells the handlers.
    pub fn apply(&self, event: watcher::Event<K>) {
        match event {
            watcher::Event::Apply(object) => self.upsert(object),
            watcher::Event::Delete(object) => self.remove(object),
            watcher::Event::Init => {
                let mut state = self.shared.state.write();
                state.lists_begun += 1;
                state.listed.clear();
            }
            watcher::Event::InitApply(object) => {
                self.shared.state.write().listed.insert(ObjectKey::of(&object));
                self.upsert(object);
            }
            watcher::Event::InitDone => {
                let gone: Vec<Arc<K>> = {
                    let mut state = self.shared.state.write();
                    let listed = std::mem::take(&mut state.listed);
                    let keys: Vec<ObjectKey> =
                        state.objects.keys().filter(|key| !listed.contains(*key)).cloned().collect();
                    state.list_done = state.lists_begun;
                    keys.iter().filter_map(|key| state.take(key)).collect()
                };
                for object in gone {
                    self.notify(&Change::Deleted(object));
                }
                self.shared.synced.send_replace(true);
            }
        }
    }

    fn upsert(&self, object: K) {
        let object = Arc::new(object);
        let key = ObjectKey::of(&*object);
        let previous = {
            let mut state = self.shared.state.write();
            state.revision = state.revision.max(Revision::of(&*object));
            let previous = state.take(&key);
            state.put(key, Arc::clone(&object));
            previous
        };
        self.notify(&match previous {
            // The same name with another uid is another object: the old one was deleted unseen.
            Some(old) if old.meta().uid != object.meta().uid => {
                self.notify(&Change::Deleted(old));
                Change::Added(object)
            }
            Some(old) => Change::Updated { old, new: object },
            None => Change::Added(object),
        });
    }

    fn remove(&self, object: K) {
        {
            let mut state = self.shared.state.write();
            state.revision = state.revision.max(Revision::of(&object));
            state.take(&ObjectKey::of(&object));
        }
        self.notify(&Change::Deleted(Arc::new(object)));
    }

    fn notify(&self, change: &Change<K>) {
        for handler in self.shared.handlers.read().iter() {
            handler(change);
        }
    }
}

impl<K: Resource> State<K> {
    fn resolve(&self, keys: Option<&HashSet<ObjectKey>>) -> Vec<Arc<K>> {
        keys.into_iter().flatten().filter_map(|key| self.objects.get(key).cloned()).collect()
    }

    fn put(&mut self, key: ObjectKey, object: Arc<K>) {
        self.by_owner.entry(owner_index(&*object)).or_default().insert(key.clone());
        self.by_namespace.entry(key.namespace.clone()).or_default().insert(key.clone());
        self.objects.insert(key, object);
    }

    fn take(&mut self, key: &ObjectKey) -> Option<Arc<K>> {
        let object = self.objects.remove(key)?;
        drop_from(&mut self.by_owner, &owner_index(&*object), key);
        drop_from(&mut self.by_namespace, &key.namespace, key);
        Some(object)
    }
}

fn drop_from(index: &mut HashMap<Box<str>, HashSet<ObjectKey>>, value: &str, key: &ObjectKey) {
    if let Some(keys) = index.get_mut(value) {
        keys.remove(key);
        if keys.is_empty() {
            index.remove(value);
        }
    }
}

fn owner_index<K: Resource>(object: &K) -> Box<str> {
    match super::controller_of(object.meta()) {
        Some(owner) => owner.uid.as_str().into(),
        None => orphan_index(object.meta().namespace.as_deref().unwrap_or_default()),
    }
}

/// No uid holds a slash, so the two uses of the index can't meet.
fn orphan_index(namespace: &str) -> Box<str> {
    format!("namespace/{namespace}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
    use parking_lot::Mutex;

    fn map(name: &str, uid: &str, version: &str, owner: Option<&str>) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("n".to_owned()),
                uid: Some(uid.to_owned()),
                resource_version: Some(version.to_owned()),
                owner_references: owner.map(|uid| {
                    vec![OwnerReference { uid: uid.to_owned(), controller: Some(true), ..OwnerReference::default() }]
                }),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn log(informer: &Informer<ConfigMap>) -> Arc<Mutex<Vec<String>>> {
        let log = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&log);
        informer.on_change(move |change| {
            let verb = match change {
                Change::Added(_) => "added",
                Change::Updated { .. } => "updated",
                Change::Deleted(_) => "deleted",
            };
            written.lock().push(format!("{verb} {}", change.object().metadata.uid.clone().unwrap_or_default()));
        });
        log
    }

    #[test]
    fn a_relist_reports_what_is_gone_and_what_was_replaced() {
        let informer = Informer::default();
        let log = log(&informer);
        informer.apply(watcher::Event::Apply(map("a", "1", "1", None)));
        informer.apply(watcher::Event::Apply(map("b", "2", "2", None)));
        informer.apply(watcher::Event::Init);
        informer.apply(watcher::Event::InitApply(map("b", "3", "3", None)));
        informer.apply(watcher::Event::InitDone);
        assert_eq!(*log.lock(), ["added 1", "added 2", "deleted 2", "added 3", "deleted 1"]);
        assert!(informer.is_synced());
        assert_eq!(informer.progress(), (Revision(3), 1, 1));
    }

    #[test]
    fn objects_are_found_by_owner_and_orphans_by_namespace() {
        let informer = Informer::default();
        informer.apply(watcher::Event::Apply(map("a", "1", "1", Some("owner"))));
        informer.apply(watcher::Event::Apply(map("b", "2", "2", None)));
        assert_eq!(informer.owned_by("owner").len(), 1);
        assert_eq!(informer.orphans("n").len(), 1);
        informer.apply(watcher::Event::Apply(map("a", "1", "3", None)));
        assert!(informer.owned_by("owner").is_empty());
        assert_eq!((informer.orphans("n").len(), informer.in_namespace("n").len()), (2, 2));
        informer.apply(watcher::Event::Delete(map("a", "1", "4", None)));
        assert_eq!((informer.orphans("n").len(), informer.all().len()), (1, 1));
    }

    #[test]
    fn a_late_handler_is_told_of_what_is_there() {
        let informer = Informer::default();
        informer.apply(watcher::Event::Apply(map("a", "1", "1", None)));
        assert_eq!(*log(&informer).lock(), ["added 1"]);
    }
}
