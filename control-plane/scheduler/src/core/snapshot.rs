//! The cluster in columns: what each node has, what its pods take, and how it is labelled and tainted.
//!
//! Invariant: after any sequence of changes the columns are what they would be if built anew from the final nodes and pods
//! (checked by a property test). A change touches the cells of one node. A slot lives as long as its node or a pod that
//! names it: pods may be seen before their node and stay after it.
//!
//! Data flow: watch events and assumed placements → [`Snapshot::set_node`], [`Snapshot::place`] and their inverses → read by plugins.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Taint;
use skep_client::slim::SlimNode;

use super::intern::Interner;
use super::plugins::{Plugin, PluginSet};
use super::pod::{HostPort, Pod};
use super::resources;

/// A node's row in the columns. It is another node's after this one and all its pods are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeIndex(u32);

impl NodeIndex {
    fn at(self) -> usize {
        self.0 as usize
    }
}

/// What a change of a node can help: the plugins that may judge differently now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeChange {
    /// Plugins that may let a pod in that they refused before.
    pub helps: PluginSet,
}

/// What is known of a taint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TaintKey {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) effect: String,
}

impl From<&Taint> for TaintKey {
    fn from(taint: &Taint) -> Self {
        Self { key: taint.key.clone(), value: taint.value.clone().unwrap_or_default(), effect: taint.effect.clone() }
    }
}

impl From<&Self> for TaintKey {
    fn from(taint: &Self) -> Self {
        taint.clone()
    }
}

/// A pod's part of its node's columns, kept to take it back exactly.
#[derive(Clone, Debug, PartialEq)]
struct Placement {
    node: NodeIndex,
    amounts: Box<[(u32, i64)]>,
    scoring: [i64; 2],
    ports: Box<[HostPort]>,
    priority: i32,
    started: Option<i64>,
    terminating: bool,
    namespace: Box<str>,
    name: Box<str>,
}

/// A pod as preemption sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Victim<'a> {
    /// Column and amount of each request.
    pub(crate) amounts: &'a [(u32, i64)],
    pub(crate) ports: &'a [HostPort],
    pub(crate) priority: i32,
    pub(crate) started: Option<i64>,
    pub(crate) terminating: bool,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

/// Nodes and placed pods in columns.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    by_name: HashMap<Box<str>, NodeIndex>,
    free: Vec<NodeIndex>,
    present_count: usize,
    placements: HashMap<Box<str>, Placement>,

    names: Vec<Box<str>>,
    present: Vec<bool>,
    unschedulable: Vec<bool>,
    allowed_pods: Vec<i64>,
    pod_counts: Vec<i64>,
    labels: Vec<Box<[(u32, u32)]>>,
    taints: Vec<Box<[u32]>>,
    ports: Vec<Vec<HostPort>>,
    priorities: Vec<BTreeMap<i32, u32>>,
    /// Uids of the pods.
    members: Vec<Vec<Box<str>>>,
    /// CPU and memory with defaults for containers that request none.
    scoring: [Vec<i128>; 2],
    /// A column a resource, in the order of `resource_names`. Sums are wider than amounts, so that no set of pods overflows them.
    allocatable: Vec<Vec<i64>>,
    requested: Vec<Vec<i128>>,

    resource_names: Interner<Box<str>>,
    label_keys: Interner<Box<str>>,
    label_values: Interner<Box<str>>,
    taint_table: Interner<TaintKey>,
}

impl Snapshot {
    /// How many nodes there are.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.present_count
    }

    /// The nodes, in the order of their rows.
    pub fn nodes(&self) -> impl Iterator<Item = NodeIndex> {
        // Rows are made by `slot`, which counts them in 32 bits.
        (0u32..).zip(&self.present).filter(|(_, present)| **present).map(|(index, _)| NodeIndex(index))
    }

    /// A node's name.
    #[must_use]
    pub fn node_name(&self, node: NodeIndex) -> &str {
        &self.names[node.at()]
    }

    /// The node that a pod is placed on, whether the node itself is there or not.
    #[must_use]
    pub fn placement(&self, uid: &str) -> Option<&str> {
        self.placements.get(uid).map(|placement| self.node_name(placement.node))
    }

    /// Adds a node or takes over its new state, and says which plugins may be kinder to pods for it.
    pub fn set_node(&mut self, node: &SlimNode) -> NodeChange {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let index = self.slot(name);
        let row = index.at();
        let allocatable: Vec<(u32, i64)> = (node.status.allocatable.iter())
            .filter(|(name, _)| resources::is_accounted(name))
            .map(|(name, quantity)| (self.resource(name), resources::amount(name, quantity)))
            .collect();
        let allowed = node.status.allocatable.get("pods").map_or(0, |pods| resources::amount("pods", pods));
        let labels = node.metadata.labels.iter().flatten();
        let mut labels: Vec<(u32, u32)> =
            labels.map(|(key, value)| (self.label_keys.intern(&**key), self.label_values.intern(&**value))).collect();
        labels.sort_unstable();
        let taints: Box<[u32]> =
            node.spec.taints.iter().map(|taint| self.taint_table.intern(&TaintKey::from(taint))).collect();

        let mut helps = PluginSet::default();
        if !std::mem::replace(&mut self.present[row], true) {
            self.present_count += 1;
            helps = PluginSet::all();
        }
        let mut room = allowed > std::mem::replace(&mut self.allowed_pods[row], allowed);
        for (resource, column) in (0u32..).zip(&mut self.allocatable) {
            let now = allocatable.iter().find(|(own, _)| *own == resource).map_or(0, |(_, amount)| *amount);
            room |= now > std::mem::replace(&mut column[row], now);
        }
        helps.insert_if(room, Plugin::NodeResourcesFit);
        let opened =
            std::mem::replace(&mut self.unschedulable[row], node.spec.unschedulable) && !node.spec.unschedulable;
        helps.insert_if(opened, Plugin::NodeUnschedulable);
        helps.insert_if(*self.labels[row] != *labels, Plugin::NodeAffinity);
        self.labels[row] = labels.into();
        helps.insert_if(self.taints[row] != taints, Plugin::TaintToleration);
        self.taints[row] = taints;
        NodeChange { helps }
    }

    /// Takes a node away. Its pods stay placed: they are gone when their own deletion is seen.
    pub fn remove_node(&mut self, name: &str) {
        let Some(&index) = self.by_name.get(name) else { return };
        let row = index.at();
        if std::mem::replace(&mut self.present[row], false) {
            self.present_count -= 1;
        }
        self.unschedulable[row] = false;
        self.allowed_pods[row] = 0;
        self.labels[row] = Box::default();
        self.taints[row] = Box::default();
        for column in &mut self.allocatable {
            column[row] = 0;
        }
        self.release(index);
    }

    /// Places a pod on the node of that name, or moves and resizes it if it is placed already.
    /// Returns whether room was freed by that.
    pub fn place(&mut self, pod: &Pod, node: &str) -> bool {
        let index = self.slot(node);
        let requests = &pod.requests;
        let placement = Placement {
            node: index,
            amounts: requests.amounts.iter().map(|(name, amount)| (self.resource(name), *amount)).collect(),
            scoring: [requests.scoring_cpu, requests.scoring_memory],
            ports: pod.host_ports.clone(),
            priority: pod.priority,
            started: pod.started,
            terminating: pod.terminating,
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
        };
        if self.placements.get(&pod.uid) == Some(&placement) {
            return false;
        }
        self.members[index.at()].push(pod.uid.clone());
        self.add(&placement);
        let previous = self.placements.insert(pod.uid.clone(), placement);
        if let Some(previous) = &previous {
            self.leave(previous.node, &pod.uid);
            self.subtract(previous);
        }
        previous.is_some()
    }

    /// Takes a pod away. Returns whether it was placed.
    pub fn remove_pod(&mut self, uid: &str) -> bool {
        let placement = self.placements.remove(uid);
        if let Some(placement) = &placement {
            self.leave(placement.node, uid);
            self.subtract(placement);
        }
        placement.is_some()
    }

    /// Takes a pod for one that is being deleted, or no longer: the API was told, or refused.
    pub fn set_terminating(&mut self, uid: &str, terminating: bool) {
        if let Some(placement) = self.placements.get_mut(uid) {
            placement.terminating = terminating;
        }
    }

    /// Whether a pod of a lower priority on the node of that name is being deleted.
    #[must_use]
    pub fn makes_room(&self, node: &str, priority: i32) -> bool {
        let index = self.by_name.get(node);
        index.is_some_and(|index| self.victims(*index, priority).any(|(_, victim)| victim.terminating))
    }

    /// The pods of a lower priority on a node, by uid.
    pub(crate) fn victims(&self, node: NodeIndex, priority: i32) -> impl Iterator<Item = (&str, Victim<'_>)> {
        let placed = self.members[node.at()].iter().filter_map(|uid| Some((&**uid, self.placements.get(uid)?)));
        placed.filter(move |(_, placement)| placement.priority < priority).map(|(uid, placement)| {
            let Placement { amounts, ports, priority, started, terminating, namespace, name, .. } = placement;
            let victim = Victim {
                amounts,
                ports,
                priority: *priority,
                started: *started,
                terminating: *terminating,
                namespace,
                name,
            };
            (uid, victim)
        })
    }

    pub(crate) fn is_unschedulable(&self, node: NodeIndex) -> bool {
        self.unschedulable[node.at()]
    }

    pub(crate) fn allowed_pods(&self, node: NodeIndex) -> i64 {
        self.allowed_pods[node.at()]
    }

    pub(crate) fn pod_count(&self, node: NodeIndex) -> i64 {
        self.pod_counts[node.at()]
    }

    pub(crate) fn taints(&self, node: NodeIndex) -> &[u32] {
        &self.taints[node.at()]
    }

    pub(crate) fn taint_table(&self) -> &[TaintKey] {
        self.taint_table.values()
    }

    pub(crate) fn ports(&self, node: NodeIndex) -> &[HostPort] {
        &self.ports[node.at()]
    }

    pub(crate) fn resource_id(&self, name: &str) -> Option<u32> {
        self.resource_names.get(name)
    }

    pub(crate) fn allocatable(&self, resource: u32, node: NodeIndex) -> i64 {
        self.allocatable[resource as usize][node.at()]
    }

    pub(crate) fn requested(&self, resource: u32, node: NodeIndex) -> i128 {
        self.requested[resource as usize][node.at()]
    }

    /// CPU (0) or memory (1) as scores count it.
    pub(crate) fn scoring_requested(&self, which: usize, node: NodeIndex) -> i128 {
        self.scoring[which][node.at()]
    }

    pub(crate) fn label_key(&self, key: &str) -> Option<u32> {
        self.label_keys.get(key)
    }

    pub(crate) fn label_value(&self, value: &str) -> Option<u32> {
        self.label_values.get(value)
    }

    pub(crate) fn label_text(&self, value: u32) -> &str {
        self.label_values.value(value).map_or("", |text| text)
    }

    /// The value of a label on a node.
    pub(crate) fn label(&self, node: NodeIndex, key: u32) -> Option<u32> {
        let labels = &self.labels[node.at()];
        labels.binary_search_by_key(&key, |(own, _)| *own).ok().map(|at| labels[at].1)
    }

    /// Whether a pod of a lower priority is on the node: a possible victim of preemption.
    pub(crate) fn has_pod_below(&self, node: NodeIndex, priority: i32) -> bool {
        self.priorities[node.at()].range(..priority).next().is_some()
    }

    fn slot(&mut self, name: &str) -> NodeIndex {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = self.free.pop().unwrap_or_else(|| self.grow());
        self.names[index.at()] = name.into();
        self.by_name.insert(name.into(), index);
        index
    }

    fn grow(&mut self) -> NodeIndex {
        // 2^32 nodes don't fit into the memory of one process.
        let index = NodeIndex(u32::try_from(self.names.len()).unwrap_or(u32::MAX));
        self.names.push(Box::default());
        self.present.push(false);
        self.unschedulable.push(false);
        self.allowed_pods.push(0);
        self.pod_counts.push(0);
        self.labels.push(Box::default());
        self.taints.push(Box::default());
        self.ports.push(Vec::new());
        self.priorities.push(BTreeMap::new());
        self.members.push(Vec::new());
        self.scoring.iter_mut().for_each(|column| column.push(0));
        self.allocatable.iter_mut().for_each(|column| column.push(0));
        self.requested.iter_mut().for_each(|column| column.push(0));
        index
    }

    fn resource(&mut self, name: &str) -> u32 {
        let id = self.resource_names.intern(name);
        if id as usize == self.allocatable.len() {
            self.allocatable.push(vec![0; self.names.len()]);
            self.requested.push(vec![0; self.names.len()]);
        }
        id
    }

    fn add(&mut self, placement: &Placement) {
        let row = placement.node.at();
        self.pod_counts[row] += 1;
        for (resource, amount) in &placement.amounts {
            self.requested[*resource as usize][row] += i128::from(*amount);
        }
        for (column, amount) in self.scoring.iter_mut().zip(placement.scoring) {
            column[row] += i128::from(amount);
        }
        self.ports[row].extend(placement.ports.iter().cloned());
        *self.priorities[row].entry(placement.priority).or_insert(0) += 1;
    }

    fn subtract(&mut self, placement: &Placement) {
        let row = placement.node.at();
        self.pod_counts[row] -= 1;
        for (resource, amount) in &placement.amounts {
            self.requested[*resource as usize][row] -= i128::from(*amount);
        }
        for (column, amount) in self.scoring.iter_mut().zip(placement.scoring) {
            column[row] -= i128::from(amount);
        }
        for port in &placement.ports {
            // Pods that others bound may share a port: only one entry goes with one pod.
            if let Some(at) = self.ports[row].iter().position(|own| own == port) {
                self.ports[row].swap_remove(at);
            }
        }
        if let Some(count) = self.priorities[row].get_mut(&placement.priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities[row].remove(&placement.priority);
            }
        }
        self.release(placement.node);
    }

    /// One entry a placement: a pod that is moved within its node has two for a moment.
    fn leave(&mut self, node: NodeIndex, uid: &str) {
        let members = &mut self.members[node.at()];
        if let Some(at) = members.iter().position(|own| &**own == uid) {
            members.swap_remove(at);
        }
    }

    fn release(&mut self, index: NodeIndex) {
        let row = index.at();
        if !self.present[row] && self.pod_counts[row] == 0 && self.by_name.remove(&self.names[row]).is_some() {
            self.names[row] = Box::default();
            self.free.push(index);
        }
    }
}

#[cfg(test)]
impl Snapshot {
    /// All that the columns say, by name instead of by number and row, for comparison.
    pub(crate) fn describe(&self) -> BTreeMap<String, String> {
        let describe = |index: &NodeIndex| {
            let row = index.at();
            let resources: BTreeMap<&str, (i64, i128)> = (self.resource_names.values().iter())
                .zip(self.allocatable.iter().zip(&self.requested))
                .map(|(name, (allocatable, requested))| (&**name, (allocatable[row], requested[row])))
                .filter(|(_, cells)| *cells != (0, 0))
                .collect();
            let labels: BTreeMap<_, _> = (self.labels[row].iter())
                .map(|(key, value)| (self.label_keys.value(*key), self.label_values.value(*value)))
                .collect();
            let taints: Vec<_> = self.taints[row].iter().map(|taint| self.taint_table.value(*taint)).collect();
            let mut ports = self.ports[row].clone();
            ports.sort();
            let scoring = [self.scoring[0][row], self.scoring[1][row]];
            let cells = (self.present[row], self.unschedulable[row], self.allowed_pods[row], self.pod_counts[row]);
            let mut members = self.members[row].clone();
            members.sort();
            format!(
                "{members:?} {cells:?} {resources:?} {labels:?} {taints:?} {ports:?} {scoring:?} {:?}",
                self.priorities[row]
            )
        };
        self.by_name.iter().map(|(name, index)| (name.to_string(), describe(index))).collect()
    }
}
