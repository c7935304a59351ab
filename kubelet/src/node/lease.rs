//! The heartbeat: a Lease of the node's name in `kube-node-lease` (KEP-589).
//!
//! Invariant: a renewal writes over the version that this kubelet wrote last, so that it needs no read; only a refused
//! one reads first.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Where the leases of nodes are.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";
/// Tries of one renewal (upstream: `maxUpdateRetries`).
const TRIES: u32 = 5;
/// The wait after a first failed renewal; it doubles to the renewal period.
const RETRY: Duration = Duration::from_millis(200);

/// Renews the node's lease each quarter of `duration` until `stop`; makes it when it is not there.
pub async fn renew(client: Client, node: &str, duration: Duration, owner: OwnerReference, stop: CancellationToken) {
    let mut heart = Heart { api: Api::namespaced(client, LEASE_NAMESPACE), node, duration, owner, latest: None };
    let period = duration / 4;
    loop {
        let mut wait = period;
        let beat = tokio::time::timeout(period, heart.beat());
        match stop.run_until_cancelled(beat).await {
            None => return,
            Some(Ok(Ok(()))) => debug!(node, "renewed the node's lease"),
            Some(Ok(Err(error))) => {
                warn!(node, %error, "can't renew the node's lease");
                wait = RETRY.min(period);
            }
            Some(Err(_)) => warn!(node, "no answer to the renewal of the node's lease"),
        }
        if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
            return;
        }
    }
}

struct Heart<'a> {
    api: Api<Lease>,
    node: &'a str,
    duration: Duration,
    owner: OwnerReference,
    latest: Option<Lease>,
}

impl Heart<'_> {
    /// One heartbeat, with tries that wait longer each time.
    async fn beat(&mut self) -> kube::Result<()> {
        let mut wait = RETRY;
        let mut tries = 1;
        loop {
            match self.try_beat().await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.latest = None;
                    if tries == TRIES {
                        return Err(error);
                    }
                    // A version that was written over meanwhile is read anew at once.
                    if !skep_client::is_conflict_or_exists(&error) {
                        tokio::time::sleep(wait).await;
                        wait *= 2;
                    }
                    tries += 1;
                }
            }
        }
    }

    async fn try_beat(&mut self) -> kube::Result<()> {
        let found = match self.latest.take() {
            Some(latest) => Some(latest),
            None => self.api.get_opt(self.node).await?,
        };
        let lease = self.lease(found.as_ref());
        let written = match found {
            Some(_) => self.api.replace(self.node, &PostParams::default(), &lease).await?,
            None => self.api.create(&PostParams::default(), &lease).await?,
        };
        self.latest = Some(written);
        Ok(())
    }

    fn lease(&self, found: Option<&Lease>) -> Lease {
        let mut lease = found.cloned().unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.node.to_owned()),
                namespace: Some(LEASE_NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let owners = lease.metadata.owner_references.get_or_insert_default();
        // The Node may have been deleted and made again since.
        if !owners.iter().any(|owner| owner.uid == self.owner.uid) {
            owners.retain(|owner| owner.kind != "Node");
            owners.push(self.owner.clone());
        }
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.node.to_owned()),
            lease_duration_seconds: Some(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX)),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..lease.spec.unwrap_or_default()
        });
        lease
    }
}
