//! How many nodes of each zone are ready, and from that how fast nodes may be given up (`handleDisruption`).
//!
//! Invariant: while no node of the cluster is ready, none is given up: the fault is then more likely here or in the network than
//! in every node. Data flow: each node's readiness comes in as it changes; [`Zones::admit`] hands out the permits.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;

use super::NodeLifecycle;
use super::reconcile::Readiness;

const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";
const ZONE: [&str; 2] = ["failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"];
const REGION: [&str; 2] = ["failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"];
/// Fewer nodes than this that are not ready never make a zone unhealthy.
const LEAST_UNHEALTHY: usize = 3;

/// How a zone fares (`ZoneState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZoneState {
    /// Most nodes are ready.
    Normal,
    /// Many are not.
    PartialDisruption,
    /// None is ready.
    FullDisruption,
}

/// Whether a node may be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Now; the permit is taken.
    Now,
    /// Not before this time has passed.
    Wait(Duration),
    /// Not while its zone fares as it does.
    Never,
}

#[derive(Debug, Default)]
struct Zone {
    ready: usize,
    not_ready: usize,
    last_permit: Option<Instant>,
}

/// All zones.
#[derive(Debug, Default)]
pub(super) struct Zones {
    nodes: HashMap<Box<str>, (Box<str>, bool)>,
    zones: HashMap<Box<str>, Zone>,
}

impl Zones {
    /// Takes in a node's state. Says whether it changed how its zone or the cluster fares.
    pub(super) fn observe(&mut self, node: &Node, policy: &NodeLifecycle) -> bool {
        let Some(name) = node.metadata.name.as_deref() else { return false };
        let zone: Box<str> = zone_of(node).into();
        let before = (self.state(&zone, policy), self.all_disrupted());
        self.forget(name);
        let labels = node.metadata.labels.as_ref();
        if !labels.is_some_and(|labels| labels.contains_key(EXCLUDED)) {
            let ready = Readiness::of(node) == Readiness::Ready;
            self.count(&zone, ready, 1);
            self.nodes.insert(name.into(), (zone.clone(), ready));
        }
        before != (self.state(&zone, policy), self.all_disrupted())
    }

    /// A node is gone.
    pub(super) fn forget(&mut self, name: &str) {
        if let Some((zone, ready)) = self.nodes.remove(name) {
            self.count(&zone, ready, -1);
        }
    }

    /// Whether no zone has a node that is ready.
    pub(super) fn all_disrupted(&self) -> bool {
        self.zones.values().all(|zone| zone.ready == 0)
    }

    /// A permit to give up a node of that zone.
    pub(super) fn admit(&mut self, zone: &str, policy: &NodeLifecycle, now: Instant) -> Admission {
        let rate = match self.state(zone, policy) {
            ZoneState::Normal | ZoneState::FullDisruption => policy.eviction_rate,
            ZoneState::PartialDisruption => {
                let size = self.zones.get(zone).map_or(0, |zone| zone.ready + zone.not_ready);
                if size > policy.large_cluster_threshold { policy.secondary_eviction_rate } else { 0.0 }
            }
        };
        if self.all_disrupted() || rate <= 0.0 {
            return Admission::Never;
        }
        let interval = Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX);
        let zone = self.zones.entry(zone.into()).or_default();
        let left = zone.last_permit.map(|last| interval.saturating_sub(now.saturating_duration_since(last)));
        match left.filter(|left| !left.is_zero()) {
            Some(left) => Admission::Wait(left),
            None => {
                zone.last_permit = Some(now);
                Admission::Now
            }
        }
    }

    /// The last permit of a zone was not used: the taint could not be written.
    pub(super) fn give_back(&mut self, zone: &str) {
        if let Some(zone) = self.zones.get_mut(zone) {
            zone.last_permit = None;
        }
    }

    /// How a zone fares.
    pub(super) fn state(&self, zone: &str, policy: &NodeLifecycle) -> ZoneState {
        let Some(Zone { ready, not_ready, .. }) = self.zones.get(zone) else { return ZoneState::Normal };
        let size = ready + not_ready;
        // A share of a count: the loss of precision beyond 2^52 nodes is none.
        #[allow(clippy::cast_precision_loss)]
        let unhealthy = size > 0 && *not_ready as f64 / size as f64 >= policy.unhealthy_zone_threshold;
        if *ready == 0 && *not_ready > 0 {
            ZoneState::FullDisruption
        } else if *not_ready >= LEAST_UNHEALTHY && unhealthy {
            ZoneState::PartialDisruption
        } else {
            ZoneState::Normal
        }
    }

    fn count(&mut self, zone: &str, ready: bool, by: isize) {
        let zone = self.zones.entry(zone.into()).or_default();
        let count = if ready { &mut zone.ready } else { &mut zone.not_ready };
        *count = count.saturating_add_signed(by);
    }
}

/// Region and zone as one key (`GetZoneKey`); empty without both.
pub(super) fn zone_of(node: &Node) -> String {
    let labels = node.metadata.labels.as_ref();
    let first = |keys: [&str; 2]| keys.iter().find_map(|key| labels?.get(*key)).map(String::as_str).unwrap_or_default();
    match (first(REGION), first(ZONE)) {
        ("", "") => String::new(),
        (region, zone) => format!("{region}:\0:{zone}"),
    }
}
