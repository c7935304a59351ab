//! The watches of the garbage collector: one a deletable kind, metadata only, started and ended as kinds come and go.
//!
//! Invariant: what a watch no longer shows after a relist, or when its kind is gone, is not in the graph.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Shared;
use super::discovery::{Resource, discover};
use super::graph::{Node, Uid};

/// How often it is looked for new kinds, as upstream does.
const PERIOD: Duration = Duration::from_secs(30);
/// How long the first lists are waited for before work begins with what there is, as upstream does: an owner that is not listed
/// is asked for, so that is slower and not wrong.
const FIRST_LISTS: Duration = Duration::from_secs(30);

struct Watched {
    stop: CancellationToken,
    synced: watch::Receiver<bool>,
}

/// Keeps a watch a kind until `shutdown`; sets `ready` when the kinds that there were at first are listed.
pub(super) async fn run(client: Client, shared: Shared, ready: watch::Sender<bool>, shutdown: CancellationToken) {
    let mut tasks = JoinSet::new();
    let mut watched: HashMap<Resource, Watched> = HashMap::new();
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            _ = ticks.tick() => {}
        }
        match discover(&client).await {
            Ok(found) => {
                watched.retain(|resource, watched| {
                    let stays = found.deletable.contains(resource);
                    if !stays {
                        watched.stop.cancel();
                    }
                    stays
                });
                for resource in &found.deletable {
                    watched.entry(resource.clone()).or_insert_with(|| {
                        let stop = shutdown.child_token();
                        let (done, synced) = watch::channel(false);
                        let task =
                            observe(client.clone(), Arc::new(resource.clone()), shared.clone(), done, stop.clone());
                        tasks.spawn(task);
                        Watched { stop, synced }
                    });
                }
                *shared.kinds.write() = found;
            }
            Err(error) => {
                warn!(%error, "can't discover what there is to collect");
                if watched.is_empty() {
                    ticks.reset_after(Duration::from_secs(1));
                }
                continue;
            }
        }
        if !*ready.borrow() {
            let all = async {
                for watched in watched.values_mut() {
                    // An error means that the watch ended, which is not waited for.
                    drop(watched.synced.wait_for(|synced| *synced).await);
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = all => debug!("all kinds are listed"),
                () = tokio::time::sleep(FIRST_LISTS) => warn!("not all kinds are listed, starting with those that are"),
            }
            ready.send_replace(true);
        }
    }
    while tasks.join_next().await.is_some() {}
}

async fn observe(
    client: Client,
    resource: Arc<Resource>,
    shared: Shared,
    synced: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client, &resource.api);
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut known: HashSet<Uid> = HashSet::new();
    let mut listed: HashSet<Uid> = HashSet::new();
    loop {
        let event = tokio::select! {
            () = stop.cancelled() => break,
            event = events.next() => event,
        };
        let keys = match event {
            None => break,
            Some(Err(error)) => {
                debug!(resource = resource.api.plural, group = resource.api.group, %error, "watch failed");
                continue;
            }
            Some(Ok(watcher::Event::Init)) => {
                listed.clear();
                continue;
            }
            Some(Ok(watcher::Event::InitApply(object))) => {
                let Some((uid, node)) = Node::new(&resource, &object.metadata) else { continue };
                listed.insert(uid.clone());
                shared.graph.write().observe(&uid, node)
            }
            Some(Ok(watcher::Event::InitDone)) => {
                let current = std::mem::take(&mut listed);
                shared.departures.gone(&resource.api, None);
                let mut graph = shared.graph.write();
                let gone = known.difference(&current).flat_map(|uid| graph.remove(uid)).collect();
                known = current;
                synced.send_replace(true);
                gone
            }
            Some(Ok(watcher::Event::Apply(object))) => {
                let Some((uid, node)) = Node::new(&resource, &object.metadata) else { continue };
                known.insert(uid.clone());
                shared.graph.write().observe(&uid, node)
            }
            Some(Ok(watcher::Event::Delete(object))) => {
                let Some(uid) = object.metadata.uid.as_deref() else { continue };
                known.remove(uid);
                shared.departures.gone(&resource.api, object.metadata.namespace.as_deref());
                shared.graph.write().remove(uid)
            }
        };
        for key in keys {
            shared.queue.add(key);
        }
    }
    // The kind is gone and nothing more is known of its objects; who depends on them is asked for again when it matters.
    let mut graph = shared.graph.write();
    for uid in known.iter().chain(&listed) {
        graph.remove(uid);
    }
}
