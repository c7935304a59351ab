//! What the network agent reads of an EndpointSlice.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Deserializer};

use super::{metadata, nullable, slim_resource};

/// An EndpointSlice with flattened conditions and hints.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimEndpointSlice {
    /// Metadata without managed fields.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(default)]
    pub address_type: Box<str>,
    /// Endpoints.
    #[serde(default, deserialize_with = "nullable")]
    pub endpoints: Box<[SlimEndpoint]>,
    /// Ports that each endpoint has.
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Box<[SlimEndpointPort]>,
}

slim_resource!(SlimEndpointSlice, NamespaceResourceScope, "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");

impl SlimEndpointSlice {
    /// The Service that it belongs to (label `kubernetes.io/service-name`).
    #[must_use]
    pub fn service_name(&self) -> Option<&str> {
        self.metadata.labels.as_ref()?.get("kubernetes.io/service-name").map(String::as_str)
    }
}

/// An endpoint.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Endpoint")]
pub struct SlimEndpoint {
    /// Its address: proxies use the first only.
    pub addresses: Box<[Box<str>]>,
    /// Whether it takes new connections (absent reads as `true`).
    pub ready: bool,
    /// Whether it answers, also while terminating (absent reads as `ready`).
    pub serving: bool,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// The name in DNS.
    pub hostname: Option<Box<str>>,
    /// The node that it is on.
    pub node_name: Option<Box<str>>,
    /// The zone of that node.
    pub zone: Option<Box<str>>,
    /// Zones whose clients shall use it; empty means all.
    pub for_zones: Box<[Box<str>]>,
    /// Nodes whose clients shall use it; empty means all.
    pub for_nodes: Box<[Box<str>]>,
    /// The pod's name (`targetRef` of kind `Pod`).
    pub pod_name: Option<Box<str>>,
}

/// A port of a slice.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimEndpointPort {
    /// The Service port's name.
    #[serde(default, deserialize_with = "nullable")]
    pub name: Box<str>,
    /// The port in the endpoint; none means all ports.
    #[serde(default)]
    pub port: Option<i32>,
    /// `TCP`, `UDP` or `SCTP`.
    #[serde(default = "tcp")]
    pub protocol: Box<str>,
    /// What speaks on it.
    #[serde(default)]
    pub app_protocol: Option<Box<str>>,
}

fn tcp() -> Box<str> {
    "TCP".into()
}

fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[Box<str>]>, D::Error> {
    #[derive(Deserialize)]
    struct Named {
        name: Box<str>,
    }
    let named: Vec<Named> = nullable(deserializer)?;
    Ok(named.into_iter().map(|item| item.name).collect())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    #[serde(default, deserialize_with = "nullable")]
    addresses: Box<[Box<str>]>,
    #[serde(default, deserialize_with = "nullable")]
    conditions: Conditions,
    hostname: Option<Box<str>>,
    node_name: Option<Box<str>>,
    zone: Option<Box<str>>,
    #[serde(default, deserialize_with = "nullable")]
    hints: Hints,
    target_ref: Option<TargetRef>,
}

#[derive(Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hints {
    #[serde(default, deserialize_with = "names")]
    for_zones: Box<[Box<str>]>,
    #[serde(default, deserialize_with = "names")]
    for_nodes: Box<[Box<str>]>,
}

#[derive(Deserialize)]
struct TargetRef {
    kind: Option<Box<str>>,
    name: Option<Box<str>>,
}

impl From<Endpoint> for SlimEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        let ready = endpoint.conditions.ready.unwrap_or(true);
        let pod = endpoint.target_ref.filter(|target| target.kind.as_deref() == Some("Pod"));
        Self {
            addresses: endpoint.addresses,
            ready,
            serving: endpoint.conditions.serving.unwrap_or(ready),
            terminating: endpoint.conditions.terminating.unwrap_or(false),
            hostname: endpoint.hostname,
            node_name: endpoint.node_name,
            zone: endpoint.zone,
            for_zones: endpoint.hints.for_zones,
            for_nodes: endpoint.hints.for_nodes,
            pod_name: pod.and_then(|target| target.name),
        }
    }
}
