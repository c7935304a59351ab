//! The layout of the eBPF maps: what the agent writes and the programs in the kernel read.
//!
//! Every type is `repr(C)` with explicit padding, so that its bytes are the same on both sides and a key compares byte for
//! byte. Invariant: a change of any layout here raises [`LAYOUT_VERSION`], and maps of different versions are pinned in
//! different folders. Addresses are IPv6; an IPv4 address is its mapped form (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).

#![no_std]

/// The version of all layouts in this crate.
pub const LAYOUT_VERSION: u32 = 3;

/// The protocol number of ICMP (IANA).
pub const ICMP: u8 = 1;
/// The protocol number of TCP (IANA).
pub const TCP: u8 = 6;
/// The protocol number of UDP (IANA).
pub const UDP: u8 = 17;

/// An address in the form that all maps use.
pub type Address = [u8; 16];

/// The mapped form of an IPv4 address.
#[must_use]
#[inline(always)]
pub const fn mapped(v4: [u8; 4]) -> Address {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}

/// An address, a port and a protocol: the key of a service, and what a backend is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// The port in network byte order.
    pub port: [u8; 2],
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// Zero.
    pub padding: u8,
}

/// A service's address and port, as the programs find it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The number under which its slots and affinities are kept.
    pub id: u32,
    /// How many slots it has. None: connections are refused at once.
    pub backends: u32,
    /// How long a client stays with its backend, in seconds (`sessionAffinityConfig.clientIP.timeoutSeconds`); 0: no affinity.
    pub affinity_seconds: u32,
    /// [`DROP_WHEN_EMPTY`] or [`FROM_NODE`], or none.
    pub flags: u32,
}

/// A service's flag: without backends its packets are dropped, and not refused. There are backends on other nodes, and a load
/// balancer shall try these (the external traffic policy `Local`).
pub const DROP_WHEN_EMPTY: u32 = 1;

/// A service's flag: only sockets of the node's own network namespace reach it. A pod's loopback addresses are its own.
pub const FROM_NODE: u32 = 2;

/// Where a service's traffic goes to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Its address, port and protocol.
    pub endpoint: Endpoint,
    /// [`ON_THIS_NODE`], or none.
    pub flags: u32,
}

/// A backend's flag: packets to it stay on this node.
pub const ON_THIS_NODE: u32 = 1;

/// One of a service's slots; its value is a backend's number.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey {
    /// The service's number.
    pub service: u32,
    /// From 0 to the count of backends, exclusive.
    pub slot: u32,
}

/// A client of a service with session affinity.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AffinityKey {
    /// The network namespace's cookie at the socket hook, where a client is known by its namespace, which has its address; at the
    /// uplink the address, with [`BY_ADDRESS`].
    pub client: u64,
    /// The service's number.
    pub service: u32,
    /// Zero.
    pub padding: u32,
}

/// Marks a client that is known by its address: cookies count from one and never get there.
pub const BY_ADDRESS: u64 = 1 << 63;

/// Where a client of a service with session affinity was sent last.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// When it was, in nanoseconds of the kernel's monotonic clock.
    pub used_ns: u64,
    /// The backend's number.
    pub backend: u32,
    /// Zero.
    pub padding: u32,
}

/// A socket and the backend it talks to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReverseKey {
    /// The socket's cookie.
    pub cookie: u64,
    /// The backend.
    pub backend: Endpoint,
    /// Zero.
    pub padding: u32,
}

/// Where an IPv4 packet comes from and goes to. Translated flows are one map a family: keys of IPv6's length cost each packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// The sender.
    pub source: [u8; 4],
    /// The receiver.
    pub destination: [u8; 4],
    /// The sender's port in network byte order; of an ICMP echo request its identifier.
    pub source_port: [u8; 2],
    /// The receiver's port in network byte order; of an ICMP echo reply its identifier.
    pub destination_port: [u8; 2],
}

impl Tuple {
    /// The tuple of the answer.
    #[must_use]
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// A packet as it comes to a hook: the key of a translation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// From where to where.
    pub tuple: Tuple,
    /// [`TCP`], [`UDP`] or [`ICMP`].
    pub protocol: u8,
    /// [`INGRESS`] or [`EGRESS`].
    pub hook: u8,
    /// Zero.
    pub padding: [u8; 2],
}

/// Packets that come from the uplink.
pub const INGRESS: u8 = 0;
/// Packets that leave by the uplink.
pub const EGRESS: u8 = 1;

/// One half of a translated flow: its packets in one direction. The other half's key and value follow from it ([`FlowKey::other`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// When it had its last packet, in nanoseconds of the kernel's monotonic clock.
    pub used_ns: u64,
    /// The backend's number; 0 where there is none.
    pub backend: u32,
    /// [`NODE_PORT_REMOTE`], [`NODE_PORT_LOCAL`], [`MASQUERADE`] or [`DIRECT`].
    pub kind: u8,
    /// [`SEEN`], [`FIN`], [`RST`], [`REPLY`].
    pub state: u8,
    /// Zero.
    pub padding: [u8; 2],
    /// What the packet becomes.
    pub to: Tuple,
    /// Zero.
    pub padding_2: u32,
}

/// From outside to a backend on another node; the packets have this node's address.
pub const NODE_PORT_REMOTE: u8 = 1;
/// From outside to a backend on this node; the packets keep the client's address.
pub const NODE_PORT_LOCAL: u8 = 2;
/// From a pod to the outside; the packets have this node's address.
pub const MASQUERADE: u8 = 3;
/// From outside to a pod's own address: nothing is translated, and the answers are not masqueraded. It has a reply half only.
pub const DIRECT: u8 = 4;

/// A packet went through this half.
pub const SEEN: u8 = 1;
/// The sender has closed the connection.
pub const FIN: u8 = 2;
/// The sender has reset the connection.
pub const RST: u8 = 4;
/// This half is for the answers.
pub const REPLY: u8 = 8;

impl FlowKey {
    /// The key of the other half of the flow whose half under this key is `flow`; its value has [`Tuple::reversed`] of this key's.
    #[must_use]
    #[inline(always)]
    pub const fn other(&self, flow: &Flow) -> Self {
        let hook = match flow.kind {
            NODE_PORT_REMOTE => INGRESS,
            _ if self.hook == INGRESS => EGRESS,
            _ => INGRESS,
        };
        Self { tuple: flow.to.reversed(), protocol: self.protocol, hook, padding: [0; 2] }
    }
}

/// What the programs are told of the node.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The address that packets get which shall come from this node.
    pub address: [u8; 4],
    /// Zero.
    pub padding: [u8; 4],
    /// The cookie of the node's network namespace.
    pub netns: u64,
}

/// A network is of pods.
pub const PODS: u32 = 1;
/// An address is a node's.
pub const NODE: u32 = 2;

/// The first of the ports that translated packets are sent from, and how many follow: not those that the kernel takes for its own
/// connections (`ip_local_port_range`, 32768 to 60999), and none of node ports (30000 to 32767).
pub const LOW_PORTS: (u16, u16) = (10_240, 19_760);
/// As [`LOW_PORTS`], above the kernel's.
pub const HIGH_PORTS: (u16, u16) = (61_000, 4_536);

/// The port with a number from 0 to the count of both ranges; a larger number starts anew.
#[must_use]
#[inline(always)]
pub const fn translated_port(number: u32) -> u16 {
    let number = number % (LOW_PORTS.1 as u32 + HIGH_PORTS.1 as u32);
    if number < LOW_PORTS.1 as u32 {
        LOW_PORTS.0 + number as u16
    } else {
        HIGH_PORTS.0 + (number - LOW_PORTS.1 as u32) as u16
    }
}

#[cfg(feature = "user")]
mod pod {
    //! Tells aya that the types are plain bytes.

    use super::{Affinity, AffinityKey, Backend, Config, Endpoint, Flow, FlowKey, ReverseKey, Service, SlotKey};

    macro_rules! pod {
        ($($name:ty),+) => {$(
            // SAFETY: the type is `repr(C)` of integers and byte arrays only, with its padding spelled out as a field, so
            // that every byte is initialised and every pattern of bits is a value.
            unsafe impl aya::Pod for $name {}
        )+};
    }
    pod!(Affinity, AffinityKey, Backend, Config, Endpoint, Flow, FlowKey, ReverseKey, Service, SlotKey);
}

const _: () = assert!(size_of::<Endpoint>() == 20 && size_of::<ReverseKey>() == 32);
const _: () = assert!(size_of::<FlowKey>() == 16 && size_of::<Flow>() == 32 && size_of::<Backend>() == 24);
const _: () = assert!(size_of::<Service>() == 16 && size_of::<Affinity>() == 16 && size_of::<AffinityKey>() == 16);
const _: () = assert!(size_of::<Config>() == 16);
