//! What every Skep component reaches the API with.
//!
//! The client itself is the crate [`kube`], re-exported here so that the whole workspace speaks one version of it.
//! Around it are the few things that all components share:
//!
//! - [`connect`] opens a client from a kubeconfig file; [`in_process`] makes one that calls the API server's own tower
//!   service, without a socket, when both run in one process. Code that holds a [`kube::Client`] can't tell the two apart.
//! - [`leader`] elects one of several replicas by a Lease.
//! - [`slim`] has views of the hot kinds that hold only the fields which are read, so that 100 000 pods fit in memory.
//! - [`events`] records Events, aggregated and limited in rate.
//!
//! Invariant: nothing here knows what a component decides; this crate only carries reads and writes.

pub mod events;
mod in_process;
pub mod leader;
pub mod slim;

mod connection;

pub use connection::{ConnectError, connect, with_user_agent};
pub use events::{EventRecorder, EventType};
pub use in_process::{InProcessUser, in_process};
pub use kube;
pub use leader::{LeaderElection, Leadership};

/// Whether the API server refused a write because the object changed, or because one of that name is there already.
#[must_use]
pub fn is_conflict_or_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
