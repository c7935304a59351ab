//! Tells controllers which objects are gone, of any kind: the garbage collector watches all kinds, so nobody else has to.
//!
//! Data flow: the garbage collector's watches → [`Departures`] → handlers that map what is gone to keys.

use std::sync::Arc;

use kube::api::ApiResource;
use parking_lot::RwLock;

type Handler = Box<dyn Fn(&ApiResource, Option<&str>) + Send + Sync>;

/// The handlers. Cheap to clone; all clones are the same.
#[derive(Clone, Default)]
pub struct Departures {
    handlers: Arc<RwLock<Vec<Handler>>>,
}

impl Departures {
    /// Adds a handler, called with the kind and the namespace of each object that is gone; without a namespace after each list
    /// of the kind, which may lack any object that was there before. It must only map that to keys and enqueue them: it runs
    /// in the watch's task.
    pub fn on_gone(&self, handler: impl Fn(&ApiResource, Option<&str>) + Send + Sync + 'static) {
        self.handlers.write().push(Box::new(handler));
    }

    pub(crate) fn gone(&self, kind: &ApiResource, namespace: Option<&str>) {
        for handler in self.handlers.read().iter() {
            handler(kind, namespace);
        }
    }
}

impl std::fmt::Debug for Departures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Departures").field("handlers", &self.handlers.read().len()).finish()
    }
}
