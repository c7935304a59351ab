//! Node IPAM: each node gets its part of the pods' network (`nodeipam/ipam/range_allocator.go`).
//!
//! Watches nodes. One worker gives out parts, lowest free number first, so that no two nodes get the same; what it gave
//! is remembered until the node is gone.
//!
//! Invariant: a part is held by at most one node name; a podCIDR that a node has is never changed.

mod cidr;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use kube::api::Patch;
use kube::{Api, Resource};
use parking_lot::Mutex;
use skep_client::EventType;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Options;
use crate::context::Context;
use crate::runtime::{ObjectKey, Outcome, Reconcile, ReconcileError, is_not_found, patch_params, run_workers};

pub use cidr::{Cidr, CidrError};

pub(crate) struct Controller {
    context: Context,
    allocator: Mutex<Allocator>,
}

/// Registers the handlers and starts the worker, if there is a network to divide.
pub(crate) fn start(context: Context, options: &Options, tasks: &mut JoinSet<()>, shutdown: &CancellationToken) {
    if options.cluster_cidrs.is_empty() {
        return;
    }
    let ranges = options.cluster_cidrs.iter().map(|cluster| {
        let prefix = if cluster.is_ipv4() { options.node_cidr_mask_ipv4 } else { options.node_cidr_mask_ipv6 };
        Range { cluster: *cluster, prefix, held: BTreeMap::new() }
    });
    let mut allocator = Allocator { ranges: ranges.collect() };
    // What nodes have is taken before the first part is given.
    for node in context.informers.nodes.all() {
        allocator.occupy(&node);
    }
    let queue = context.queue("cidrallocator");
    let nodes = queue.clone();
    context.informers.nodes.on_change(move |change| nodes.add(ObjectKey::of(&**change.object())));
    let controller = Arc::new(Controller { context, allocator: Mutex::new(allocator) });
    run_workers(tasks, "node-ipam", &controller, &queue, 1, shutdown);
}

struct Allocator {
    ranges: Vec<Range>,
}

struct Range {
    cluster: Cidr,
    prefix: u8,
    /// Which node holds which part.
    held: BTreeMap<u32, String>,
}

impl Allocator {
    /// Takes note of what a node has.
    fn occupy(&mut self, node: &Node) {
        let name = node.metadata.name.clone().unwrap_or_default();
        for cidr in pod_cidrs(node) {
            for range in &mut self.ranges {
                for part in range.cluster.overlapping(range.prefix, &cidr).into_iter().flatten() {
                    range.held.entry(part).or_insert_with(|| name.clone());
                }
            }
        }
    }

    /// A part of each range for a node: what it holds already, or the lowest free. None if a range is used up.
    fn allocate(&mut self, node: &str) -> Option<Vec<Cidr>> {
        let mut given = Vec::new();
        let mut parts = Vec::new();
        for range in &self.ranges {
            let own = range.held.iter().find(|(_, holder)| *holder == node).map(|(part, _)| *part);
            let free = || (0..range.cluster.parts(range.prefix)).find(|part| !range.held.contains_key(part));
            let part = own.or_else(free)?;
            given.push(range.cluster.part(range.prefix, part)?);
            parts.push(part);
        }
        for (range, part) in self.ranges.iter_mut().zip(parts) {
            range.held.insert(part, node.to_owned());
        }
        Some(given)
    }

    fn release(&mut self, node: &str) {
        for range in &mut self.ranges {
            range.held.retain(|_, holder| holder != node);
        }
    }
}

fn pod_cidrs(node: &Node) -> Vec<Cidr> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    all.filter_map(|text| text.parse().ok()).collect()
}

impl Reconcile for Controller {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(node) = self.context.informers.nodes.get(key) else {
            self.allocator.lock().release(&key.name);
            return Ok(Outcome::Done);
        };
        if !pod_cidrs(&node).is_empty() {
            self.allocator.lock().occupy(&node);
            return Ok(Outcome::Done);
        }
        if node.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let Some(cidrs) = self.allocator.lock().allocate(&key.name) else {
            let note = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.context.events.record(node.object_ref(&()), EventType::Normal, "CIDRNotAvailable", "Allocate", note);
            return Err(ReconcileError::Invalid("failed to allocate cidr: CIDR allocation failed; there are no remaining CIDRs left to allocate in the accepted range".to_owned()));
        };
        let texts: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
        let patch = serde_json::json!({
            "metadata": {"uid": node.metadata.uid},
            "spec": {"podCIDR": texts.first(), "podCIDRs": texts},
        });
        let api = Api::<Node>::all(self.context.client.clone());
        match api.patch(&key.name, &patch_params(), &Patch::Merge(&patch)).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if is_not_found(&error) => Ok(Outcome::Done),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator(cluster: &str, prefix: u8) -> Allocator {
        let range = Range { cluster: cluster.parse().expect("a network"), prefix, held: BTreeMap::new() };
        Allocator { ranges: vec![range] }
    }

    fn node(name: &str, cidr: &str) -> Node {
        serde_json::from_value(
            serde_json::json!({"metadata": {"name": name}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}}),
        )
        .expect("a node")
    }

    fn given(allocator: &mut Allocator, node: &str) -> Option<String> {
        allocator.allocate(node).map(|cidrs| cidrs[0].to_string())
    }

    #[test]
    fn each_node_gets_another_part_and_keeps_it() {
        let mut allocator = allocator("10.244.0.0/16", 24);
        allocator.occupy(&node("old", "10.244.0.0/24"));
        assert_eq!(given(&mut allocator, "a").as_deref(), Some("10.244.1.0/24"));
        assert_eq!(given(&mut allocator, "b").as_deref(), Some("10.244.2.0/24"));
        assert_eq!(given(&mut allocator, "a").as_deref(), Some("10.244.1.0/24"));
    }

    #[test]
    fn a_used_up_network_gives_nothing_until_a_node_goes() {
        let mut allocator = allocator("10.244.0.0/23", 24);
        assert!(given(&mut allocator, "a").is_some() && given(&mut allocator, "b").is_some());
        assert_eq!(given(&mut allocator, "c"), None);
        allocator.release("a");
        assert_eq!(given(&mut allocator, "c").as_deref(), Some("10.244.0.0/24"));
    }
}
