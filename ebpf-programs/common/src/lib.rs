//! The layout of the eBPF maps: what the agent writes and the programs in the kernel read.
//!
//! Every type is `repr(C)` with explicit padding, so that its bytes are the same on both sides and a key compares byte for
//! byte. Invariant: a change of any layout here raises [`LAYOUT_VERSION`], and maps of different versions are pinned in
//! different folders. Addresses are IPv6; an IPv4 address is its mapped form (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).

#![no_std]

/// The version of all layouts in this crate.
pub const LAYOUT_VERSION: u32 = 1;

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
    /// Zero.
    pub flags: u32,
}

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
    /// The network namespace's cookie: at the socket hook a client is known by its namespace, which has its address.
    pub client: u64,
    /// The service's number.
    pub service: u32,
    /// Zero.
    pub padding: u32,
}

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

#[cfg(feature = "user")]
mod pod {
    //! Tells aya that the types are plain bytes.

    use super::{Affinity, AffinityKey, Endpoint, ReverseKey, Service, SlotKey};

    macro_rules! pod {
        ($($name:ty),+) => {$(
            // SAFETY: the type is `repr(C)` of integers and byte arrays only, with its padding spelled out as a field, so
            // that every byte is initialised and every pattern of bits is a value.
            unsafe impl aya::Pod for $name {}
        )+};
    }
    pod!(Affinity, AffinityKey, Endpoint, ReverseKey, Service, SlotKey);
}

const _: () = assert!(size_of::<Endpoint>() == 20 && size_of::<ReverseKey>() == 32);
const _: () = assert!(size_of::<Service>() == 16 && size_of::<Affinity>() == 16 && size_of::<AffinityKey>() == 16);
