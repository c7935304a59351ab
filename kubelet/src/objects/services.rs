//! All Services of the cluster, watched, without what no container is told of them.
//!
//! Invariant: readers see the Services as they were at one time: a new list takes the old one's place when it is whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use parking_lot::RwLock;
use skep_client::kube::runtime::WatchStreamExt as _;
use skep_client::kube::runtime::watcher::{self, Event, watcher};
use skep_client::kube::{Api, Client};
use skep_client::slim::SlimService;
use tokio_util::sync::CancellationToken;

/// By namespace and name.
type ByNamespace = BTreeMap<String, BTreeMap<String, Arc<SlimService>>>;

/// The watched Services.
pub(super) struct Services {
    client: Client,
    known: RwLock<Option<ByNamespace>>,
}

impl Services {
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: RwLock::default() }
    }

    /// Watches until `stop`; failures are waited out with a back-off.
    pub(super) async fn run(&self, stop: CancellationToken) {
        let api: Api<SlimService> = Api::all(self.client.clone());
        let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
        let mut listed = ByNamespace::new();
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = events.next() => event,
            };
            match event {
                None => return,
                Some(Err(error)) => tracing::warn!(%error, "watching Services failed"),
                Some(Ok(Event::Init)) => listed.clear(),
                Some(Ok(Event::InitApply(service))) => insert(&mut listed, service),
                Some(Ok(Event::InitDone)) => *self.known.write() = Some(std::mem::take(&mut listed)),
                Some(Ok(Event::Apply(service))) => insert(self.known.write().get_or_insert_default(), service),
                Some(Ok(Event::Delete(service))) => remove(self.known.write().get_or_insert_default(), &service),
            }
        }
    }

    /// None until all were read once.
    pub(super) fn told_in(&self, namespace: &str) -> Option<Vec<Arc<SlimService>>> {
        let known = self.known.read();
        let known = known.as_ref()?;
        let own = known.get(namespace).into_iter().flat_map(BTreeMap::values);
        let api_server = known.get("default").and_then(|services| services.get("kubernetes"));
        Some(own.chain(api_server.filter(|_| namespace != "default")).cloned().collect())
    }
}

fn insert(known: &mut ByNamespace, service: SlimService) {
    let (namespace, name) = key(&service);
    known.entry(namespace).or_default().insert(name, Arc::new(service));
}

fn remove(known: &mut ByNamespace, service: &SlimService) {
    let (namespace, name) = key(service);
    if let Some(services) = known.get_mut(&namespace) {
        services.remove(&name);
        if services.is_empty() {
            known.remove(&namespace);
        }
    }
}

fn key(service: &SlimService) -> (String, String) {
    let metadata = &service.metadata;
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}
