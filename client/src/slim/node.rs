//! What the scheduler, the controllers and the network agent read of a Node.

use std::collections::BTreeMap;

use k8s_openapi::ClusterResourceScope;
use k8s_openapi::api::core::v1::{NodeAddress, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;

use super::{metadata, nullable, slim_resource};

/// A Node with its capacity, taints, addresses and conditions.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct SlimNode {
    /// Metadata without managed fields.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// What is asked for.
    #[serde(default, deserialize_with = "nullable")]
    pub spec: SlimNodeSpec,
    /// What is.
    #[serde(default, deserialize_with = "nullable")]
    pub status: SlimNodeStatus,
}

slim_resource!(SlimNode, ClusterResourceScope, "", "v1", "Node", "nodes");

impl SlimNode {
    /// The condition of that type, if the status has it.
    #[must_use]
    pub fn condition(&self, r#type: &str) -> Option<&SlimNodeCondition> {
        self.status.conditions.iter().find(|condition| &*condition.r#type == r#type)
    }

    /// Whether the condition `Ready` is `True`.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition("Ready").is_some_and(|condition| &*condition.status == "True")
    }
}

/// What is asked for of a node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimNodeSpec {
    /// The pods' network on this node.
    #[serde(default, rename = "podCIDR")]
    pub pod_cidr: Option<Box<str>>,
    /// The pods' networks, one a family.
    #[serde(default, rename = "podCIDRs", deserialize_with = "nullable")]
    pub pod_cidrs: Box<[Box<str>]>,
    /// The machine's name at its cloud.
    #[serde(default, rename = "providerID")]
    pub provider_id: Option<Box<str>>,
    /// Whether new pods keep away.
    #[serde(default, deserialize_with = "nullable")]
    pub unschedulable: bool,
    /// Taints.
    #[serde(default, deserialize_with = "nullable")]
    pub taints: Box<[Taint]>,
}

/// What is, of a node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimNodeStatus {
    /// What pods may use.
    #[serde(default, deserialize_with = "nullable")]
    pub allocatable: BTreeMap<String, Quantity>,
    /// What the machine has.
    #[serde(default, deserialize_with = "nullable")]
    pub capacity: BTreeMap<String, Quantity>,
    /// Addresses.
    #[serde(default, deserialize_with = "nullable")]
    pub addresses: Box<[NodeAddress]>,
    /// Conditions.
    #[serde(default, deserialize_with = "nullable")]
    pub conditions: Box<[SlimNodeCondition]>,
    /// Images on the node, for ImageLocality.
    #[serde(default, deserialize_with = "nullable")]
    pub images: Box<[SlimImage]>,
}

/// A condition of a node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimNodeCondition {
    /// The condition's type, such as `Ready`.
    pub r#type: Box<str>,
    /// `True`, `False` or `Unknown`.
    #[serde(default)]
    pub status: Box<str>,
    /// The machine-readable cause.
    #[serde(default)]
    pub reason: Option<Box<str>>,
    /// When the kubelet last said so.
    #[serde(default)]
    pub last_heartbeat_time: Option<Time>,
    /// When `status` last changed.
    #[serde(default)]
    pub last_transition_time: Option<Time>,
}

/// An image that a node has.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimImage {
    /// Its names.
    #[serde(default, deserialize_with = "nullable")]
    pub names: Box<[Box<str>]>,
    /// Its size in bytes.
    #[serde(default, deserialize_with = "nullable")]
    pub size_bytes: i64,
}
