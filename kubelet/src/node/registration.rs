//! Registers the Node, and reports its status (upstream: pkg/kubelet/kubelet_node_status.go).
//!
//! Invariant: a report is a patch of what differs from the Node that the watch brought last; it is written when something
//! but heartbeats differs, and else once each report period.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus, ObjectReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};
use skep_client::{EventRecorder, EventType};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::machine::{Machine, Signals};
use super::pressure::{Pressure, PressureMonitor};
use super::status::{Observation, changed, node_status, status_patch, transitions};
use super::{ImagesSource, NodeConfig, NodeError, NodeView, Readiness, object, renew_lease};

/// The longest wait between two tries to register (upstream: 7 s, from 100 ms doubling).
const REGISTER_BACK_OFF: Duration = Duration::from_secs(7);
/// Tries of one status update before it waits for its next turn (upstream: `nodeStatusUpdateRetry`).
const STATUS_TRIES: u32 = 5;

/// Registers a Node and keeps it true.
pub struct NodeRegistration {
    client: Client,
    config: NodeConfig,
    images: Arc<dyn ImagesSource>,
    readiness: watch::Receiver<Readiness>,
    events: EventRecorder,
    view: NodeView,
    store: reflector::store::Writer<Node>,
    pressure: watch::Sender<Pressure>,
    addresses: watch::Sender<Vec<IpAddr>>,
}

impl NodeRegistration {
    /// Nothing is asked or written before [`Self::run`].
    pub fn new(
        client: Client,
        config: NodeConfig,
        images: Arc<dyn ImagesSource>,
        readiness: watch::Receiver<Readiness>,
        events: EventRecorder,
    ) -> Self {
        let (reader, store) = reflector::store();
        let (pressure, pressure_reader) = watch::channel(Pressure::default());
        let (addresses, addresses_reader) = watch::channel(config.node_ips.clone());
        let view = NodeView {
            name: Arc::from(config.name.as_str()),
            store: reader,
            pressure: pressure_reader,
            addresses: addresses_reader,
        };
        Self { client, config, images, readiness, events, view, store, pressure, addresses }
    }

    /// What the rest of the agent reads.
    pub fn view(&self) -> NodeView {
        self.view.clone()
    }

    /// Registers the node, trying until it succeeds, then keeps its status and its lease until `stop`.
    ///
    /// A Node that is deleted meanwhile is not made anew before the kubelet starts again, as upstream's is not.
    pub async fn run(self, stop: CancellationToken) {
        let mut tasks = JoinSet::new();
        let (events, reference) = (self.events.clone(), self.reference(None));
        let mut reporter = Reporter {
            api: Api::all(self.client.clone()),
            config: self.config,
            images: self.images,
            readiness: self.readiness,
            events: self.events,
            reference,
            view: self.view,
            pressure: self.pressure,
            monitor: PressureMonitor::default(),
            addresses: self.addresses,
            due: Instant::now(),
            unschedulable: None,
        };
        events.record(
            reporter.reference.clone(),
            EventType::Normal,
            "Starting",
            "Starting",
            "Starting kubelet.".into(),
        );
        let Some(node) = stop.run_until_cancelled(reporter.register()).await else { return };
        let owner = object::owner(&node);
        let (client, name, duration) =
            (self.client.clone(), reporter.config.name.clone(), reporter.config.lease_duration);
        let lease_stop = stop.clone();
        tasks.spawn(async move { renew_lease(client, &name, duration, owner, lease_stop).await });
        tasks.spawn(follow(self.client, reporter.config.name.clone(), self.store, stop.clone()));
        reporter.report(node, &stop).await;
        tasks.join_all().await;
    }

    fn reference(&self, uid: Option<String>) -> ObjectReference {
        object::reference(&self.config.name, uid)
    }
}

/// Keeps the store at what the API says of this one Node.
async fn follow(client: Client, name: String, store: reflector::store::Writer<Node>, stop: CancellationToken) {
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let stream = reflector(store, watcher(Api::<Node>::all(client), config).default_backoff());
    let mut stream = std::pin::pin!(stream);
    while let Some(Some(event)) = stop.run_until_cancelled(stream.next()).await {
        if let Err(error) = event {
            warn!(%error, "can't watch the own node");
        }
    }
}

struct Reporter {
    api: Api<Node>,
    config: NodeConfig,
    images: Arc<dyn ImagesSource>,
    readiness: watch::Receiver<Readiness>,
    events: EventRecorder,
    reference: ObjectReference,
    view: NodeView,
    pressure: watch::Sender<Pressure>,
    monitor: PressureMonitor,
    addresses: watch::Sender<Vec<IpAddr>>,
    /// When a report is due though nothing changed.
    due: Instant,
    unschedulable: Option<bool>,
}

impl Reporter {
    /// Makes the Node, or takes over the one that is there.
    async fn register(&mut self) -> Node {
        let mut wait = Duration::from_millis(100);
        loop {
            match self.try_register().await {
                Ok((node, created)) => {
                    info!(node = self.config.name, created, "registered the node");
                    self.known(&node);
                    if let (true, Some(status)) = (created, &node.status) {
                        self.note_transitions(&NodeStatus::default(), status);
                    }
                    return node;
                }
                Err(error) => warn!(node = self.config.name, %error, "unable to register the node with the API server"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(REGISTER_BACK_OFF);
        }
    }

    /// The Node, and whether it is new.
    async fn try_register(&mut self) -> Result<(Node, bool), NodeError> {
        let status = self.status(&NodeStatus::default()).await?;
        let wanted = object::initial(&self.config, status);
        match self.api.create(&PostParams::default(), &wanted).await {
            Ok(node) => return Ok((node, true)),
            Err(kube::Error::Api(refusal)) if refusal.code == 409 || refusal.code == 403 => {}
            Err(error) => return Err(error.into()),
        }
        let existing = self.api.get(&self.config.name).await?;
        let node = match object::label_patch(&wanted, &existing) {
            None => existing,
            Some(patch) => self.api.patch(&self.config.name, &PatchParams::default(), &Patch::Merge(patch)).await?,
        };
        Ok((node, false))
    }

    /// Notes what later reports compare with.
    fn known(&mut self, node: &Node) {
        self.reference = object::reference(&self.config.name, node.metadata.uid.clone());
        self.unschedulable = Some(node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)));
    }

    /// Looks at the status at its period and when readiness changes, and writes it when it differs or is old.
    async fn report(&mut self, mut node: Node, stop: &CancellationToken) {
        let mut period = tokio::time::interval(self.config.status_update);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut readiness = self.readiness.clone();
        let mut open = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = period.tick() => {}
                changed = readiness.changed(), if open => open = changed.is_ok(),
            }
            readiness.mark_unchanged();
            for attempt in 0..STATUS_TRIES {
                match stop.run_until_cancelled(self.update(&mut node, attempt > 0)).await {
                    None => return,
                    Some(Ok(())) => break,
                    Some(Err(error)) => {
                        warn!(node = self.config.name, attempt, %error, "can't update the node's status")
                    }
                }
            }
        }
    }

    /// `fresh` asks the API server rather than the watch for what is there.
    async fn update(&mut self, last: &mut Node, fresh: bool) -> Result<(), NodeError> {
        if fresh {
            *last = self.api.get(&self.config.name).await?;
        } else if let Some(seen) = self.view.node() {
            *last = (*seen).clone();
        }
        let old = last.status.clone().unwrap_or_default();
        let new = self.status(&old).await?;
        self.note_schedulable(last);
        let (changed, due) = (changed(&old, &new), Instant::now() >= self.due);
        if !changed && !due {
            return Ok(());
        }
        let patch = status_patch(&old, &new);
        debug!(node = self.config.name, due, "writing the node's status");
        *last = self.api.patch_status(&self.config.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        // A report out of turn comes from something that many nodes may have seen at once: their next ones are spread.
        let share = if changed { 0.5 + random(&self.config.name) } else { 1.0 };
        self.due = Instant::now() + self.config.status_report.mul_f64(share);
        self.note_transitions(&old, &new);
        Ok(())
    }

    async fn status(&mut self, old: &NodeStatus) -> Result<NodeStatus, NodeError> {
        let addresses = self.own_addresses()?;
        self.addresses.send_if_modified(|known| {
            let differs = *known != addresses;
            known.clone_from(&addresses);
            differs
        });
        let (root, images) = (self.config.root_dir.clone(), self.config.image_dir.clone());
        let read = move || Ok::<_, std::io::Error>((Machine::read(&root)?, Signals::read(&root, &images)?));
        // A task that only reads files ends by itself, and is not cancelled.
        let (machine, signals) = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)??;
        let now = Timestamp::now();
        let pressure = self.monitor.observe(&self.config.eviction, &signals, now);
        self.pressure.send_if_modified(|known| std::mem::replace(known, pressure) != pressure);
        let images = match self.images.images().await {
            Ok(images) => Some(images),
            Err(error) => {
                debug!(%error, "error getting image list");
                None
            }
        };
        let readiness = self.readiness.borrow().clone();
        let observation = Observation { addresses, machine, readiness, pressure, images };
        Ok(node_status(&self.config, old, &observation, now))
    }

    fn own_addresses(&self) -> Result<Vec<IpAddr>, NodeError> {
        if !self.config.node_ips.is_empty() {
            return Ok(self.config.node_ips.clone());
        }
        if let Ok(address) = self.config.hostname.parse() {
            return Ok(vec![address]);
        }
        let address =
            routed_address("0.0.0.0:0", "192.0.2.1:9").or_else(|_| routed_address("[::]:0", "[2001:db8::1]:9"));
        address
            .map(|address| vec![address])
            .map_err(|source| NodeError::Address { node: self.config.name.clone(), source })
    }

    /// Tells of conditions that turned.
    fn note_transitions(&self, old: &NodeStatus, new: &NodeStatus) {
        for reason in transitions(old, new) {
            let note = format!("Node {} status is now: {reason}", self.config.name);
            self.events.record(self.reference.clone(), EventType::Normal, reason, reason, note);
        }
        let boot = |status: &NodeStatus| status.node_info.as_ref().map(|info| info.boot_id.clone()).unwrap_or_default();
        let (before, after) = (boot(old), boot(new));
        if !before.is_empty() && before != after {
            let note = format!("Node {} has been rebooted, boot id: {after}", self.config.name);
            self.events.record(self.reference.clone(), EventType::Warning, "Rebooted", "Rebooted", note);
        }
    }

    fn note_schedulable(&mut self, node: &Node) {
        let unschedulable = node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true));
        if self.unschedulable.replace(unschedulable).is_some_and(|before| before != unschedulable) {
            let reason = if unschedulable { "NodeNotSchedulable" } else { "NodeSchedulable" };
            let note = format!("Node {} status is now: {reason}", self.config.name);
            self.events.record(self.reference.clone(), EventType::Normal, reason, reason, note);
        }
    }
}

/// The source address that the kernel would use towards a far one. No packet is sent.
fn routed_address(from: &str, to: &str) -> std::io::Result<IpAddr> {
    let socket = UdpSocket::bind(from)?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// From 0 to below 1; another at each call.
fn random(seed: &str) -> f64 {
    let hash = RandomState::new().hash_one(seed) % 10_000;
    f64::from(u16::try_from(hash).unwrap_or(0)) / 10_000.0
}
