//! What the network needs of the Nodes, watched once for all parts: a Node's heartbeats wake nobody.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::time::Duration;

use kube::runtime::{WatchStreamExt, watcher, watcher as watch_objects};
use kube::{Api, Client};
use skep_client::slim::SlimNode;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agent::{Listing, next, wait};
use crate::pods::Cidr;

/// How long events gather.
const GATHER: Duration = Duration::from_millis(50);

/// A node's place in the network. IPv4 only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeNetwork {
    /// Its pods' networks (`spec.podCIDRs`).
    pub networks: Vec<Cidr>,
    /// All its addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// The one by which other nodes reach it: the first `InternalIP`.
    pub internal: Option<Ipv4Addr>,
}

/// Nodes by name.
pub type Nodes = BTreeMap<String, NodeNetwork>;

impl From<&SlimNode> for NodeNetwork {
    fn from(node: &SlimNode) -> Self {
        let one = node.spec.pod_cidr.iter().filter(|_| node.spec.pod_cidrs.is_empty());
        let networks = node.spec.pod_cidrs.iter().chain(one).filter_map(|network| network.parse().ok()).collect();
        let of_type = |wanted: Option<&str>| {
            let addresses = node.status.addresses.iter();
            let addresses = addresses.filter(move |address| wanted.is_none_or(|wanted| address.type_ == wanted));
            addresses.filter_map(|address| address.address.parse().ok()).collect::<Vec<Ipv4Addr>>()
        };
        Self { networks, addresses: of_type(None), internal: of_type(Some("InternalIP")).first().copied() }
    }
}

/// Watches Nodes until `stop`, and sends what changed for the network. None before all were listed.
pub async fn run(client: Client, nodes: watch::Sender<Option<Nodes>>, stop: CancellationToken) {
    let api: Api<SlimNode> = Api::all(client);
    let mut events = pin!(watch_objects(api, watcher::Config::default()).default_backoff());
    let (mut listing, mut known) = (Listing::default(), BTreeMap::new());
    let mut due: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            event = next(&mut events) => {
                listing.apply(event, &mut known);
                if listing.complete {
                    due = Some(due.unwrap_or_else(|| Instant::now() + GATHER));
                }
            }
            () = wait(due) => {
                due = None;
                let now: Nodes = known.iter().map(|((_, name), node)| (name.clone(), node.into())).collect();
                nodes.send_if_modified(|sent| {
                    let differs = sent.as_ref() != Some(&now);
                    if differs {
                        *sent = Some(now);
                    }
                    differs
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_place_is_read_from_its_spec_and_status() {
        let node = |spec| -> NodeNetwork {
            let addresses = serde_json::json!([
                { "type": "Hostname", "address": "one" },
                { "type": "ExternalIP", "address": "203.0.113.1" },
                { "type": "InternalIP", "address": "2001:db8::1" },
                { "type": "InternalIP", "address": "192.0.2.1" },
            ]);
            let node = serde_json::json!({ "metadata": {}, "spec": spec, "status": { "addresses": addresses } });
            (&serde_json::from_value::<SlimNode>(node).expect("a node")).into()
        };
        let both = node(serde_json::json!({ "podCIDR": "10.0.1.0/24", "podCIDRs": ["10.0.1.0/24", "2001:db8::/64"] }));
        assert_eq!(both.networks, ["10.0.1.0/24".parse().expect("a network")]);
        assert_eq!(both.addresses, [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(192, 0, 2, 1)]);
        assert_eq!(both.internal, Some(Ipv4Addr::new(192, 0, 2, 1)));
        assert_eq!(node(serde_json::json!({ "podCIDR": "10.0.1.0/24" })).networks, both.networks);
        assert_eq!(node(serde_json::json!({})).networks, []);
    }
}
