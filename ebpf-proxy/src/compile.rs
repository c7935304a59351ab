//! From Services and EndpointSlices to map entries: pure, so that one state always gives one set of entries.
//!
//! Numbers of services and backends are hashes of what they stand for, so that an agent which starts anew, or saw the events
//! in another order, gives the same numbers and the kernel's maps stay as they are. Collisions are stepped over in sorted order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use skep_client::slim::{SlimEndpoint, SlimEndpointSlice, SlimService, SlimServicePort};
use skep_ebpf_common::{
    Address, Backend, DROP_WHEN_EMPTY, Endpoint, FROM_NODE, NODE, ON_THIS_NODE, PODS, Service, SlotKey, TCP, UDP,
    mapped,
};

use crate::nodes::Nodes;
use crate::pods::{Cidr, HostPort};

/// Namespace and name.
pub type Name = (String, String);

/// What was seen of the cluster, and where this agent is.
#[derive(Clone, Debug, Default)]
pub struct ServiceState {
    /// This node's name: the internal traffic policy `Local` keeps to its endpoints.
    pub node_name: String,
    /// This node's addresses, on which node ports are served.
    pub node_addresses: Vec<Ipv4Addr>,
    /// Services by namespace and name.
    pub services: BTreeMap<Name, SlimService>,
    /// EndpointSlices by namespace and name.
    pub slices: BTreeMap<Name, SlimEndpointSlice>,
    /// The networks of all pods: what leaves them is masqueraded. None: nothing is.
    pub cluster_networks: Vec<Cidr>,
    /// Ports of this node that lead to its pods.
    pub host_ports: Vec<HostPort>,
    /// Nodes by name; their addresses are inside of the cluster.
    pub nodes: Nodes,
}

/// All that the kernel's maps shall hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Services as sockets of this node and its pods reach them, by address, port and protocol.
    pub services: BTreeMap<Endpoint, Service>,
    /// Services as packets from outside reach them.
    pub externals: BTreeMap<Endpoint, Service>,
    /// The backends' numbers of each service.
    pub slots: BTreeMap<SlotKey, u32>,
    /// By number.
    pub backends: BTreeMap<u32, Backend>,
    /// Networks and addresses of the cluster, and what they are.
    pub inside: BTreeMap<Network, u32>,
}

/// A network in the form of the maps, with the length of its prefix.
pub type Network = (Address, u32);

/// Backends and their flags.
type Backends = BTreeMap<Endpoint, u32>;

/// One address, port and protocol of a service.
struct Frontend {
    affinity: u32,
    flags: u32,
    internal: Backends,
    /// As it is reached from outside, and the flags then.
    external: Option<(Backends, u32)>,
}

/// The entries for a state.
#[must_use]
pub fn compile(state: &ServiceState) -> Entries {
    let mut slices: BTreeMap<(&str, &str), Vec<&SlimEndpointSlice>> = BTreeMap::new();
    for ((namespace, _), slice) in &state.slices {
        if let Some(service) = slice.service_name() {
            slices.entry((namespace, service)).or_default().push(slice);
        }
    }
    let mut frontends: BTreeMap<Endpoint, Frontend> = BTreeMap::new();
    for ((namespace, name), service) in &state.services {
        let slices = slices.get(&(namespace.as_str(), name.as_str())).map_or(&[][..], Vec::as_slice);
        for port in &service.spec.ports {
            add_port(state, service, port, slices, &mut frontends);
        }
    }
    for port in &state.host_ports {
        add_host_port(state, port, &mut frontends);
    }
    Entries { inside: inside(state), ..numbered(&frontends) }
}

/// What is not masqueraded: pods' networks and nodes' addresses.
fn inside(state: &ServiceState) -> BTreeMap<Network, u32> {
    let pods = state
        .cluster_networks
        .iter()
        .map(|network| ((mapped(network.address.octets()), 96 + u32::from(network.length)), PODS));
    let others = state.nodes.values().flat_map(|node| &node.addresses);
    let nodes = state.node_addresses.iter().chain(others);
    nodes.map(|address| ((mapped(address.octets()), 128), NODE)).chain(pods).collect()
}

fn add_port(
    state: &ServiceState,
    service: &SlimService,
    port: &SlimServicePort,
    slices: &[&SlimEndpointSlice],
    frontends: &mut BTreeMap<Endpoint, Frontend>,
) {
    let spec = &service.spec;
    if &*spec.r#type == "ExternalName" || service.is_headless() {
        return;
    }
    let Some(protocol) = protocol(&port.protocol) else { return };
    let Ok(number) = u16::try_from(port.port) else { return };
    let affinity = match spec.session_affinity.as_deref() {
        // The API's own default (DefaultClientIPServiceAffinitySeconds).
        Some("ClientIP") => {
            spec.session_affinity_timeout.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(10_800)
        }
        _ => 0,
    };
    let is_local = |policy: &Option<Box<str>>| policy.as_deref() == Some("Local");
    let all = backends(state, port, protocol, slices, false);
    let internal = if is_local(&spec.internal_traffic_policy) {
        backends(state, port, protocol, slices, true)
    } else {
        all.clone()
    };
    // Connections from the node itself and its pods to an external address go to any endpoint, whatever the external policy
    // is: kube-proxy's "internal traffic to an external address" (`externalTrafficPolicy` judges what comes from outside).
    for address in v4(spec.cluster_ips.iter().chain(&spec.cluster_ip)) {
        let frontend = || Frontend { affinity, flags: 0, internal: internal.clone(), external: None };
        frontends.entry(endpoint(address, number, protocol)).or_insert_with(frontend);
    }
    let external = if is_local(&spec.external_traffic_policy) {
        let here = backends(state, port, protocol, slices, true);
        let flags = if here.is_empty() && !all.is_empty() { DROP_WHEN_EMPTY } else { 0 };
        (here, flags)
    } else {
        (all.clone(), 0)
    };
    let frontend = || Frontend { affinity, flags: 0, internal: all.clone(), external: Some(external.clone()) };
    for address in v4(spec.external_ips.iter().chain(&service.load_balancer_ips)) {
        frontends.entry(endpoint(address, number, protocol)).or_insert_with(frontend);
    }
    if let Some(number) = u16::try_from(port.node_port).ok().filter(|number| *number != 0) {
        for address in &state.node_addresses {
            frontends.entry(endpoint(*address, number, protocol)).or_insert_with(frontend);
        }
    }
}

/// A port of the node, on the address it is asked for, else on all of them; what a Service has stays the Service's.
fn add_host_port(state: &ServiceState, port: &HostPort, frontends: &mut BTreeMap<Endpoint, Frontend>) {
    let backend: Backends = [(endpoint(port.pod, port.pod_port, port.protocol), ON_THIS_NODE)].into();
    let addresses = match port.address {
        Some(address) => vec![address],
        None => state.node_addresses.iter().copied().chain([Ipv4Addr::LOCALHOST]).collect(),
    };
    for address in addresses {
        let (flags, external) = if address.is_loopback() { (FROM_NODE, None) } else { (0, Some((backend.clone(), 0))) };
        let frontend = || Frontend { affinity: 0, flags, internal: backend.clone(), external };
        frontends.entry(endpoint(address, port.port, port.protocol)).or_insert_with(frontend);
    }
}

/// The endpoints that take new connections: those that are ready; when none is, those that still answer while they go.
fn backends(
    state: &ServiceState,
    port: &SlimServicePort,
    protocol: u8,
    slices: &[&SlimEndpointSlice],
    only_here: bool,
) -> Backends {
    let chosen = |wanted: &dyn Fn(&SlimEndpoint) -> bool| -> Backends {
        let mut found = Backends::new();
        for slice in slices {
            let of_port = |candidate: &&skep_client::slim::SlimEndpointPort| {
                candidate.name == port.name && candidate.protocol == port.protocol
            };
            let target = slice.ports.iter().find(of_port).and_then(|port| u16::try_from(port.port?).ok());
            let Some(target) = target else { continue };
            for candidate in slice.endpoints.iter().filter(|candidate| wanted(candidate)) {
                let is_here = candidate.node_name.as_deref() == Some(state.node_name.as_str());
                if only_here && !is_here {
                    continue;
                }
                let flags = if is_here { ON_THIS_NODE } else { 0 };
                // Proxies use the first address only (EndpointSlice API).
                let addresses = v4(candidate.addresses.iter().take(1));
                found.extend(addresses.map(|address| (endpoint(address, target, protocol), flags)));
            }
        }
        found
    };
    let ready = chosen(&|candidate| candidate.ready);
    if ready.is_empty() { chosen(&|candidate| candidate.serving && candidate.terminating) } else { ready }
}

fn numbered(frontends: &BTreeMap<Endpoint, Frontend>) -> Entries {
    let mut entries = Entries::default();
    let mut all = Backends::new();
    for frontend in frontends.values() {
        all.extend(&frontend.internal);
        all.extend(frontend.external.iter().flat_map(|(backends, _)| backends));
    }
    let mut numbers: BTreeMap<Endpoint, u32> = BTreeMap::new();
    for (endpoint, flags) in all {
        let id = free(&endpoint, |id| id == 0 || entries.backends.contains_key(&id));
        entries.backends.insert(id, Backend { endpoint, flags });
        numbers.insert(endpoint, id);
    }
    let mut taken = BTreeSet::new();
    let mut add = |endpoint: &Endpoint, affinity_seconds: u32, backends: &Backends, flags: u32| {
        // Zero is no backend's and no service's number.
        let id = free(endpoint, |id| id == 0 || taken.contains(&id));
        taken.insert(id);
        let mut count = 0;
        for number in backends.keys().filter_map(|backend| numbers.get(backend)) {
            entries.slots.insert(SlotKey { service: id, slot: count }, *number);
            count += 1;
        }
        Service { id, backends: count, affinity_seconds, flags }
    };
    for (endpoint, Frontend { affinity, flags: own, internal, external }) in frontends {
        let service = add(endpoint, *affinity, internal, *own);
        entries.services.insert(*endpoint, service);
        if let Some((backends, flags)) = external {
            let same = backends == internal && *flags == 0;
            let service = if same { service } else { add(endpoint, *affinity, backends, *flags) };
            entries.externals.insert(*endpoint, service);
        }
    }
    entries
}

/// A number for an endpoint: FNV-1a over its bytes, and the next ones while they are taken.
fn free(endpoint: &Endpoint, taken: impl Fn(u32) -> bool) -> u32 {
    let bytes = endpoint.address.iter().chain(&endpoint.port).chain(std::iter::once(&endpoint.protocol));
    let mut id = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    while taken(id) {
        id = id.wrapping_add(1);
    }
    id
}

fn endpoint(address: Ipv4Addr, port: u16, protocol: u8) -> Endpoint {
    Endpoint { address: mapped(address.octets()), port: port.to_be_bytes(), protocol, padding: 0 }
}

fn protocol(name: &str) -> Option<u8> {
    match name {
        "TCP" => Some(TCP),
        "UDP" => Some(UDP),
        // SCTP sockets meet none of the hooks.
        _ => None,
    }
}

fn v4<'a>(texts: impl Iterator<Item = &'a Box<str>>) -> impl Iterator<Item = Ipv4Addr> {
    texts.filter_map(|text| match text.parse() {
        Ok(IpAddr::V4(address)) => Some(address),
        Ok(IpAddr::V6(_)) | Err(_) => None,
    })
}

#[cfg(test)]
mod tests;
