//! Translated flows: two entries each, one a direction, and the rules by which they are made, used and replaced.
//!
//! The map forgets the least used entries when it is full, one half at a time: a half that goes is made anew from the other when a
//! packet of the client comes, and the choice of backend and port is a hash of the client's, so that it comes out as it was.

use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_redirect_neigh};
use aya_ebpf::programs::TcContext;
use skep_ebpf_common::{
    FIN, Flow, FlowKey, MASQUERADE, NODE_PORT_LOCAL, NODE_PORT_REMOTE, REPLY, RST, SEEN, TCP, Tuple, translated_port,
};

use crate::maps::{BACKENDS, FLOWS};
use crate::packet::{self, Complaint, Packet, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN};

/// Let the next program, or the stack, have the packet (`TCX_NEXT`).
pub const NEXT: i32 = -1;
/// Drop the packet (`TC_ACT_SHOT`).
pub const DROP: i32 = 2;
/// How long a closed flow's port is left alone, in nanoseconds: stragglers come.
const REST_NS: u64 = 2_000_000_000;
/// How many ports are tried.
const TRIES: u32 = 32;

/// What a packet's flow says to do with it.
pub enum Verdict {
    /// The packet is translated; this is what becomes of it.
    Done(i32),
    /// No flow has it.
    Unknown,
}

/// Translates a packet whose flow is known.
#[inline(always)]
pub fn follow(ctx: &TcContext, packet: &Packet, hook: u8) -> Verdict {
    let key = FlowKey { tuple: packet.tuple, protocol: packet.protocol, hook, padding: [0; 2] };
    let Some(entry) = FLOWS.get_ptr_mut(&key) else { return Verdict::Unknown };
    // SAFETY: the entry is the kernel's own memory and stays valid while this program runs. Fields that other processors write at
    // the same time are single words; the state's bits are only ever added, and a lost one delays the garbage collector.
    let flow = unsafe { &mut *entry };
    let opens = packet.protocol == TCP && packet.flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
    // All is read before another entry is written: a full map may give away this one's place.
    let known = *flow;
    flow.used_ns = now();
    flow.state |= SEEN | closing(packet);
    if known.state & REPLY == 0 {
        let other = key.other(&known);
        match FLOWS.get_ptr_mut(&other) {
            Some(half) => {
                // SAFETY: as above.
                let half = unsafe { &*half };
                if !same_tuple(&half.to, &key.tuple.reversed()) {
                    // Another flow took its port: this one is over.
                    let _ = FLOWS.remove(&key);
                    return Verdict::Unknown;
                }
                if opens && (((known.state | half.state) & (FIN | RST)) != 0 || is_gone(&known)) {
                    // The client begins anew from the same port.
                    let _ = FLOWS.remove(&other);
                    let _ = FLOWS.remove(&key);
                    return Verdict::Unknown;
                }
            }
            None => {
                let half = opposite(&key, &known);
                let _ = FLOWS.insert(&other, &half, 0);
            }
        }
    }
    Verdict::Done(translate(ctx, packet, &known.to, known.kind))
}

/// Translates an ICMP error about a packet whose flow is known.
#[inline(always)]
pub fn follow_complaint(ctx: &TcContext, complaint: &Complaint, hook: u8) -> i32 {
    let tuple = complaint.about.reversed();
    let key = FlowKey { tuple, protocol: complaint.protocol, hook, padding: [0; 2] };
    // SAFETY: the entry is copied at once.
    let Some(flow) = (unsafe { FLOWS.get(&key) }).copied() else { return NEXT };
    if packet::write_complaint(ctx, complaint, &flow.to).is_none() {
        return DROP;
    }
    if flow.kind == NODE_PORT_REMOTE { away(ctx) } else { NEXT }
}

/// A new flow that keeps its sender's address and port.
#[inline(always)]
pub fn keep(ctx: &TcContext, packet: &Packet, hook: u8, backend: u32, to: &Tuple) -> i32 {
    let key = FlowKey { tuple: packet.tuple, protocol: packet.protocol, hook, padding: [0; 2] };
    let flow = fresh(packet, backend, NODE_PORT_LOCAL, to);
    let half = opposite(&key, &flow);
    if FLOWS.insert(&key.other(&flow), &half, 0).is_err() || FLOWS.insert(&key, &flow, 0).is_err() {
        return DROP;
    }
    translate(ctx, packet, to, NODE_PORT_LOCAL)
}

/// A new flow that is sent from one of this node's ports: `to` has all but the port. `number` is where the search for one begins.
#[inline(always)]
pub fn hide(ctx: &TcContext, packet: &Packet, hook: u8, backend: u32, kind: u8, mut to: Tuple, number: u32) -> i32 {
    let key = FlowKey { tuple: packet.tuple, protocol: packet.protocol, hook, padding: [0; 2] };
    let answer = key.tuple.reversed();
    for step in 0..TRIES {
        // A step that shares no factor with the count of ports.
        to.source_port = translated_port(number.wrapping_add(step * 7919)).to_be_bytes();
        let flow = fresh(packet, backend, kind, &to);
        let other = key.other(&flow);
        // SAFETY: the entry is copied at once.
        let free = match unsafe { FLOWS.get(&other) }.copied() {
            None => true,
            Some(half) => {
                let closed = half.state & (FIN | RST) != 0 && now().wrapping_sub(half.used_ns) > REST_NS;
                closed || same_tuple(&half.to, &answer)
            }
        };
        if free {
            let half = opposite(&key, &flow);
            if FLOWS.insert(&other, &half, 0).is_err() || FLOWS.insert(&key, &flow, 0).is_err() {
                return DROP;
            }
            return translate(ctx, packet, &to, kind);
        }
    }
    DROP
}

#[inline(always)]
fn translate(ctx: &TcContext, packet: &Packet, to: &Tuple, kind: u8) -> i32 {
    if packet::write(ctx, packet, to).is_none() {
        return DROP;
    }
    match kind {
        NODE_PORT_REMOTE => away(ctx),
        NODE_PORT_LOCAL | MASQUERADE => NEXT,
        _ => NEXT,
    }
}

/// Refuses a connection in the name of an address that is not this node's own, for which the stack would not.
#[inline(always)]
pub fn refuse(ctx: &TcContext, packet: &Packet) -> i32 {
    let opens = packet.protocol == TCP && packet.flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
    if opens && packet::write_refusal(ctx, packet).is_some() { away(ctx) } else { DROP }
}

/// Sends the packet back out by the link that it came from, past the stack: that would take a packet with this node's own address as
/// its source for a forged one.
#[inline(always)]
fn away(ctx: &TcContext) -> i32 {
    if packet::age(ctx).is_none() {
        return DROP;
    }
    // SAFETY: the context is the kernel's; without parameters the helper looks up route and neighbour itself.
    unsafe { bpf_redirect_neigh((*ctx.skb.skb).ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}

#[inline(always)]
fn fresh(packet: &Packet, backend: u32, kind: u8, to: &Tuple) -> Flow {
    let state = SEEN | closing(packet);
    Flow { used_ns: now(), backend, kind, state, padding: [0; 2], to: *to, padding_2: 0 }
}

/// The other half of a flow, before it had a packet.
#[inline(always)]
fn opposite(key: &FlowKey, flow: &Flow) -> Flow {
    Flow {
        used_ns: now(),
        backend: flow.backend,
        kind: flow.kind,
        state: REPLY,
        padding: [0; 2],
        to: key.tuple.reversed(),
        padding_2: 0,
    }
}

#[inline(always)]
fn closing(packet: &Packet) -> u8 {
    let fin = if packet.flags & TCP_FIN != 0 { FIN } else { 0 };
    let rst = if packet.flags & TCP_RST != 0 { RST } else { 0 };
    fin | rst
}

/// Whether the flow's backend left all services.
#[inline(always)]
fn is_gone(flow: &Flow) -> bool {
    // SAFETY: the entry is only looked for.
    flow.backend != 0 && unsafe { BACKENDS.get(&flow.backend) }.is_none()
}

#[inline(always)]
fn same_tuple(one: &Tuple, other: &Tuple) -> bool {
    u32::from_ne_bytes(one.source) == u32::from_ne_bytes(other.source)
        && u32::from_ne_bytes(one.destination) == u32::from_ne_bytes(other.destination)
        && u16::from_ne_bytes(one.source_port) == u16::from_ne_bytes(other.source_port)
        && u16::from_ne_bytes(one.destination_port) == u16::from_ne_bytes(other.destination_port)
}

#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: has no precondition.
    unsafe { bpf_ktime_get_ns() }
}
