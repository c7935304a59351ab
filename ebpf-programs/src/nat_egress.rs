//! A packet leaves by the uplink: an answer of a backend to a client outside, or of a pod to the outside, which shall see this node.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use skep_ebpf_common::{EGRESS, ICMP, MASQUERADE, PODS, TCP};

use crate::flows::{self, NEXT, Verdict};
use crate::lookup::spread;
use crate::maps::CONFIG;
use crate::nat_ingress::inside;
use crate::packet::{self, Packet, Read, TCP_ACK, TCP_SYN};

#[classifier]
pub fn skep_nat_egress(ctx: TcContext) -> i32 {
    match packet::read(&ctx) {
        Read::Packet(packet) => match flows::follow(&ctx, &packet, EGRESS) {
            Verdict::Done(action) => action,
            Verdict::Unknown => begin(&ctx, &packet),
        },
        Read::Complaint(complaint) => flows::follow_complaint(&ctx, &complaint, EGRESS),
        Read::Other => NEXT,
    }
}

#[inline(always)]
fn begin(ctx: &TcContext, packet: &Packet) -> i32 {
    let tuple = &packet.tuple;
    if inside(tuple.source) & PODS == 0 || inside(tuple.destination) != 0 || tuple.destination[0] >= 224 {
        return NEXT;
    }
    // What doesn't open a connection, or asks for no echo, is an answer to someone who knows the pod's own address.
    let opens = match packet.protocol {
        TCP => packet.flags & (TCP_SYN | TCP_ACK) == TCP_SYN,
        ICMP => u16::from_ne_bytes(tuple.source_port) != 0,
        _ => true,
    };
    let Some(config) = CONFIG.get(0) else { return NEXT };
    if !opens || u32::from_ne_bytes(config.address) == 0 {
        return NEXT;
    }
    let mut to = *tuple;
    to.source = config.address;
    let sender = u64::from(u32::from_ne_bytes(tuple.source)) << 16 | u64::from(u16::from_ne_bytes(tuple.source_port));
    flows::hide(ctx, packet, EGRESS, 0, MASQUERADE, to, spread(sender))
}
