//! Node lifecycle: what a node's conditions mean for its pods, and what becomes of a node that falls silent (`nodelifecycle`).
//!
//! Watches nodes, the Leases of `kube-node-lease` and pods. A node's key comes when the node changes and when its grace period
//! would end; a renewed Lease only moves that end, so a thousand kubelets that are well cost no work. A second queue holds the
//! pods that are to be not ready as their node is.
//!
//! Invariant: a node is called silent only after its Lease was read from the API server itself, and nothing was new there; so an
//! informer that lags makes no node unreachable.

mod health;
mod reconcile;
#[cfg(test)]
mod tests;
mod zones;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, ObjectReference, Pod};
use kube::api::Patch;
use kube::{Api, Resource};
use parking_lot::Mutex;
use skep_client::EventType;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::runtime::{
    Change, ObjectKey, Outcome, Queue, Reconcile, ReconcileError, is_not_found, not_ready_patch, patch_params,
    post_params, run_workers,
};
use health::{Healths, Liveness};
use reconcile::{Eviction, Readiness};
use zones::{Admission, Zones};

/// The namespace of the nodes' Leases.
pub(crate) const LEASES: &str = "kube-node-lease";

/// When a node counts as lost, and how fast pods are then driven from nodes. The default is upstream's.
#[derive(Clone, Debug)]
pub struct NodeLifecycle {
    /// How long nothing may be heard of a node before it is called unreachable (`--node-monitor-grace-period`).
    pub monitor_grace_period: Duration,
    /// The same for a node that never said how it is.
    pub startup_grace_period: Duration,
    /// Nodes a second that may be given up in a zone that is well (`--node-eviction-rate`).
    pub eviction_rate: f64,
    /// The same in a large zone that is not (`--secondary-node-eviction-rate`); in a small one none is.
    pub secondary_eviction_rate: f64,
    /// A zone of more nodes than this is large (`--large-cluster-size-threshold`).
    pub large_cluster_threshold: usize,
    /// The share of nodes that are not ready from which a zone is not well (`--unhealthy-zone-threshold`).
    pub unhealthy_zone_threshold: f64,
}

impl Default for NodeLifecycle {
    fn default() -> Self {
        Self {
            monitor_grace_period: Duration::from_secs(50),
            startup_grace_period: Duration::from_secs(60),
            eviction_rate: 0.1,
            secondary_eviction_rate: 0.01,
            large_cluster_threshold: 50,
            unhealthy_zone_threshold: 0.55,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    healths: Healths,
    zones: Zones,
}

impl State {
    /// Takes in a node's state. Says whether all nodes must be looked at again.
    fn observe(&mut self, node: &Node, policy: &NodeLifecycle, now: Instant) -> bool {
        self.healths.observe_node(node, now);
        let disrupted = self.zones.all_disrupted();
        let changed = self.zones.observe(node, policy);
        if disrupted && !self.zones.all_disrupted() {
            self.healths.excuse_all(now);
        }
        changed
    }
}

struct Shared {
    context: Context,
    policy: NodeLifecycle,
    state: Mutex<State>,
    nodes: Queue<ObjectKey>,
    pods: Queue<ObjectKey>,
}

/// Keeps nodes.
struct Controller {
    shared: Arc<Shared>,
    /// The nodes that were met, for the events at their coming and going.
    registered: Mutex<HashMap<ObjectKey, ObjectReference>>,
}

/// Makes pods not ready.
struct PodMarker {
    shared: Arc<Shared>,
}

/// Registers the handlers and starts the workers.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    let (nodes, pods) = (context.queue("node_lifecycle_controller"), context.queue("node_lifecycle_controller_pods"));
    let policy = options.node_lifecycle.clone();
    let shared = Arc::new(Shared { context, policy, state: Mutex::default(), nodes, pods });
    watch(&shared);
    let marker = Arc::new(PodMarker { shared: Arc::clone(&shared) });
    let (nodes, pods) = (shared.nodes.clone(), shared.pods.clone());
    let controller = Arc::new(Controller { shared, registered: Mutex::default() });
    run_workers(tasks, "node-lifecycle", &controller, &nodes, options.concurrency, shutdown);
    run_workers(tasks, "node-lifecycle-pods", &marker, &pods, options.concurrency, shutdown);
}

fn watch(shared: &Arc<Shared>) {
    let informers = &shared.context.informers;
    let own = Arc::clone(shared);
    informers.nodes.on_change(move |change| {
        let node = change.object();
        match change {
            Change::Deleted(_) => own.forget(node),
            Change::Added(_) | Change::Updated { .. } => own.observe(node),
        }
        own.nodes.add(ObjectKey::of(&**node));
    });
    let own = Arc::clone(shared);
    informers.node_leases.on_change(move |change| {
        let lease = change.object();
        if !matches!(change, Change::Deleted(_)) {
            own.observe_lease(lease);
        }
    });
    let own = Arc::clone(shared);
    informers.pods.on_change(move |change| {
        let (pod, old) = (change.object(), change.previous());
        let bound = pod.spec.node_name.is_some() && old.is_none_or(|old| old.spec.node_name != pod.spec.node_name);
        if bound && !matches!(change, Change::Deleted(_)) {
            own.pods.add(ObjectKey::of(&**pod));
        }
    });
}

impl Shared {
    fn observe(&self, node: &Node) {
        let again = self.state.lock().observe(node, &self.policy, Instant::now());
        // The Lease may have been there before the node.
        let name = node.metadata.name.as_deref().unwrap_or_default();
        if let Some(lease) = self.context.informers.node_leases.get(&ObjectKey::new(LEASES, name)) {
            self.observe_lease(&lease);
        }
        if again {
            self.look_at_all_again();
        }
    }

    fn forget(&self, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let disrupted = {
            let mut state = self.state.lock();
            state.healths.forget(name);
            let before = state.zones.all_disrupted();
            state.zones.forget(name);
            !before && state.zones.all_disrupted()
        };
        if disrupted {
            self.look_at_all_again();
        }
    }

    /// Says whether the Lease's renewal is news.
    fn observe_lease(&self, lease: &Lease) -> bool {
        let name = lease.metadata.name.as_deref().unwrap_or_default();
        let renewal = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
        self.state.lock().healths.observe_lease(name, renewal, Instant::now())
    }

    fn look_at_all_again(&self) {
        for node in self.context.informers.nodes.all() {
            self.nodes.add(ObjectKey::of(&*node));
        }
    }

    fn liveness(&self, name: &str) -> Option<Liveness> {
        let policy = &self.policy;
        let (grace, startup) = (policy.monitor_grace_period, policy.startup_grace_period);
        self.state.lock().healths.liveness(name, grace, startup, Instant::now())
    }
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let node = self.shared.context.informers.nodes.get(key);
        self.register(key, node.as_deref());
        let Some(mut node) = node else { return Ok(Outcome::Done) };
        let mut outcome = Outcome::Done;
        let mut liveness = self.shared.liveness(&key.name);
        if liveness == Some(Liveness::Silent)
            && let Some(conditions) = reconcile::silent_conditions(&node, Timestamp::now())
        {
            if self.is_renewed(key).await? {
                liveness = self.shared.liveness(&key.name);
            } else {
                let Some(written) = self.write_silent(&node, conditions).await? else { return Ok(Outcome::Done) };
                node = Arc::new(written);
            }
        }
        if let Some(Liveness::Heard(left)) = liveness {
            outcome = Outcome::After(left);
        }
        let (eviction, wait) = self.eviction(&node);
        if let Some(patch) = reconcile::patch(&node, eviction, Timestamp::now()) {
            let api = Api::<Node>::all(self.shared.context.client.clone());
            match api.patch(&key.name, &patch_params(), &Patch::Merge(&patch)).await {
                Ok(_) => {}
                Err(error) if is_not_found(&error) => return Ok(Outcome::Done),
                Err(error) => {
                    if eviction == Eviction::Admitted {
                        self.shared.state.lock().zones.give_back(&zones::zone_of(&node));
                    }
                    return Err(error.into());
                }
            }
        }
        Ok(outcome.or_after(wait))
    }
}

impl Controller {
    /// Tells of nodes that are new and of those that are gone.
    fn register(&self, key: &ObjectKey, node: Option<&Node>) {
        let reference = node.map(|node| node.object_ref(&()));
        let (gone, new) = {
            let mut registered = self.registered.lock();
            let old = match &reference {
                Some(reference) => registered.insert(key.clone(), reference.clone()),
                None => registered.remove(key),
            };
            let same = old.as_ref().map(|old| &old.uid) == reference.as_ref().map(|new| &new.uid);
            if same { (None, None) } else { (old, reference) }
        };
        let name = &key.name;
        if let Some(gone) = gone {
            let note = format!("Node {name} event: Removing Node {name} from Controller");
            self.event(gone, "RemovingNode", note);
        }
        if let Some(new) = new {
            let note = format!("Node {name} event: Registered Node {name} in Controller");
            self.event(new, "RegisteredNode", note);
        }
    }

    /// Whether the node's Lease was renewed without the informer having shown it yet.
    async fn is_renewed(&self, key: &ObjectKey) -> Result<bool, ReconcileError> {
        let api = Api::<Lease>::namespaced(self.shared.context.client.clone(), LEASES);
        let lease = api.get_opt(&key.name).await?;
        Ok(lease.is_some_and(|lease| self.shared.observe_lease(&lease)))
    }

    /// Says of a node that it fell silent, and has its pods made not ready if it was ready till now. `None` if it is gone.
    async fn write_silent(&self, node: &Node, conditions: Vec<NodeCondition>) -> Result<Option<Node>, ReconcileError> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let was = Readiness::of(node);
        let mut changed = node.clone();
        changed.status.get_or_insert_default().conditions = Some(conditions);
        let api = Api::<Node>::all(self.shared.context.client.clone());
        let written = match api.replace_status(name, &post_params(), &changed).await {
            Err(error) if is_not_found(&error) => return Ok(None),
            written => written?,
        };
        self.shared.observe(&written);
        if was == Readiness::Ready {
            let note = format!("Node {name} status is now: NodeNotReady");
            self.event(node.object_ref(&()), "NodeNotReady", note);
            for pod in self.shared.context.informers.pods_by_node.on(name) {
                self.shared.pods.add(pod);
            }
        }
        Ok(Some(written))
    }

    /// Whether pods may be driven from the node, and when to ask again.
    fn eviction(&self, node: &Node) -> (Eviction, Option<Duration>) {
        let mut state = self.shared.state.lock();
        if state.zones.all_disrupted() {
            return (Eviction::Stopped, None);
        }
        if !reconcile::needs_eviction(node) {
            return (Eviction::Held, None);
        }
        match state.zones.admit(&zones::zone_of(node), &self.shared.policy, Instant::now()) {
            Admission::Now => (Eviction::Admitted, None),
            Admission::Wait(left) => (Eviction::Held, Some(left)),
            Admission::Never => (Eviction::Held, None),
        }
    }

    fn event(&self, node: ObjectReference, reason: &str, note: String) {
        self.shared.context.events.record(node, EventType::Normal, reason, "Monitor", note);
    }
}

impl Reconcile for PodMarker {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let context = &self.shared.context;
        let Some(pod) = context.informers.pods.get(key) else { return Ok(Outcome::Done) };
        let Some(node) = pod.spec.node_name.as_deref() else { return Ok(Outcome::Done) };
        let readiness = self.shared.state.lock().healths.readiness(node);
        if !matches!(readiness, Some(Readiness::NotReady | Readiness::Unreachable)) {
            return Ok(Outcome::Done);
        }
        let Some(patch) = not_ready_patch(&pod, Timestamp::now()) else { return Ok(Outcome::Done) };
        let api = Api::<Pod>::namespaced(context.client.clone(), &key.namespace);
        match api.patch_status(&key.name, &patch_params(), &Patch::Strategic(&patch)).await {
            Err(error) if is_not_found(&error) => return Ok(Outcome::Done),
            written => written?,
        };
        let note = "Node is not ready".to_owned();
        context.events.record(pod.object_ref(&()), EventType::Warning, "NodeNotReady", "Monitor", note);
        Ok(Outcome::Done)
    }
}
