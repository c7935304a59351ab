//! Taint eviction: pods leave a node whose NoExecute taints they don't tolerate, or when their time there is over
//! (`tainteviction`).
//!
//! Watches nodes and pods. Keys are pods; a node's taints bring those that are on it. A pod's time begins when it is first seen
//! here beside a taint, and is held in memory: a controller that starts anew begins it anew, as upstream's does.
//!
//! Invariant: a pod has at most one planned end, and it is deleted only while the taint that it goes for is there.

pub(crate) mod reconcile;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Patch;
use kube::{Api, Resource};
use parking_lot::Mutex;
use skep_client::EventType;
use skep_client::slim::SlimPod;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::runtime::{
    Change, ObjectKey, Outcome, Queue, Reconcile, ReconcileError, condition_patch, delete_params, disruption_target,
    is_conflict, is_not_found, patch_params, run_workers,
};
use reconcile::{Decision, decide, no_execute_taints, tolerance};

/// Why, in the pod's condition.
const REASON: &str = "DeletionByTaintManager";
const MESSAGE: &str = "Taint manager: deleting due to NoExecute taint";

struct Controller {
    context: Context,
    /// The pods that are to go, with the uid that it is about.
    planned: Mutex<HashMap<ObjectKey, Plan>>,
}

struct Plan {
    pod: Arc<SlimPod>,
    at: Instant,
    announced: bool,
}

/// Registers the handlers and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let queue = context.queue("noexec_taint_pod");
    watch(&context, &queue);
    let controller = Arc::new(Controller { context, planned: Mutex::default() });
    run_workers(tasks, "taint-eviction", &controller, &queue, options.concurrency, shutdown);
}

fn watch(context: &Context, queue: &Queue<ObjectKey>) {
    let (nodes, pods) = (queue.clone(), context.informers.pods_by_node.clone());
    context.informers.nodes.on_change(move |change| {
        let node = change.object();
        let old = change.previous().map(|old| no_execute_taints(old)).unwrap_or_default();
        // A node that is gone leaves its pods to the garbage collector of pods.
        if !matches!(change, Change::Deleted(_)) && old != no_execute_taints(node) {
            for pod in pods.on(node.metadata.name.as_deref().unwrap_or_default()) {
                nodes.add(pod);
            }
        }
    });
    let queue = queue.clone();
    context.informers.pods.on_change(move |change| {
        let (pod, old) = (change.object(), change.previous());
        let same = |old: &Arc<SlimPod>| {
            old.spec.node_name == pod.spec.node_name && old.spec.tolerations == pod.spec.tolerations
        };
        if pod.spec.node_name.is_some() && !old.is_some_and(same) {
            queue.add(ObjectKey::of(&**pod));
        }
    });
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let pod = self.context.informers.pods.get(key);
        self.drop_plan_of_another(key, pod.as_deref());
        let Some(pod) = pod.filter(|pod| !pod.is_terminating()) else { return Ok(Outcome::Done) };
        let Some(node) = pod.spec.node_name.as_deref() else { return Ok(Outcome::Done) };
        let Some(node) = self.context.informers.nodes.get(&ObjectKey::new("", node)) else {
            return Ok(Outcome::Done);
        };
        let (now, tolerance) = (Instant::now(), tolerance(&no_execute_taints(&node), &pod.spec.tolerations));
        let planned = self.planned.lock().get(key).map(|plan| plan.at);
        match decide(tolerance, planned, now) {
            Decision::Stay => {
                self.cancel(key);
                Ok(Outcome::Done)
            }
            Decision::EvictAt(at) => {
                self.plan(key, &pod, at);
                if at > now {
                    return Ok(Outcome::After(at - now));
                }
                // The plan stays until the pod is seen to end, so that it is announced once.
                self.evict(key, &pod).await?;
                Ok(Outcome::Done)
            }
        }
    }
}

impl Controller {
    /// A plan ends with its pod; another pod of the same name has none.
    fn drop_plan_of_another(&self, key: &ObjectKey, pod: Option<&SlimPod>) {
        let other = self.planned.lock().get(key).is_some_and(|plan| {
            !pod.is_some_and(|pod| pod.metadata.uid == plan.pod.metadata.uid && !pod.is_terminating())
        });
        if other {
            self.cancel(key);
        }
    }

    fn plan(&self, key: &ObjectKey, pod: &Arc<SlimPod>, at: Instant) {
        let mut planned = self.planned.lock();
        let plan = planned.entry(key.clone()).or_insert_with(|| Plan { pod: Arc::clone(pod), at, announced: false });
        plan.at = at;
    }

    fn cancel(&self, key: &ObjectKey) {
        let plan = self.planned.lock().remove(key);
        // What was announced is done or being done, and is not called off.
        if let Some(plan) = plan.filter(|plan| !plan.announced) {
            self.event(&plan.pod, format!("Cancelling deletion of Pod {key}"));
        }
    }

    async fn evict(&self, key: &ObjectKey, pod: &SlimPod) -> Result<(), ReconcileError> {
        let first = {
            let mut planned = self.planned.lock();
            planned.get_mut(key).is_some_and(|plan| !std::mem::replace(&mut plan.announced, true))
        };
        if first {
            self.event(pod, format!("Marking for deletion Pod {key}"));
        }
        let api = Api::<Pod>::namespaced(self.context.client.clone(), &key.namespace);
        let condition = disruption_target(pod, REASON, MESSAGE, Timestamp::now());
        if let Some(patch) = condition.map(|condition| condition_patch(pod, &condition)) {
            match api.patch_status(&key.name, &patch_params(), &Patch::Strategic(&patch)).await {
                Err(error) if is_not_found(&error) => return Ok(()),
                written => written?,
            };
        }
        match api.delete(&key.name, &delete_params(pod, None)).await {
            Ok(_) => Ok(()),
            // Another pod has the name by now; this one is gone.
            Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn event(&self, pod: &SlimPod, note: String) {
        let regarding = pod.object_ref(&());
        self.context.events.record(regarding, EventType::Normal, "TaintManagerEviction", "Evict", note);
    }
}
