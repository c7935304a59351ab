//! One leader of several replicas, by a Lease (`coordination.k8s.io/v1`).
//!
//! [`LeaderElection::acquire`] waits until this replica holds the Lease and gives a [`Leadership`]. A task of it renews the
//! Lease; when that fails for the renew deadline, or another holds the Lease, [`Leadership::lost`] is cancelled, and the
//! component must stop all its writes at once (usually: end the process, or wait and acquire again).
//!
//! Invariant: two replicas lead at the same time only if clocks run at rates that differ by more than the ratio of lease
//! duration to renew deadline (as upstream's `client-go/tools/leaderelection`). No replica compares its clock with
//! another's: a Lease is stale when its record was not seen to change for its duration by the own clock.
//!
//! Data flow: `state` decides, without I/O and clocks, from the Lease that was read; this module reads and writes it.

mod state;

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use state::{Candidate, Step};

/// Who runs for which Lease, and with what times. The defaults are upstream's: 15, 10 and 2 seconds.
#[derive(Clone, Debug)]
pub struct LeaderElection {
    /// The Lease's namespace, usually `kube-system`.
    pub namespace: String,
    /// The Lease's name, such as `kube-scheduler`.
    pub name: String,
    /// This replica: unique among the replicas, usually `<host>_<uuid>`.
    pub identity: String,
    /// How long others wait for a Lease that is not renewed.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up. Must be less than `lease_duration`.
    pub renew_deadline: Duration,
    /// The time between two tries.
    pub retry_period: Duration,
}

impl LeaderElection {
    /// An election with upstream's times.
    #[must_use]
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }

    /// Waits until this replica leads; `None` if `shutdown` was cancelled before.
    ///
    /// API errors are logged and tried again after the retry period. The leadership ends with `shutdown` too; call
    /// [`Leadership::release`] after the last write, so that another replica leads at once.
    pub async fn acquire(&self, client: &Client, shutdown: &CancellationToken) -> Option<Leadership> {
        let api = Api::<Lease>::namespaced(client.clone(), &self.namespace);
        let mut candidate = Candidate::new(&self.identity, self.lease_duration);
        loop {
            match self.attempt(&api, &mut candidate).await {
                Ok(true) => break,
                Ok(false) => debug!(lease = %self.name, holder = candidate.holder(), "another replica leads"),
                Err(error) => warn!(lease = %self.name, %error, "can't acquire the lease"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(self.jittered_retry()) => {}
            }
        }
        info!(lease = %self.name, identity = %self.identity, "acquired the lease");
        let lost = shutdown.child_token();
        let task = tokio::spawn(self.clone().renew(api.clone(), candidate, lost.clone()));
        Some(Leadership { lost, task, api, name: self.name.clone() })
    }

    /// Renews until that fails for the renew deadline or `lost` is cancelled from outside. Gives the candidate back.
    async fn renew(self, api: Api<Lease>, mut candidate: Candidate, lost: CancellationToken) -> Candidate {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = lost.cancelled() => return candidate,
                () = tokio::time::sleep(self.retry_period) => {}
            }
            let left = self.renew_deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt(&api, &mut candidate)).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    warn!(lease = %self.name, holder = candidate.holder(), "another replica took the lease");
                    break;
                }
                Ok(Err(error)) => warn!(lease = %self.name, %error, "can't renew the lease"),
                Err(_) => warn!(lease = %self.name, "no answer within the renew deadline"),
            }
            if renewed.elapsed() >= self.renew_deadline {
                break;
            }
        }
        warn!(lease = %self.name, "lost the lease");
        lost.cancel();
        candidate
    }

    /// One try to hold the Lease. A conflict counts as not held, and is seen by the next read.
    async fn attempt(&self, api: &Api<Lease>, candidate: &mut Candidate) -> kube::Result<bool> {
        let found = api.get_opt(&self.name).await?;
        let now = jiff::Timestamp::now();
        let step = candidate.step(found, Instant::now(), now);
        let written = match step {
            Step::Wait => return Ok(false),
            Step::Create(mut lease) => {
                lease.metadata.name = Some(self.name.clone());
                lease.metadata.namespace = Some(self.namespace.clone());
                api.create(&PostParams::default(), &lease).await
            }
            Step::Update(lease) => api.replace(&self.name, &PostParams::default(), &lease).await,
        };
        match written {
            Ok(lease) => {
                candidate.observe(Some(&lease), Instant::now());
                Ok(true)
            }
            Err(error) if crate::is_conflict_or_exists(&error) && !candidate.holds() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The retry period and up to 20 % more, so that replicas that start together don't try together.
    fn jittered_retry(&self) -> Duration {
        let random = RandomState::new().hash_one(&self.identity) % 1000;
        self.retry_period.mul_f64(1.0 + f64::from(u32::try_from(random).unwrap_or(0)) / 5000.0)
    }
}

/// The Lease is held. Dropping it stops renewing, and the Lease expires by itself.
#[derive(Debug)]
pub struct Leadership {
    lost: CancellationToken,
    task: JoinHandle<Candidate>,
    api: Api<Lease>,
    name: String,
}

impl Leadership {
    /// Cancelled when the Lease is lost or the process shuts down: run everything that needs leadership under it.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.lost.clone()
    }

    /// Stops renewing and gives the Lease free, so that another replica needs not wait for it to expire.
    ///
    /// Call it only after all writes ended. An error is logged: the Lease then expires by itself.
    pub async fn release(mut self) {
        self.lost.cancel();
        let Ok(candidate) = (&mut self.task).await else { return };
        let Some(lease) = candidate.released(jiff::Timestamp::now()) else { return };
        match self.api.replace(&self.name, &PostParams::default(), &lease).await {
            Ok(_) => info!(lease = %self.name, "released the lease"),
            Err(error) => warn!(lease = %self.name, %error, "can't release the lease"),
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.lost.cancel();
        self.task.abort();
    }
}

#[cfg(test)]
mod tests;
