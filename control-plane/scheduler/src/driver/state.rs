//! What the driver knows: the snapshot, the queue, and the pods whose placement it assumed.
//!
//! Invariant: a pod is never in the queue and placed at once, except while it is being bound. An assumed placement stands until
//! the watch confirms it, the pod goes, or the binding fails; an older state of the pod on the watch can't undo it.
//!
//! Data flow: watch events → here → [`State::next`] gives work to write → its outcome comes back here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use kube::runtime::watcher::Event;
use skep_client::slim::{SlimNode, SlimPod};

use super::queue::{Gate, Queue, Waits};
use crate::core::{Decision, Plugin, PluginSet, Pod, Preemption, Room, Snapshot, VictimPod, decide};

/// The scheduler's name in pods that are ours to place.
const SCHEDULER: &str = "default-scheduler";

/// What an attempt leaves to be written.
#[derive(Debug)]
pub(super) enum Work {
    /// Bind the pod to the node; the placement is assumed already. A failure is written into the pod's status.
    Bind { pod: Arc<Pod>, node: Box<str>, on_failure: Condition },
    /// Tell that no node will do.
    Unschedulable { pod: Arc<Pod>, message: String, condition: Option<Condition> },
    /// Delete the pods that make room on the node, and tell that the pod waits for it.
    Preempt { pod: Arc<Pod>, node: Box<str>, victims: Vec<VictimPod>, message: String, condition: Condition },
}

/// Room on a node that is kept for a pod: pods of a lower priority don't get it.
#[derive(Debug)]
struct Reservation {
    pod: Arc<Pod>,
    node: Box<str>,
    /// The watch has shown it (`status.nominatedNodeName`): when the watch shows it no more, it is over.
    confirmed: bool,
}

/// What to write into the pod's status.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Condition {
    pub(super) generation: Option<i64>,
    /// When the condition became false, if it was.
    pub(super) since: Option<Timestamp>,
}

/// What is remembered of a waiting pod besides what decides.
#[derive(Debug, Default)]
struct Told {
    since: Option<Timestamp>,
    generation: Option<i64>,
    message: Option<String>,
}

impl Told {
    fn condition(&self) -> Condition {
        Condition { generation: self.generation, since: self.since }
    }
}

pub(super) struct State {
    snapshot: Snapshot,
    queue: Queue,
    assumed: HashSet<Box<str>>,
    /// By uid, of pods that preempted others and wait. Each is placed in the snapshot, but for pods that go first.
    reserved: HashMap<Box<str>, Reservation>,
    told: HashMap<Box<str>, Told>,
    /// Uids of pods that are placed by the watch's word.
    placed: HashSet<Box<str>>,
    nodes: HashSet<Box<str>>,
    listed_pods: HashSet<Box<str>>,
    listed_nodes: HashSet<Box<str>>,
    pods_synced: bool,
    nodes_synced: bool,
    seed: u64,
}

impl State {
    pub(super) fn new(waits: Waits, seed: u64) -> Self {
        Self {
            snapshot: Snapshot::default(),
            queue: Queue::new(waits),
            assumed: HashSet::new(),
            reserved: HashMap::new(),
            told: HashMap::new(),
            placed: HashSet::new(),
            nodes: HashSet::new(),
            listed_pods: HashSet::new(),
            listed_nodes: HashSet::new(),
            pods_synced: false,
            nodes_synced: false,
            seed,
        }
    }

    pub(super) fn apply_node(&mut self, event: Event<SlimNode>, now: Instant) {
        match event {
            Event::Apply(node) => self.set_node(&node, now),
            Event::Delete(node) => self.remove_node(node.metadata.name.as_deref().unwrap_or_default()),
            Event::Init => self.listed_nodes.clear(),
            Event::InitApply(node) => {
                self.listed_nodes.insert(node.metadata.name.as_deref().unwrap_or_default().into());
                self.set_node(&node, now);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed_nodes);
                let gone: Vec<Box<str>> = self.nodes.difference(&listed).cloned().collect();
                gone.iter().for_each(|name| self.remove_node(name));
                self.nodes_synced = true;
            }
        }
    }

    pub(super) fn apply_pod(&mut self, event: Event<SlimPod>, now: Instant) {
        match event {
            Event::Apply(pod) => self.set_pod(&pod, now),
            Event::Delete(pod) => self.remove_pod(pod.metadata.uid.as_deref().unwrap_or_default(), now),
            Event::Init => self.listed_pods.clear(),
            Event::InitApply(pod) => {
                self.listed_pods.insert(pod.metadata.uid.as_deref().unwrap_or_default().into());
                self.set_pod(&pod, now);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed_pods);
                let known = self.queue.uids().chain(self.placed.iter().chain(&self.assumed).map(|uid| &**uid));
                let gone: HashSet<Box<str>> = known.filter(|uid| !listed.contains(*uid)).map(Into::into).collect();
                gone.iter().for_each(|uid| self.remove_pod(uid, now));
                self.pods_synced = true;
            }
        }
    }

    /// Whether [`State::next`] would make an attempt. Nothing is placed before both first lists are complete.
    pub(super) fn has_work(&self) -> bool {
        self.pods_synced && self.nodes_synced && self.queue.has_active()
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.queue.next_timer()
    }

    pub(super) fn advance(&mut self, now: Instant) {
        self.queue.advance(now);
    }

    /// Makes one attempt: takes the pod whose turn it is, decides, and assumes or parks.
    pub(super) fn next(&mut self, now: Instant) -> Option<Work> {
        if !self.has_work() {
            return None;
        }
        let pod = self.queue.pop()?;
        self.seed = self.seed.wrapping_add(1);
        let (message, plugins) = match self.decide(&pod) {
            Decision::Node(node) => {
                self.reserved.remove(&pod.uid);
                self.snapshot.place(&pod, &node);
                self.assumed.insert(pod.uid.clone());
                let on_failure = self.told.get(&pod.uid).map(Told::condition).unwrap_or_default();
                return Some(Work::Bind { pod, node, on_failure });
            }
            Decision::Unschedulable(error) => (error.to_string(), error.plugins),
            Decision::Preempt(error, preemption) => {
                return Some(self.preempt(pod, error.to_string(), error.plugins, preemption, now));
            }
            Decision::NoNodes => ("no nodes available to schedule pods".to_owned(), PluginSet::all()),
        };
        self.queue.park(&pod.uid, plugins, now);
        let told = self.told.entry(pod.uid.clone()).or_default();
        let news = told.message.as_ref() != Some(&message);
        let condition = news.then_some(told.condition());
        told.message = Some(message.clone());
        Some(Work::Unschedulable { pod, message, condition })
    }

    /// The core's decision, with room that is reserved for others only where these go first.
    fn decide(&mut self, pod: &Pod) -> Decision {
        let gives_way = |own: &&Reservation| own.pod.uid == pod.uid || own.pod.priority < pod.priority;
        let giving: Vec<Box<str>> = self.reserved.values().filter(gives_way).map(|own| own.pod.uid.clone()).collect();
        for uid in &giving {
            self.snapshot.remove_pod(uid);
        }
        let nominated = self.reserved.get(&pod.uid).map(|own| &*own.node);
        let waits = nominated.is_some_and(|node| self.snapshot.makes_room(node, pod.priority));
        let room = if waits { Room::BeingMade } else { Room::Free };
        let decision = decide(&self.snapshot, pod, self.seed, room);
        for own in giving.iter().filter_map(|uid| self.reserved.get(uid)) {
            self.snapshot.place(&own.pod, &own.node);
        }
        decision
    }

    fn preempt(
        &mut self,
        pod: Arc<Pod>,
        message: String,
        plugins: PluginSet,
        preemption: Preemption,
        now: Instant,
    ) -> Work {
        let Preemption { node, victims } = preemption;
        for victim in &victims {
            self.snapshot.set_terminating(&victim.uid, true);
        }
        // Those of a lower priority that waited for this node look for another.
        let outdone = |own: &Reservation| own.node == node && own.pod.priority < pod.priority;
        let outdone: Vec<_> =
            self.reserved.iter().filter(|(_, own)| outdone(own)).map(|(uid, _)| uid.clone()).collect();
        for uid in &outdone {
            self.release(uid);
        }
        self.reserve(Arc::clone(&pod), node.clone(), false);
        self.queue.park(&pod.uid, plugins, now);
        let told = self.told.entry(pod.uid.clone()).or_default();
        told.message = Some(message.clone());
        Work::Preempt { condition: told.condition(), pod, node, victims, message }
    }

    fn reserve(&mut self, pod: Arc<Pod>, node: Box<str>, confirmed: bool) {
        self.snapshot.place(&pod, &node);
        self.reserved.insert(pod.uid.clone(), Reservation { pod, node, confirmed });
    }

    fn release(&mut self, uid: &str) -> bool {
        self.reserved.remove(uid).is_some() && self.snapshot.remove_pod(uid)
    }

    /// A pod that preempted could not have its victims deleted: nobody makes room.
    pub(super) fn preemption_failed(&mut self, uid: &str, victims: &[VictimPod], now: Instant) {
        for victim in victims.iter().filter(|victim| !victim.terminating) {
            self.snapshot.set_terminating(&victim.uid, false);
        }
        self.telling_failed(uid);
        if self.release(uid) {
            self.queue.wake(freed(), now);
        }
    }

    /// A binding was refused: the placement is undone and the pod tried again, unless the watch says that it is bound.
    pub(super) fn bind_failed(&mut self, uid: &str, now: Instant) {
        // The failure replaced what was told before.
        self.telling_failed(uid);
        if self.assumed.remove(uid) {
            self.snapshot.remove_pod(uid);
            self.queue.retry(uid, now);
            self.queue.wake(freed(), now);
        }
    }

    /// The condition could not be written: it is news again at the next attempt.
    pub(super) fn telling_failed(&mut self, uid: &str) {
        if let Some(told) = self.told.get_mut(uid) {
            told.message = None;
        }
    }

    fn set_node(&mut self, node: &SlimNode, now: Instant) {
        self.nodes.insert(node.metadata.name.as_deref().unwrap_or_default().into());
        let change = self.snapshot.set_node(node);
        self.queue.wake(change.helps, now);
    }

    fn remove_node(&mut self, name: &str) {
        self.nodes.remove(name);
        self.snapshot.remove_node(name);
    }

    fn set_pod(&mut self, watched: &SlimPod, now: Instant) {
        let uid = watched.metadata.uid.as_deref().unwrap_or_default();
        // A pod that has ended takes nothing any more.
        if watched.is_terminal() {
            return self.remove_pod(uid, now);
        }
        let pod = Pod::of(watched);
        if let Some(node) = &pod.node_name {
            self.queue.remove(uid);
            self.told.remove(uid);
            self.assumed.remove(uid);
            self.reserved.remove(uid);
            self.placed.insert(uid.into());
            if self.snapshot.place(&pod, node) {
                self.queue.wake(freed(), now);
            }
            return;
        }
        if self.assumed.contains(uid) && watched.is_terminating() {
            return;
        }
        if &*watched.spec.scheduler_name != SCHEDULER || watched.is_terminating() {
            self.queue.remove(uid);
            self.told.remove(uid);
            if self.release(uid) {
                self.queue.wake(freed(), now);
            }
            return;
        }
        let condition = watched.condition("PodScheduled").filter(|condition| &*condition.status == "False");
        let told = self.told.entry(uid.into()).or_default();
        told.generation = watched.metadata.generation;
        told.since = condition.and_then(|condition| condition.last_transition_time.as_ref()).map(|time| time.0);
        let gate = if watched.spec.scheduling_gates.is_empty() { Gate::Open } else { Gate::Closed };
        let pod = Arc::new(pod);
        if !self.assumed.contains(uid) {
            let nominated = watched.status.nominated_node_name.as_deref().filter(|node| !node.is_empty());
            self.follow_nomination(&pod, nominated, now);
        }
        self.queue.offer(pod, gate, now);
    }

    /// Takes over what the watch says of the room that a pod waits for.
    fn follow_nomination(&mut self, pod: &Arc<Pod>, nominated: Option<&str>, now: Instant) {
        match (nominated, self.reserved.get(&pod.uid)) {
            (Some(node), own) if own.is_none_or(|own| own.confirmed || &*own.node == node) => {
                self.reserve(Arc::clone(pod), node.into(), true);
            }
            (None, Some(own)) if own.confirmed => {
                if self.release(&pod.uid) {
                    self.queue.wake(freed(), now);
                }
            }
            // What the watch shows is older than what was decided here.
            (Some(_) | None, _) => {}
        }
    }

    fn remove_pod(&mut self, uid: &str, now: Instant) {
        self.reserved.remove(uid);
        self.queue.remove(uid);
        self.told.remove(uid);
        self.assumed.remove(uid);
        self.placed.remove(uid);
        if self.snapshot.remove_pod(uid) {
            self.queue.wake(freed(), now);
        }
    }
}

/// The plugins that room on a node helps.
fn freed() -> PluginSet {
    PluginSet::of(Plugin::NodeResourcesFit).with(PluginSet::of(Plugin::NodePorts))
}
