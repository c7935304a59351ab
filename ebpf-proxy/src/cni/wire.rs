//! What plugin and agent say to each other, and its framing: a big-endian u32 of the length, then JSON.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The longest message, in bytes.
pub const LONGEST: u32 = 1 << 20;

/// A container's attachment, as CNI names it: one interface in one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The runtime's id of the container (sandbox).
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface's name in the container.
    pub ifname: String,
}

/// A port of the node that leads into a container (CNI conventions, `portMappings`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The node's port.
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// The node's address; empty or unspecified is each of them.
    #[serde(default, rename = "hostIP")]
    pub host_ip: String,
}

/// What the agent is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "UPPERCASE")]
pub enum Request {
    /// Gives the container an interface and an address; once more for the same attachment gives the same.
    Add {
        /// Whose.
        attachment: Attachment,
        /// The path of the container's network namespace.
        netns: PathBuf,
        /// Ports of the node that lead to it.
        #[serde(default)]
        ports: Vec<PortMapping>,
    },
    /// Takes them back; no error when they are gone.
    Del {
        /// Whose.
        attachment: Attachment,
    },
    /// Fails when the container hasn't what ADD gave it.
    Check {
        /// Whose.
        attachment: Attachment,
        /// The path of the container's network namespace.
        netns: PathBuf,
    },
    /// Takes back whatever belongs to no valid attachment.
    Gc {
        /// Those that stay.
        valid: Vec<Attachment>,
    },
    /// Fails when ADD can't be served now.
    Status,
}

/// What an attachment got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The pod's address, a /32.
    pub address: Ipv4Addr,
    /// Where the pod's default route goes.
    pub gateway: Ipv4Addr,
    /// The link in the node's namespace.
    pub host_interface: String,
    /// That link's hardware address.
    pub host_mac: String,
    /// The hardware address of the pod's link.
    pub pod_mac: String,
    /// The links' MTU, in bytes.
    pub mtu: u32,
}

/// A failure in CNI's terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// CNI's error code: 1 to 99 are the specification's, from 100 on the plugin's own.
    pub code: u32,
    /// What happened, in a line.
    pub msg: String,
}

/// The agent's answer; `Ok(None)` where the request has no result.
pub type Answer = Result<Option<Attached>, Failure>;
