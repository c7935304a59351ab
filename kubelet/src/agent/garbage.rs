//! Images that nothing uses leave a disk that fills up.
//!
//! Invariant: an image that any container of containerd has, or mounts, is in use, whichever node's kubelet made that container.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::node::Node;
use super::record::volume_images;
use crate::images::{GarbagePolicy, ImageUses};

/// How often the disk is looked at (upstream: `ImageGCPeriod`).
const PERIOD: Duration = Duration::from_secs(300);

/// Looks from time to time until `stop`.
pub(super) async fn run(node: Arc<Node>, policy: GarbagePolicy, stop: CancellationToken) -> Result<()> {
    let mut uses = ImageUses::new(Timestamp::now());
    let mut period = tokio::time::interval(PERIOD);
    while stop.run_until_cancelled(period.tick()).await.is_some() {
        match collect(&node, &mut uses, &policy).await {
            Ok(0) => {}
            Ok(removed) => info!(removed, "unused images removed"),
            Err(error) => warn!(%error, "unused images can't be removed now"),
        }
    }
    Ok(())
}

async fn collect(node: &Node, uses: &mut ImageUses, policy: &GarbagePolicy) -> Result<usize> {
    let mut names: HashSet<String> = HashSet::new();
    for own in node.containerd.containers(&[]).await? {
        names.extend(volume_images(&own.labels).into_values());
        names.insert(own.image);
    }
    let images = node.images.list().await?;
    let in_use =
        images.iter().filter(|image| names.contains(&image.id) || image.names.iter().any(|name| names.contains(name)));
    let in_use: HashSet<String> = in_use.map(|image| image.id.clone()).collect();
    Ok(node.images.collect_garbage(uses, policy, &in_use, Timestamp::now()).await?.images.len())
}
