//! What the controllers and the network agent read of a Service.

use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::{Deserialize, Deserializer};

use super::{metadata, nullable, slim_resource};

/// A Service with its addresses, ports and selector.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "Service")]
pub struct SlimService {
    /// Metadata without managed fields.
    pub metadata: ObjectMeta,
    /// What is asked for.
    pub spec: SlimServiceSpec,
    /// Addresses that the load balancer has (`status.loadBalancer.ingress[].ip`), with mode `VIP` or none.
    pub load_balancer_ips: Box<[Box<str>]>,
}

slim_resource!(SlimService, NamespaceResourceScope, "", "v1", "Service", "services");

impl SlimService {
    /// Whether it has no cluster address (`clusterIP: None`).
    #[must_use]
    pub fn is_headless(&self) -> bool {
        self.spec.cluster_ip.as_deref() == Some("None")
    }
}

/// What is asked for of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(default, deserialize_with = "nullable")]
    pub r#type: Box<str>,
    /// The first cluster address, or `None`.
    #[serde(default, rename = "clusterIP")]
    pub cluster_ip: Option<Box<str>>,
    /// All cluster addresses.
    #[serde(default, rename = "clusterIPs", deserialize_with = "nullable")]
    pub cluster_ips: Box<[Box<str>]>,
    /// Address families in order.
    #[serde(default, deserialize_with = "nullable")]
    pub ip_families: Box<[Box<str>]>,
    /// Further addresses.
    #[serde(default, rename = "externalIPs", deserialize_with = "nullable")]
    pub external_ips: Box<[Box<str>]>,
    /// The DNS name that an `ExternalName` stands for.
    #[serde(default)]
    pub external_name: Option<Box<str>>,
    /// Labels of its pods; empty means that someone else writes its EndpointSlices.
    #[serde(default, deserialize_with = "nullable")]
    pub selector: BTreeMap<String, String>,
    /// Ports.
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Box<[SlimServicePort]>,
    /// Whether pods count before they are ready.
    #[serde(default, deserialize_with = "nullable")]
    pub publish_not_ready_addresses: bool,
    /// `None` or `ClientIP`.
    #[serde(default)]
    pub session_affinity: Option<Box<str>>,
    /// Seconds that a client keeps its endpoint.
    #[serde(default, rename = "sessionAffinityConfig", deserialize_with = "affinity_timeout")]
    pub session_affinity_timeout: Option<i32>,
    /// `Cluster` or `Local`.
    #[serde(default)]
    pub internal_traffic_policy: Option<Box<str>>,
    /// `Cluster` or `Local`.
    #[serde(default)]
    pub external_traffic_policy: Option<Box<str>>,
    /// Where load balancers ask whether a node has endpoints.
    #[serde(default)]
    pub health_check_node_port: Option<i32>,
    /// `PreferClose`, `PreferSameZone`, `PreferSameNode`.
    #[serde(default)]
    pub traffic_distribution: Option<Box<str>>,
    /// Client networks that a load balancer lets in.
    #[serde(default, deserialize_with = "nullable")]
    pub load_balancer_source_ranges: Box<[Box<str>]>,
    /// The load balancer implementation.
    #[serde(default)]
    pub load_balancer_class: Option<Box<str>>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlimServicePort {
    /// Its name, empty if it is the only one.
    #[serde(default, deserialize_with = "nullable")]
    pub name: Box<str>,
    /// The port on the cluster address.
    pub port: i32,
    /// The port in the pod, by number or by name; none means `port`.
    #[serde(default)]
    pub target_port: Option<IntOrString>,
    /// The port on each node, 0 if none.
    #[serde(default, deserialize_with = "nullable")]
    pub node_port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    #[serde(default = "tcp")]
    pub protocol: Box<str>,
    /// What speaks on it, such as `kubernetes.io/h2c`.
    #[serde(default)]
    pub app_protocol: Option<Box<str>>,
}

fn tcp() -> Box<str> {
    "TCP".into()
}

fn affinity_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        #[serde(rename = "clientIP")]
        client_ip: Option<ClientIp>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct ClientIp {
        timeout_seconds: Option<i32>,
    }
    let config: Config = nullable(deserializer)?;
    Ok(config.client_ip.and_then(|client| client.timeout_seconds))
}

#[derive(Deserialize)]
struct Service {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "nullable")]
    spec: SlimServiceSpec,
    #[serde(default, deserialize_with = "nullable")]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default, deserialize_with = "nullable")]
    load_balancer: LoadBalancer,
}

#[derive(Default, Deserialize)]
struct LoadBalancer {
    #[serde(default, deserialize_with = "nullable")]
    ingress: Vec<Ingress>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ingress {
    #[serde(default)]
    ip: Option<Box<str>>,
    #[serde(default)]
    ip_mode: Option<Box<str>>,
}

impl From<Service> for SlimService {
    fn from(service: Service) -> Self {
        // KEP-1860: traffic to an address of mode `Proxy` must go out to the balancer.
        let addresses = service.status.load_balancer.ingress.into_iter();
        let addresses = addresses.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
        Self {
            metadata: service.metadata,
            spec: service.spec,
            load_balancer_ips: addresses.filter_map(|ingress| ingress.ip).collect(),
        }
    }
}
