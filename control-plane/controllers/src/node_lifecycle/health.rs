//! When each node was last heard of, by this process's own clock.
//!
//! A node is heard of when its Ready condition's heartbeat or its Lease's renewal changes. The times in them are the node's, and
//! are compared with each other only; how long ago that was is measured from when the change was seen here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::reconcile::{Readiness, ready_condition};

/// Whether a node is still heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Liveness {
    /// It is, and has this long until it would not be.
    Heard(Duration),
    /// Nothing was heard of it for its grace period.
    Silent,
}

#[derive(Debug)]
struct Health {
    seen: Instant,
    /// None while the node never had a Ready condition.
    heartbeat: Option<Option<Time>>,
    renewal: Option<MicroTime>,
    readiness: Readiness,
}

/// All nodes.
#[derive(Debug, Default)]
pub(super) struct Healths {
    nodes: HashMap<Box<str>, Health>,
}

impl Healths {
    /// Takes in a node's state.
    pub(super) fn observe_node(&mut self, node: &Node, now: Instant) {
        let Some(name) = node.metadata.name.as_deref() else { return };
        let readiness = Readiness::of(node);
        let heartbeat = ready_condition(node).map(|condition| condition.last_heartbeat_time.clone());
        match self.nodes.get_mut(name) {
            Some(health) => {
                if health.heartbeat != heartbeat {
                    health.seen = now;
                }
                health.heartbeat = heartbeat;
                health.readiness = readiness;
            }
            None => {
                self.nodes.insert(name.into(), Health { seen: now, heartbeat, renewal: None, readiness });
            }
        }
    }

    /// Takes in a renewal of a node's Lease; says whether it is news. One of a node that is not known is not kept.
    pub(super) fn observe_lease(&mut self, name: &str, renewal: Option<&MicroTime>, now: Instant) -> bool {
        let Some(health) = self.nodes.get_mut(name) else { return false };
        let news = renewal.is_some() && health.renewal.as_ref() != renewal;
        if news {
            health.renewal = renewal.cloned();
            health.seen = now;
        }
        news
    }

    pub(super) fn forget(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Counts all nodes as heard of now: after the whole cluster was silent, the fault may have been here.
    pub(super) fn excuse_all(&mut self, now: Instant) {
        for health in self.nodes.values_mut() {
            health.seen = now;
        }
    }

    /// Whether a node is heard of; `startup` is the grace period of one that never had a Ready condition.
    pub(super) fn liveness(&self, name: &str, grace: Duration, startup: Duration, now: Instant) -> Option<Liveness> {
        let health = self.nodes.get(name)?;
        let grace = if health.heartbeat.is_some() { grace } else { startup };
        let left = grace.saturating_sub(now.saturating_duration_since(health.seen));
        Some(if left.is_zero() { Liveness::Silent } else { Liveness::Heard(left) })
    }

    /// What a node said last, or was said of it here.
    pub(super) fn readiness(&self, name: &str) -> Option<Readiness> {
        self.nodes.get(name).map(|health| health.readiness)
    }
}
