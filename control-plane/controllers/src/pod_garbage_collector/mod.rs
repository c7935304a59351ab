//! The garbage collector of pods: those whose node is gone, ended ones beyond a threshold, and those that are being deleted
//! where nobody ends them (`podgc`).
//!
//! Watches pods and nodes, and looks at all of them every 20 s, and at once when a node goes or a pod names one that is not
//! there. There is one key, for all.
//!
//! Invariant: a pod is taken for an orphan only after its node was unknown for 40 s and the API server itself says that it is
//! not there.

mod reconcile;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::Patch;
use parking_lot::Mutex;
use skep_client::slim::SlimPod;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::Options;
use crate::context::Context;
use crate::runtime::{
    Change, ObjectKey, Outcome, Reconcile, ReconcileError, delete_params, disruption_target, failed_patch, is_conflict,
    is_not_found, patch_params, run_workers,
};
use reconcile::{Cause, Quarantine, is_out_of_service, sweep};

/// How often all is looked at.
const PERIOD: Duration = Duration::from_secs(20);
/// How many pods are removed at the same time.
const PARALLEL_WRITES: usize = 32;

struct Controller {
    context: Context,
    threshold: usize,
    quarantine: Mutex<Quarantine>,
}

/// Registers the handlers and starts the worker.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("orphaned_pods_nodes");
    let nodes = queue.clone();
    context.informers.nodes.on_change(move |change| {
        if matches!(change, Change::Deleted(_)) {
            nodes.add(ObjectKey::default());
        }
    });
    let (pods, nodes) = (queue.clone(), context.informers.nodes.clone());
    context.informers.pods.on_change(move |change| {
        let pod = change.object();
        let lost = match pod.spec.node_name.as_deref() {
            // Only the binding: what happens to an orphan later is seen at the end of the quarantine.
            Some(node) => {
                change.previous().is_none_or(|old| old.spec.node_name.is_none())
                    && nodes.get(&ObjectKey::new("", node)).is_none()
            }
            None => pod.is_terminating(),
        };
        if lost && !matches!(change, Change::Deleted(_)) {
            pods.add(ObjectKey::default());
        }
    });
    queue.add(ObjectKey::default());
    let threshold = options.terminated_pod_threshold;
    let controller = Arc::new(Controller { context, threshold, quarantine: Mutex::default() });
    run_workers(tasks, "pod-garbage-collector", &controller, &queue, 1, shutdown);
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, _all: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let informers = &self.context.informers;
        let unknown = |node: &str| informers.nodes.get(&ObjectKey::new("", node)).is_none();
        let unknown = informers.pods_by_node.nodes().into_iter().filter(|node| unknown(node)).collect();
        let suspects = self.quarantine.lock().observe(unknown, Instant::now());
        let gone = self.gone(suspects).await;
        let nodes = informers.nodes.all();
        let out_of_service = nodes.iter().filter(|node| is_out_of_service(node));
        let out_of_service = out_of_service.filter_map(|node| node.metadata.name.clone()).collect();
        let removals = sweep(&informers.pods.all(), &out_of_service, &gone, self.threshold);
        let removals = removals.into_iter().map(|(pod, cause)| async move {
            let key = ObjectKey::of(&*pod);
            match self.remove(&key, &pod, cause).await {
                Ok(()) => info!(pod = %key, ?cause, "removed a pod that was left over"),
                Err(error) => warn!(pod = %key, ?cause, %error, "can't remove a pod that is left over, will try again"),
            }
        });
        futures::stream::iter(removals).buffer_unordered(PARALLEL_WRITES).collect::<()>().await;
        let next = self.quarantine.lock().next(Instant::now());
        Ok(Outcome::After(PERIOD).or_after(next))
    }
}

impl Controller {
    /// Those of the nodes that the API server doesn't have.
    async fn gone(&self, suspects: Vec<Box<str>>) -> HashSet<Box<str>> {
        let api = Api::<Node>::all(self.context.client.clone());
        let mut gone = HashSet::new();
        for node in suspects {
            match api.get_metadata_opt(&node).await {
                Ok(None) => {
                    gone.insert(node);
                }
                Ok(Some(_)) => {}
                Err(error) => warn!(%node, %error, "can't tell whether a node exists, will try again"),
            }
        }
        gone
    }

    /// Marks a pod as failed, unless it has ended, and deletes it without grace.
    async fn remove(&self, key: &ObjectKey, pod: &SlimPod, cause: Cause) -> Result<(), kube::Error> {
        let api = Api::<Pod>::namespaced(self.context.client.clone(), &key.namespace);
        let condition = match cause {
            Cause::Orphaned => {
                disruption_target(pod, "DeletionByPodGC", "PodGC: node no longer exists", Timestamp::now())
            }
            Cause::Terminated | Cause::OutOfService | Cause::Unscheduled => None,
        };
        if let Some(patch) = failed_patch(pod, condition) {
            match api.patch_status(&key.name, &patch_params(), &Patch::Strategic(&patch)).await {
                Err(error) if is_not_found(&error) => return Ok(()),
                written => written?,
            };
        }
        match api.delete(&key.name, &delete_params(pod, Some(0))).await {
            Ok(_) => Ok(()),
            // Another pod has the name by now; this one is gone.
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
