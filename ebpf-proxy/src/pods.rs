//! The pods' network on this node: addresses from the node's pod network, a veth pair a pod, and routes instead of a bridge.
//!
//! ```text
//! CNI request ──▶ Pods ──▶ ipam (on disk) ──▶ link (netlink, in the node's and the pod's namespace)
//! Node watch  ──▶ routes (pure compile) ──diff──▶ the node's routes to other nodes' pods
//! ```
//!
//! Invariant: an address is on disk before a link has it, and leaves the disk after the link is gone.

pub mod ipam;
pub(crate) mod link;
pub(crate) mod netns;
pub mod routes;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use skep_ebpf_common::{TCP, UDP};
use tokio::sync::{Mutex, watch};

pub use self::ipam::Cidr;
use self::ipam::{Ipam, IpamError};
use crate::cni::wire::{Answer, Attached, Attachment, Failure, PortMapping, Request};

/// Where a pod's default route goes: link-local, so that it collides with nothing, and no link has to have it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// CNI's "try again later".
const TRY_AGAIN_LATER: u32 = 11;
/// CNI's "the plugin is not available".
const NOT_AVAILABLE: u32 = 50;
/// CNI's "invalid network config".
const INVALID_CONFIG: u32 = 7;
/// Our own: the kernel refused.
const KERNEL: u32 = 100;
/// Our own: no address.
const ADDRESS: u32 = 101;
/// Our own: the container hasn't what it was given.
const DIFFERS: u32 = 102;

/// Why a pod's network or a route could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// The address could not be kept or given.
    #[error(transparent)]
    Ipam(#[from] IpamError),
    /// Netlink refused.
    #[error("{what}: {source}")]
    Netlink {
        /// What was tried.
        what: String,
        /// Why not.
        source: rtnetlink::Error,
    },
    /// A namespace or a setting can't be opened.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A link is not there.
    #[error("there is no link {0}")]
    NoLink(String),
    /// A port of the node can't be led to the container: only IPv4, TCP and UDP can.
    #[error("the host port {0} can't be mapped: only TCP and UDP over IPv4 can")]
    Unmappable(String),
    /// What the container has is not what it was given.
    #[error("{0}")]
    Differs(String),
}

/// Fails where the namespace at `netns` has no such link, or one that is not Ethernet: the programs on the uplink read Ethernet frames.
///
/// # Errors
/// Then, and when the kernel refuses to say.
pub async fn must_be_ethernet(netns: &std::path::Path, link: &str) -> Result<(), PodError> {
    link::must_be_ethernet(netns, link).await
}

/// Lets the network namespace of the calling thread forward packets between its links: pods and the outside meet that way.
///
/// # Errors
/// When the setting can't be written.
pub fn forward() -> Result<(), PodError> {
    link::forward()
}

impl From<PodError> for Failure {
    fn from(error: PodError) -> Self {
        let code = match &error {
            PodError::Ipam(IpamError::NoNetwork) => TRY_AGAIN_LATER,
            PodError::Ipam(_) => ADDRESS,
            PodError::Differs(_) | PodError::NoLink(_) => DIFFERS,
            PodError::Netlink { .. } | PodError::Io { .. } => KERNEL,
            PodError::Unmappable(_) => INVALID_CONFIG,
        };
        Self { code, msg: error.to_string() }
    }
}

/// The pods of this node.
pub struct Pods {
    netns: PathBuf,
    uplink: Option<String>,
    // One call at a time: addresses and links change together.
    ipam: Mutex<Ipam>,
    host_ports: watch::Sender<Vec<HostPort>>,
}

/// A port of the node that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The node's address; none is each of them.
    pub address: Option<Ipv4Addr>,
    /// The node's port.
    pub port: u16,
    /// IANA's number of the protocol.
    pub protocol: u8,
    /// The pod's address.
    pub pod: Ipv4Addr,
    /// The pod's port.
    pub pod_port: u16,
}

impl Pods {
    /// Pods whose addresses are kept in `state_dir`, for the node whose network namespace is at `netns` (this process's own:
    /// `/proc/self/ns/net`). Links get the MTU of `uplink`, or of the link that the default route uses.
    ///
    /// # Errors
    /// When what is in `state_dir` can't be read, or the folder can't be made.
    pub fn open(state_dir: &std::path::Path, netns: PathBuf, uplink: Option<String>) -> Result<Self, PodError> {
        let ipam = Ipam::open(state_dir)?;
        let host_ports = watch::Sender::new(host_ports(&ipam));
        Ok(Self { netns, uplink, ipam: Mutex::new(ipam), host_ports })
    }

    /// The ports of the node that lead to pods, now and whenever they change.
    pub fn host_ports(&self) -> watch::Receiver<Vec<HostPort>> {
        self.host_ports.subscribe()
    }

    /// Sets the network that new pods get addresses from; those that have one keep it.
    pub async fn set_network(&self, network: Cidr) {
        self.ipam.lock().await.set_network(network);
    }

    /// Serves a CNI request.
    ///
    /// # Errors
    /// In CNI's terms.
    pub async fn answer(&self, request: Request) -> Answer {
        match request {
            Request::Add { attachment, netns, ports } => Ok(Some(self.add(attachment, netns, ports).await?)),
            Request::Del { attachment } => Ok(self.del(&attachment).await.map(|()| None)?),
            Request::Check { attachment, netns } => Ok(Some(self.check(&attachment, netns).await?)),
            Request::Gc { valid } => {
                let known = self.ipam.lock().await.attachments();
                for attachment in known.iter().filter(|known| !valid.contains(known)) {
                    self.del(attachment).await?;
                }
                Ok(None)
            }
            Request::Status if self.ipam.lock().await.is_ready() => Ok(None),
            Request::Status => {
                Err(Failure { code: NOT_AVAILABLE, msg: "this node has no pod network yet (spec.podCIDR)".to_owned() })
            }
        }
    }

    async fn add(&self, attachment: Attachment, netns: PathBuf, ports: Vec<PortMapping>) -> Result<Attached, PodError> {
        refuse_unmappable(&ports)?;
        let mut ipam = self.ipam.lock().await;
        let known = ipam.get(&attachment);
        let wanted = link::Wanted { host: host_interface(&attachment), ifname: attachment.ifname.clone(), netns };
        if let Some(address) = known
            && let Ok(attached) = link::inspect(&self.netns, &wanted, address).await
        {
            return Ok(attached);
        }
        let address = ipam.allocate(&attachment, ports)?;
        let made = link::create(&self.netns, &wanted, address, self.uplink.clone()).await;
        if made.is_err() && known.is_none() {
            // The first error is the one to tell; a link that stays keeps its address, until DEL.
            if link::delete(&self.netns, &wanted.host).await.is_ok() {
                ipam.release(&attachment)?;
            }
        }
        self.publish(&ipam);
        made
    }

    async fn del(&self, attachment: &Attachment) -> Result<(), PodError> {
        let mut ipam = self.ipam.lock().await;
        link::delete(&self.netns, &host_interface(attachment)).await?;
        let released = ipam.release(attachment);
        self.publish(&ipam);
        Ok(released?)
    }

    fn publish(&self, ipam: &Ipam) {
        let ports = host_ports(ipam);
        self.host_ports.send_if_modified(|known| {
            let changed = *known != ports;
            *known = ports;
            changed
        });
    }

    async fn check(&self, attachment: &Attachment, netns: PathBuf) -> Result<Attached, PodError> {
        let ipam = self.ipam.lock().await;
        let address = ipam.get(attachment);
        let address = address.ok_or_else(|| PodError::Differs("the container has no address here".to_owned()))?;
        let wanted = link::Wanted { host: host_interface(attachment), ifname: attachment.ifname.clone(), netns };
        link::inspect(&self.netns, &wanted, address).await
    }
}

/// What can't be mapped must not look as if it were.
fn refuse_unmappable(ports: &[PortMapping]) -> Result<(), PodError> {
    match ports.iter().find(|port| mapped_port(port, Ipv4Addr::UNSPECIFIED).is_none()) {
        Some(port) => Err(PodError::Unmappable(format!("{}:{}/{}", port.host_ip, port.host_port, port.protocol))),
        None => Ok(()),
    }
}

fn host_ports(ipam: &Ipam) -> Vec<HostPort> {
    ipam.ports().filter_map(|(port, pod)| mapped_port(port, pod)).collect()
}

fn mapped_port(port: &PortMapping, pod: Ipv4Addr) -> Option<HostPort> {
    let address = match port.host_ip.as_str() {
        "" | "0.0.0.0" | "::" => None,
        text => Some(text.parse().ok()?),
    };
    let protocol = match port.protocol.as_str() {
        "tcp" => TCP,
        "udp" => UDP,
        _ => return None,
    };
    Some(HostPort { address, port: port.host_port, protocol, pod, pod_port: port.container_port })
}

/// The name of the node's end: 15 bytes are a link's longest name. FNV-1a, so that it is the same in every version.
fn host_interface(attachment: &Attachment) -> String {
    let bytes = attachment.container_id.bytes().chain([0]).chain(attachment.ifname.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("skep{:011x}", hash & 0xfff_ffff_ffff)
}
