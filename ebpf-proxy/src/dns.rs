//! The cluster's names, answered on each node from the state that the agent has anyway.
//!
//! ```text
//! ServiceState ──Zone::build (pure)──▶ watch channel ──▶ server ──▶ zone::Answer, else upstream
//! ```
//!
//! Invariant: a name under the cluster's domain is answered from state alone and never leaves the node; no other name is answered
//! from state, but for addresses of Services and endpoints (PTR). Source: the Kubernetes DNS specification 1.1.0.

pub mod address;
mod server;
mod upstream;
pub mod zone;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;

use crate::compile::ServiceState;

pub use hickory_server::proto::rr::Name;

pub use self::server::{DnsError, Listeners};
pub use self::upstream::{Upstream, nameservers};
pub use self::zone::Zone;

/// Makes the zone of each state and shows it to the server.
#[derive(Debug)]
pub struct Publisher {
    /// The cluster's domain.
    pub domain: Name,
    /// Where it is served.
    pub server: Vec<IpAddr>,
    /// To the server.
    pub zones: watch::Sender<Option<Arc<Zone>>>,
}

impl Publisher {
    /// Serves the names of `state` from now on; `serial` is the zone's number.
    pub fn publish(&self, state: &ServiceState, serial: u32) {
        self.zones.send_replace(Some(Arc::new(Zone::build(&self.domain, &self.server, state, serial))));
    }
}

/// The zone as it is now; none before all was listed once.
pub type Zones = watch::Receiver<Option<Arc<Zone>>>;
