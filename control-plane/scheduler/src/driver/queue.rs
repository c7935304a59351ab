//! The pods that wait for a node: ready ones by priority, failed ones in their back-off, and those that no node would have.
//!
//! Invariant: a pod is in one place, and time comes in as an argument. The queue is bounded by the pods of the cluster: it
//! holds an entry a pod that is watched and has no node.
//!
//! Data flow: watch → [`Queue::offer`] / [`Queue::remove`]; [`Queue::pop`] → the core → [`Queue::park`] or [`Queue::retry`];
//! changes of the cluster → [`Queue::wake`]; the clock → [`Queue::advance`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::core::{PluginSet, Pod};

/// How long pods wait (upstream's `podInitialBackoffSeconds`, `podMaxBackoffSeconds`, `podMaxInUnschedulablePodsDuration`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    pub(crate) initial_backoff: Duration,
    pub(crate) max_backoff: Duration,
    pub(crate) max_unschedulable: Duration,
}

/// A pod's place in the order: higher priority first, then the earlier.
type Order = (std::cmp::Reverse<i32>, u64);

#[derive(Debug)]
enum Place {
    Active(Order),
    Backoff(Instant),
    /// No node would have it until this time, or until one of the plugins may judge differently.
    Unschedulable {
        until: Instant,
        plugins: PluginSet,
    },
    /// Its scheduling gates hold it.
    Gated,
    /// It was taken out and is being bound.
    Out,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    place: Place,
    attempts: u32,
    /// When the back-off of the last attempt ends.
    ready: Instant,
}

/// Whether a pod's gates hold it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    Closed,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    waits: Waits,
    entries: HashMap<Box<str>, Entry>,
    active: BTreeSet<(Order, Box<str>)>,
    timers: BTreeSet<(Instant, Box<str>)>,
    sequence: u64,
}

impl Queue {
    pub(crate) fn new(waits: Waits) -> Self {
        Self { waits, entries: HashMap::new(), active: BTreeSet::new(), timers: BTreeSet::new(), sequence: 0 }
    }

    /// Takes a pod in, or over its new state. One that changed in what decides is worth another try.
    pub(crate) fn offer(&mut self, pod: Arc<Pod>, gate: Gate, now: Instant) {
        let uid = pod.uid.clone();
        let Some(entry) = self.entries.get_mut(&uid) else {
            self.entries.insert(uid.clone(), Entry { pod, place: Place::Gated, attempts: 0, ready: now });
            if gate == Gate::Open {
                self.activate(&uid, now);
            }
            return;
        };
        let changed = *entry.pod != *pod;
        entry.pod = pod;
        match (&entry.place, gate) {
            (Place::Gated, Gate::Open) => self.activate(&uid, now),
            (Place::Unschedulable { .. } | Place::Active(_), Gate::Open) if changed => self.activate(&uid, now),
            (Place::Gated | Place::Out, Gate::Closed) | (_, Gate::Open) => {}
            (Place::Active(_) | Place::Backoff(_) | Place::Unschedulable { .. }, Gate::Closed) => {
                self.put(&uid, Place::Gated);
            }
        }
    }

    /// Forgets a pod: it is bound, gone or another scheduler's.
    pub(crate) fn remove(&mut self, uid: &str) {
        self.put(uid, Place::Out);
        self.entries.remove(uid);
    }

    /// Takes out the pod whose turn it is, and counts the attempt.
    pub(crate) fn pop(&mut self) -> Option<Arc<Pod>> {
        let (_, uid) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&uid)?;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.place = Place::Out;
        Some(Arc::clone(&entry.pod))
    }

    /// Puts back a pod that no node would have, because of these plugins.
    pub(crate) fn park(&mut self, uid: &str, plugins: PluginSet, now: Instant) {
        self.start_backoff(uid, now);
        self.put(uid, Place::Unschedulable { until: now + self.waits.max_unschedulable, plugins });
    }

    /// Puts back a pod whose binding failed: it is tried again after its back-off.
    pub(crate) fn retry(&mut self, uid: &str, now: Instant) {
        if let Some(ready) = self.start_backoff(uid, now) {
            self.put(uid, Place::Backoff(ready));
        }
    }

    /// Lets unschedulable pods try again that one of these plugins refused.
    pub(crate) fn wake(&mut self, helps: PluginSet, now: Instant) {
        if helps == PluginSet::default() {
            return;
        }
        let woken: Vec<Box<str>> = (self.entries.iter())
            .filter(
                |(_, entry)| matches!(entry.place, Place::Unschedulable { plugins, .. } if plugins.intersects(helps)),
            )
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in woken {
            self.activate(&uid, now);
        }
    }

    /// Lets pods try whose time has come.
    pub(crate) fn advance(&mut self, now: Instant) {
        while let Some((at, uid)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            self.activate(&uid, now);
            // An entry that is gone would leave its timer at the head.
            self.timers.remove(&(at, uid));
        }
    }

    /// When [`Queue::advance`] has something to do.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether a pod can be taken out.
    pub(crate) fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// The pods that it knows, by uid.
    pub(crate) fn uids(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(|uid| &**uid)
    }

    fn start_backoff(&mut self, uid: &str, now: Instant) -> Option<Instant> {
        let waits = self.waits;
        let entry = self.entries.get_mut(uid)?;
        // Past 2^16 any sensible initial wait is over the maximum.
        let doublings = entry.attempts.saturating_sub(1).min(16);
        entry.ready = now + waits.initial_backoff.saturating_mul(1 << doublings).min(waits.max_backoff);
        Some(entry.ready)
    }

    fn activate(&mut self, uid: &str, now: Instant) {
        let Some(entry) = self.entries.get(uid) else { return };
        if entry.ready > now {
            let ready = entry.ready;
            self.put(uid, Place::Backoff(ready));
            return;
        }
        let order = (std::cmp::Reverse(entry.pod.priority), self.sequence);
        self.sequence += 1;
        self.put(uid, Place::Active(order));
    }

    /// Moves an entry, with its marks in the order and among the timers.
    fn put(&mut self, uid: &str, place: Place) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let key: Box<str> = uid.into();
        match std::mem::replace(&mut entry.place, place) {
            Place::Active(order) => {
                self.active.remove(&(order, key.clone()));
            }
            Place::Backoff(at) | Place::Unschedulable { until: at, .. } => {
                self.timers.remove(&(at, key.clone()));
            }
            Place::Gated | Place::Out => {}
        }
        match entry.place {
            Place::Active(order) => {
                self.active.insert((order, key));
            }
            Place::Backoff(at) | Place::Unschedulable { until: at, .. } => {
                self.timers.insert((at, key));
            }
            Place::Gated | Place::Out => {}
        }
    }
}
