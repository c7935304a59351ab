//! containerd's events and turns of probes wake workers; after a gap, all of them are woken.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::node::Node;
use crate::probes::Change;
use crate::runtime::containerd::Event;

/// The wait before the stream is opened anew.
const REOPEN: Duration = Duration::from_secs(1);
/// How often all workers look though nothing was told: it heals what an event stream may lose.
const RELIST: Duration = Duration::from_secs(30);

/// Passes events on until `stop`.
pub(super) async fn run(node: Arc<Node>, mut probes: mpsc::Receiver<Change>, stop: CancellationToken) -> Result<()> {
    let mut relist = tokio::time::interval(RELIST);
    loop {
        let mut events = std::pin::pin!(node.containerd.events());
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = relist.tick() => node.pods.wake_all(),
                Some(change) = probes.recv() => node.pods.wake(&change.pod_uid),
                event = events.next() => match event {
                    Some(Ok(Event::Exited { container, exit_code })) => {
                        debug!(container, exit_code, "exit");
                        node.pods.wake_owner(&container);
                    }
                    // The count of kills is in the cgroup when the process has ended.
                    Some(Ok(Event::OutOfMemory { .. })) => {}
                    Some(Err(error)) => {
                        warn!(%error, "containerd's events stopped and are asked for again");
                        break;
                    }
                    None => break,
                },
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(REOPEN) => node.pods.wake_all(),
        }
    }
}
