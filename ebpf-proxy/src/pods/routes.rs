//! Native routes to other nodes' pods, from the Nodes: pure compile, and the difference applied to the kernel.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::link::refused;
use super::netns::within;
use super::{Cidr, PodError, Pods};
use crate::agent::wait;
use crate::nodes::Nodes;

/// Marks routes as ours (`rtm_protocol`); numbers from 5 on are for routing daemons, and no known one has this.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(83);
/// After how long a failed update is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Gateways by pod network.
pub type Routes = BTreeMap<Cidr, Ipv4Addr>;

/// The routes that the node `own` needs: each other node's pod networks by that node's internal address.
#[must_use]
pub fn compile(own: &str, nodes: &Nodes) -> Routes {
    let mut routes = Routes::new();
    for (name, node) in nodes.iter().filter(|(name, _)| *name != own) {
        let Some(gateway) = node.internal else { continue };
        for network in &node.networks {
            if routes.insert(*network, gateway).is_some() {
                warn!(node = name, %network, "two nodes have the same pod network");
            }
        }
    }
    routes
}

/// Tells `pods` this node's pod network and keeps the routes, until `stop`. Nothing is removed before all Nodes were listed.
pub async fn run(mut nodes: watch::Receiver<Option<Nodes>>, own: &str, pods: Arc<Pods>, stop: CancellationToken) {
    let mut due: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = nodes.changed() => if changed.is_err() {
                // Who watched the Nodes has stopped, and so does all.
                return;
            },
            () = wait(due) => {}
        }
        due = None;
        let Some(nodes) = nodes.borrow_and_update().clone() else { continue };
        if let Some(network) = nodes.get(own).and_then(|node| node.networks.first()) {
            pods.set_network(*network).await;
        }
        match pods.sync_routes(compile(own, &nodes)).await {
            Ok((0, 0)) => {}
            Ok((written, removed)) => info!(written, removed, "routes to other nodes' pods updated"),
            Err(error) => {
                warn!(%error, "routes to other nodes' pods could not be updated and will be again");
                due = Some(Instant::now() + RETRY);
            }
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
    use crate::nodes::NodeNetwork;

    #[test]
    fn other_nodes_networks_are_routed_by_their_internal_address() {
        let node = |name: &str, networks: &[&str], internal| {
            let networks = networks.iter().map(|network| network.parse().expect("a network")).collect();
            (name.to_owned(), NodeNetwork { networks, addresses: Vec::new(), internal })
        };
        let nodes = Nodes::from([
            node("own", &["10.0.1.0/24"], Some(Ipv4Addr::new(192, 0, 2, 1))),
            node("other", &["10.0.2.0/24"], Some(Ipv4Addr::new(192, 0, 2, 2))),
            node("new", &[], Some(Ipv4Addr::new(192, 0, 2, 3))),
            node("addressless", &["10.0.4.0/24"], None),
        ]);
        let network = "10.0.2.0/24".parse().expect("a network");
        assert_eq!(compile("own", &nodes), Routes::from([(network, Ipv4Addr::new(192, 0, 2, 2))]));
    }
}
