//! Native routes to other nodes' pods, from the Nodes: pure compile, and the difference applied to the kernel.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use kube::runtime::{WatchStreamExt, watcher, watcher as watch};
use kube::{Api, Client};
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use skep_client::slim::SlimNode;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::link::refused;
use super::netns::within;
use super::{Cidr, PodError, Pods};
use crate::agent::{Listing, next, wait};
use crate::compile::Name;

/// Marks routes as ours (`rtm_protocol`); numbers from 5 on are for routing daemons, and no known one has this.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(83);
/// How long events gather.
const GATHER: Duration = Duration::from_millis(50);
/// After how long a failed update is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Gateways by pod network.
pub type Routes = BTreeMap<Cidr, Ipv4Addr>;

/// The routes that the node `own` needs: each other node's IPv4 pod networks by that node's first IPv4 `InternalIP`.
#[must_use]
pub fn compile(own: &str, nodes: &BTreeMap<Name, SlimNode>) -> Routes {
    let mut routes = Routes::new();
    for ((_, name), node) in nodes.iter().filter(|((_, name), _)| name != own) {
        let addresses = node.status.addresses.iter().filter(|address| address.type_ == "InternalIP");
        let Some(gateway) = addresses.filter_map(|address| address.address.parse().ok()).next() else { continue };
        for network in networks(node) {
            if routes.insert(network, gateway).is_some() {
                warn!(node = name, %network, "two nodes have the same pod network");
            }
        }
    }
    routes
}

/// Watches Nodes until `stop`: tells `pods` this node's pod network and keeps the routes. Nothing is removed before all Nodes were listed.
pub async fn run(client: Client, own: &str, pods: Arc<Pods>, stop: CancellationToken) {
    let api: Api<SlimNode> = Api::all(client);
    let mut events = pin!(watch(api, watcher::Config::default()).default_backoff());
    let (mut listing, mut nodes) = (Listing::default(), BTreeMap::new());
    let mut due: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            event = next(&mut events) => listing.apply(event, &mut nodes),
            () = wait(due) => {
                due = None;
                if let Some(network) = nodes.get(&(String::new(), own.to_owned())).and_then(|node| networks(node).next()) {
                    pods.set_network(network).await;
                }
                match pods.sync_routes(compile(own, &nodes)).await {
                    Ok((0, 0)) => {}
                    Ok((written, removed)) => info!(written, removed, "routes to other nodes' pods updated"),
                    Err(error) => {
                        warn!(%error, "routes to other nodes' pods could not be updated and will be again");
                        due = Some(Instant::now() + RETRY);
                    }
                }
                continue;
            }
        }
        if listing.complete {
            due = Some(due.unwrap_or_else(|| Instant::now() + GATHER));
        }
    }
}

impl Pods {
    /// Makes the node's routes to other nodes' pods equal to `wanted`: how many were written and removed. Others' routes stay.
    /// One that the kernel refuses doesn't keep the others from being written.
    ///
    /// # Errors
    /// The first refusal.
    pub async fn sync_routes(&self, wanted: Routes) -> Result<(usize, usize), PodError> {
        within(&self.netns, async move |handle| {
            let mut have = BTreeMap::new();
            let mut routes = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
            while let Some(route) = routes.try_next().await.map_err(refused("can't read routes"))? {
                if let Some((network, gateway)) = ours(&route) {
                    have.insert(network, (gateway, route));
                }
            }
            let (mut written, mut removed, mut first) = (0, 0, None);
            for (network, (_, route)) in have.iter().filter(|(network, _)| !wanted.contains_key(network)) {
                match handle.route().del(route.clone()).execute().await {
                    Ok(()) => removed += 1,
                    Err(error) => {
                        first.get_or_insert((format!("can't remove the route to {network}"), error));
                    }
                }
            }
            for (network, gateway) in &wanted {
                if have.get(network).is_some_and(|(now, _)| now == gateway) {
                    continue;
                }
                let route = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(network.address, network.length)
                    .gateway(*gateway)
                    .protocol(PROTOCOL)
                    .build();
                match handle.route().add(route).replace().execute().await {
                    Ok(()) => written += 1,
                    Err(error) => {
                        first.get_or_insert((format!("can't route {network} by {gateway}"), error));
                    }
                }
            }
            match first {
                Some((what, source)) => Err(PodError::Netlink { what, source }),
                None => Ok((written, removed)),
            }
        })
        .await
    }
}

fn networks(node: &SlimNode) -> impl Iterator<Item = Cidr> {
    let one = node.spec.pod_cidr.iter().filter(|_| node.spec.pod_cidrs.is_empty());
    node.spec.pod_cidrs.iter().chain(one).filter_map(|network| network.parse().ok())
}

fn ours(route: &RouteMessage) -> Option<(Cidr, Ipv4Addr)> {
    if route.header.protocol != PROTOCOL {
        return None;
    }
    let (mut address, mut gateway) = (Ipv4Addr::UNSPECIFIED, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(to)) => address = *to,
            RouteAttribute::Gateway(RouteAddress::Inet(by)) => gateway = Some(*by),
            _ => {}
        }
    }
    Some((Cidr { address, length: route.header.destination_prefix_length }, gateway?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_nodes_networks_are_routed_by_their_internal_address() {
        let node = |name: &str, networks: &[&str], address: &str| {
            let node = serde_json::json!({
                "metadata": { "name": name },
                "spec": { "podCIDRs": networks },
                "status": { "addresses": [{ "type": "Hostname", "address": name }, { "type": "InternalIP", "address": address }] },
            });
            ((String::new(), name.to_owned()), serde_json::from_value::<SlimNode>(node).expect("a node"))
        };
        let nodes = BTreeMap::from([
            node("own", &["10.0.1.0/24"], "192.0.2.1"),
            node("other", &["10.0.2.0/24", "2001:db8::/64"], "192.0.2.2"),
            node("new", &[], "192.0.2.3"),
            node("addressless", &["10.0.4.0/24"], "not-yet"),
        ]);
        let network = "10.0.2.0/24".parse().expect("a network");
        assert_eq!(compile("own", &nodes), Routes::from([(network, Ipv4Addr::new(192, 0, 2, 2))]));
    }
}
