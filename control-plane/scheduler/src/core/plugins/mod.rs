//! Upstream's filters and scores, one file a plugin.
//!
//! A plugin is prepared once a pod (names become numbers), then asked once a node. A refusal carries what the reason's text
//! is made of, not the text: most are counted, few are shown.

pub(crate) mod balanced_allocation;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod taint_toleration;

pub(crate) use node_affinity::NodeAffinity;
pub(crate) use node_name::NodeNameFilter;
pub(crate) use node_ports::NodePorts;
pub(crate) use node_resources_fit::NodeResourcesFit;
pub(crate) use node_unschedulable::NodeUnschedulable;
pub(crate) use taint_toleration::TaintToleration;

use std::borrow::Cow;

use super::resources::Requests;

/// A plugin that can refuse a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// The pod names its node.
    NodeName,
    /// The node is cordoned.
    NodeUnschedulable,
    /// The node has taints.
    TaintToleration,
    /// The pod selects nodes by label or name.
    NodeAffinity,
    /// The pod takes ports of the node.
    NodePorts,
    /// The pod takes resources of the node.
    NodeResourcesFit,
}

/// A set of plugins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PluginSet(u8);

impl PluginSet {
    /// All plugins.
    #[must_use]
    pub const fn all() -> Self {
        Self(u8::MAX)
    }

    /// The set of one plugin.
    #[must_use]
    pub const fn of(plugin: Plugin) -> Self {
        Self(1 << plugin as u8)
    }

    /// The plugins of both sets.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Adds a plugin.
    pub fn insert(&mut self, plugin: Plugin) {
        *self = self.with(Self::of(plugin));
    }

    pub(crate) fn insert_if(&mut self, condition: bool, plugin: Plugin) {
        if condition {
            self.insert(plugin);
        }
    }

    /// Whether the sets share a plugin.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// Why a node can't take the pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refusal {
    /// The pod's spec names another node.
    OtherName,
    /// The node is cordoned.
    Unschedulable,
    /// It has a taint that the pod doesn't bear.
    Taint,
    /// Its labels don't match.
    Affinity,
    /// The pod's affinity lists nodes by name, and this one isn't listed.
    NotNamedByAffinity,
    /// A port is taken.
    Ports,
    /// It has no room.
    Room(Shortage),
}

/// What a node is short of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Shortage {
    /// It has as many pods as it may.
    pub(crate) pods: bool,
    /// Positions in the pod's [`Requests::amounts`].
    pub(crate) amounts: Vec<usize>,
    /// Whether an empty node would be too small as well.
    pub(crate) even_if_empty: bool,
}

impl Refusal {
    pub(crate) fn plugin(&self) -> Plugin {
        match self {
            Self::OtherName => Plugin::NodeName,
            Self::Unschedulable => Plugin::NodeUnschedulable,
            Self::Taint => Plugin::TaintToleration,
            Self::Affinity | Self::NotNamedByAffinity => Plugin::NodeAffinity,
            Self::Ports => Plugin::NodePorts,
            Self::Room(_) => Plugin::NodeResourcesFit,
        }
    }

    /// Whether removing pods from the node could help (upstream: `Unschedulable`, not `UnschedulableAndUnresolvable`).
    pub(crate) fn is_resolvable(&self) -> bool {
        match self {
            Self::OtherName | Self::Unschedulable | Self::Taint | Self::Affinity | Self::NotNamedByAffinity => false,
            Self::Ports => true,
            Self::Room(shortage) => !shortage.even_if_empty,
        }
    }

    /// The reasons in upstream's words.
    pub(crate) fn reasons(&self, requests: &Requests) -> Vec<Cow<'static, str>> {
        let reason = match self {
            Self::OtherName => "node(s) didn't match the requested node name",
            Self::Unschedulable => "node(s) were unschedulable",
            Self::Taint => "node(s) had untolerated taint(s)",
            Self::Affinity => "node(s) didn't match Pod's node affinity/selector",
            Self::NotNamedByAffinity => "node(s) didn't satisfy plugin(s) [NodeAffinity]",
            Self::Ports => "node(s) didn't have free ports for the requested pod ports",
            Self::Room(shortage) => {
                let pods = shortage.pods.then_some(Cow::Borrowed("Too many pods"));
                let names = shortage.amounts.iter().filter_map(|at| requests.amounts.get(*at));
                return pods.into_iter().chain(names.map(|(name, _)| format!("Insufficient {name}").into())).collect();
            }
        };
        vec![Cow::Borrowed(reason)]
    }
}
