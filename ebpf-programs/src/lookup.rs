//! From what a socket addresses to the backend that it is sent to, and back.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{
    bpf_get_netns_cookie, bpf_get_prandom_u32, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_set_retval,
};
use aya_ebpf::programs::SockAddrContext;
use skep_ebpf_common::{
    Affinity, AffinityKey, Backend, Endpoint, FROM_NODE, ReverseKey, Service, SlotKey, TCP, UDP, mapped,
};

use crate::maps::{AFFINITIES, BACKENDS, CONFIG, REVERSES, SERVICES, SLOTS};

/// Let the call go on.
pub const ALLOW: i32 = 1;
/// Let the call fail.
const REFUSE: i32 = 0;
/// What a refused call fails with.
const ECONNREFUSED: i32 = 111;

/// Sends a socket that addresses a service to one of its backends; refuses where there is none.
#[inline(always)]
pub fn forward4(ctx: &SockAddrContext) -> i32 {
    let Some(destination) = addressed4(ctx) else { return ALLOW };
    // SAFETY: the entry is copied at once; a torn read is not possible for values that are replaced as a whole under RCU.
    let Some(service) = (unsafe { SERVICES.get(&destination) }).copied() else { return ALLOW };
    if service.flags & FROM_NODE != 0 && !is_of_node(ctx) {
        return ALLOW;
    }
    // SAFETY: the context is the one the kernel gave this program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let Some(backend) = choose_for_socket(ctx, &service, destination.protocol, cookie) else {
        // SAFETY: sets the return code of the call that this program decides on.
        unsafe { bpf_set_retval(-ECONNREFUSED) };
        return REFUSE;
    };
    let backend = backend.endpoint;
    let reverse = ReverseKey { cookie, backend, padding: 0 };
    let _ = REVERSES.insert(&reverse, &destination, 0);
    write4(ctx, &backend);
    ALLOW
}

/// Whether the socket is in the node's own network namespace.
#[inline(always)]
fn is_of_node(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context is the one the kernel gave this program.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    CONFIG.get(0).is_some_and(|config| config.netns == netns)
}

/// Shows a socket the service's address in the place of the backend's.
#[inline(always)]
pub fn reverse4(ctx: &SockAddrContext) -> i32 {
    let Some(backend) = addressed4(ctx) else { return ALLOW };
    // SAFETY: the context is the one the kernel gave this program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: the entry is copied at once.
    if let Some(service) = unsafe { REVERSES.get(&ReverseKey { cookie, backend, padding: 0 }) }.copied() {
        write4(ctx, &service);
    }
    ALLOW
}

/// A connection takes any backend; a datagram socket keeps to one, because its datagrams may belong together.
#[inline(always)]
fn choose_for_socket(ctx: &SockAddrContext, service: &Service, protocol: u8, cookie: u64) -> Option<Backend> {
    let number = if protocol == TCP {
        // SAFETY: has no precondition.
        unsafe { bpf_get_prandom_u32() }
    } else {
        spread(cookie)
    };
    // SAFETY: the context is the one the kernel gave this program.
    let client = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    choose(service, client, number).map(|(_, backend)| backend)
}

/// A backend of the service: the one that the client had, where the service keeps them, else that of the number.
#[inline(always)]
pub fn choose(service: &Service, client: u64, number: u32) -> Option<(u32, Backend)> {
    if service.backends == 0 {
        return None;
    }
    if service.affinity_seconds == 0 {
        return pick(service, number);
    }
    // SAFETY: has no precondition.
    let now = unsafe { bpf_ktime_get_ns() };
    let key = AffinityKey { client, service: service.id, padding: 0 };
    // SAFETY: the entry is copied at once.
    let known = unsafe { AFFINITIES.get(&key) }.copied();
    let kept =
        known.filter(|known| now.wrapping_sub(known.used_ns) < u64::from(service.affinity_seconds) * 1_000_000_000);
    // A backend that went leaves with its affinities: its number is unknown then. One that left this service alone has its
    // affinities removed by the agent.
    // SAFETY: the entry is copied at once.
    let kept =
        kept.and_then(|kept| unsafe { BACKENDS.get(&kept.backend) }.copied().map(|backend| (kept.backend, backend)));
    let (id, backend) = match kept {
        Some(kept) => kept,
        None => pick(service, number)?,
    };
    let _ = AFFINITIES.insert(&key, &Affinity { used_ns: now, backend: id, padding: 0 }, 0);
    Some((id, backend))
}

/// A number in which each bit of the given one has a say in each bit (the finalizer of MurmurHash3).
#[inline(always)]
pub fn spread(number: u64) -> u32 {
    let mut hash = number;
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash ^ (hash >> 33)) as u32
}

#[inline(always)]
fn pick(service: &Service, number: u32) -> Option<(u32, Backend)> {
    // The count is not zero: `choose` looked.
    let slot = number % service.backends.max(1);
    backend_at(service.id, slot).or_else(|| backend_at(service.id, 0))
}

#[inline(always)]
fn backend_at(service: u32, slot: u32) -> Option<(u32, Backend)> {
    // SAFETY: both entries are copied at once.
    unsafe {
        let id = *SLOTS.get(&SlotKey { service, slot })?;
        Some((id, *BACKENDS.get(&id)?))
    }
}

#[inline(always)]
fn addressed4(ctx: &SockAddrContext) -> Option<Endpoint> {
    let raw: *mut bpf_sock_addr = ctx.sock_addr;
    // SAFETY: the kernel gives a valid context to the program, and these fields may be read at these hooks.
    let (address, port, protocol) = unsafe { ((*raw).user_ip4, (*raw).user_port, (*raw).protocol) };
    if protocol != u32::from(TCP) && protocol != u32::from(UDP) {
        return None;
    }
    // Both fields are in network byte order in memory.
    let port = (port as u16).to_ne_bytes();
    Some(Endpoint { address: mapped(address.to_ne_bytes()), port, protocol: protocol as u8, padding: 0 })
}

#[inline(always)]
fn write4(ctx: &SockAddrContext, to: &Endpoint) {
    let [.., a, b, c, d] = to.address;
    // SAFETY: as for reading; both fields may be written at these hooks.
    unsafe {
        (*ctx.sock_addr).user_ip4 = u32::from_ne_bytes([a, b, c, d]);
        (*ctx.sock_addr).user_port = u32::from(u16::from_ne_bytes(to.port));
    }
}
