//! The pods that the API binds to this node, and those that an earlier kubelet left: each gets a worker.
//!
//! Invariant: a pod that runs here and is not in the API is stopped, but only after the API was listed once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_pods};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::node::Node;
use super::record::{NODE, Record};
use super::registry::{Desired, Handle};
use super::worker::Worker;

/// Runs workers until `stop`.
///
/// # Errors
/// When containerd can't say what an earlier kubelet left.
pub(super) async fn run(node: Arc<Node>, stop: CancellationToken) -> Result<()> {
    let mut pods = Pods { records: left(&node).await?, node, workers: JoinSet::new(), stop, fresh: None };
    let fields = format!("spec.nodeName={}", pods.node.name);
    let api: Api<Pod> = Api::all(pods.node.client.clone());
    let mut events = std::pin::pin!(watch_pods(api, watcher::Config::default().fields(&fields)).default_backoff());
    loop {
        tokio::select! {
            () = pods.stop.cancelled() => break,
            Some(ended) = pods.workers.join_next() => match ended {
                Ok(uid) => pods.node.pods.remove(&uid),
                Err(error) => return Err(error).context("a pod's worker failed"),
            },
            event = events.next() => match event {
                Some(Ok(event)) => pods.apply(event).await,
                Some(Err(error)) => warn!(%error, "the watch of pods failed and starts again"),
                None => break,
            },
        }
    }
    while pods.workers.join_next().await.is_some() {}
    Ok(())
}

/// The containers that an earlier kubelet of this node left, by pod.
async fn left(node: &Node) -> Result<HashMap<String, Vec<Record>>> {
    let containers = node.containerd.containers(&[(NODE, &node.name)]).await.context("can't list containers")?;
    let mut records: HashMap<String, Vec<Record>> = HashMap::new();
    for record in containers.iter().filter_map(|container| Record::parse(&container.labels)) {
        records.entry(record.uid.clone()).or_default().push(record);
    }
    Ok(records)
}

struct Pods {
    node: Arc<Node>,
    records: HashMap<String, Vec<Record>>,
    workers: JoinSet<String>,
    stop: CancellationToken,
    /// While the API lists anew: the pods that it named.
    fresh: Option<BTreeSet<String>>,
}

impl Pods {
    async fn apply(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.fresh = Some(BTreeSet::new()),
            Event::InitApply(pod) => {
                if let (Some(fresh), Some(uid)) = (&mut self.fresh, &pod.metadata.uid) {
                    fresh.insert(uid.clone());
                }
                self.upsert(pod);
            }
            Event::InitDone => {
                let fresh = self.fresh.take().unwrap_or_default();
                for uid in self.node.pods.uids().iter().filter(|uid| !fresh.contains(*uid)) {
                    self.node.pods.gone(uid);
                }
                self.stop_orphans().await;
            }
            Event::Apply(pod) => self.upsert(pod),
            Event::Delete(pod) => {
                if let Some(uid) = &pod.metadata.uid {
                    self.node.pods.gone(uid);
                }
            }
        }
    }

    fn upsert(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        let pod = Arc::new(pod);
        if !self.node.pods.update(&uid, pod.clone()) {
            self.spawn(&uid, Desired { pod, gone: false });
        }
    }

    fn spawn(&mut self, uid: &str, desired: Desired) {
        let records = self.records.remove(uid).unwrap_or_default();
        let (sender, receiver) = watch::channel(desired);
        let wake = Arc::new(Notify::new());
        self.node.pods.insert(uid, Handle { desired: sender, wake: wake.clone() });
        let worker = Worker::new(self.node.clone(), receiver, wake, records);
        self.workers.spawn(worker.run(self.stop.clone()));
    }

    /// What is left of pods that the API no longer has gets a worker that ends it.
    async fn stop_orphans(&mut self) {
        let mut orphans: HashMap<String, Pod> = HashMap::new();
        for (uid, records) in &self.records {
            orphans.insert(uid.clone(), orphan(uid, records));
        }
        let sandboxes = self.node.sandboxes.list().await.unwrap_or_default();
        let volumes = self.node.volumes.list_uids().await.unwrap_or_default();
        for uid in sandboxes.into_iter().chain(volumes) {
            if !self.node.pods.contains(&uid) {
                orphans.entry(uid.clone()).or_insert_with(|| orphan(&uid, &[]));
            }
        }
        let live: HashSet<String> = self.node.pods.uids().into_iter().chain(orphans.keys().cloned()).collect();
        if let Err(error) = self.node.cni.collect(&live).await {
            warn!(%error, "network attachments of pods that are gone can't all be deleted");
        }
        for (uid, pod) in orphans {
            info!(pod_uid = uid, "a pod that the API no longer has is stopped");
            self.spawn(&uid, Desired { pod: Arc::new(pod), gone: true });
        }
    }
}

/// As much of a Pod as stopping it needs.
fn orphan(uid: &str, records: &[Record]) -> Pod {
    let names: BTreeSet<&str> = records.iter().map(|record| record.container.as_str()).collect();
    let container = |name: &str| Container { name: name.to_owned(), ..Container::default() };
    let first = records.first();
    Pod {
        metadata: ObjectMeta {
            uid: Some(uid.to_owned()),
            name: first.map(|record| record.name.clone()),
            namespace: first.map(|record| record.namespace.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { containers: names.into_iter().map(container).collect(), ..PodSpec::default() }),
        status: None,
    }
}
