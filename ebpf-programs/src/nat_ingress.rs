//! A packet comes from the uplink: to a service's node port, external or load balancer's address, or as an answer to what was translated.

use aya_ebpf::macros::classifier;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::programs::TcContext;
use skep_ebpf_common::{
    BY_ADDRESS, DIRECT, DROP_WHEN_EMPTY, EGRESS, Endpoint, Flow, FlowKey, INGRESS, NODE, NODE_PORT_REMOTE,
    ON_THIS_NODE, PODS, REPLY, SEEN, Tuple, UDP, mapped,
};

use crate::flows::{self, DROP, NEXT, Verdict};
use crate::lookup::{choose, spread};
use crate::maps::{CONFIG, EXTERNALS, FLOWS, INSIDE, SERVICES};
use crate::packet::{self, Packet, Read, TCP_RST};

#[classifier]
pub fn skep_nat_ingress(ctx: TcContext) -> i32 {
    match packet::read(&ctx) {
        Read::Packet(packet) => match flows::follow(&ctx, &packet, INGRESS) {
            Verdict::Done(action) => action,
            Verdict::Unknown => begin(&ctx, &packet),
        },
        Read::Complaint(complaint) => flows::follow_complaint(&ctx, &complaint, INGRESS),
        Read::Other => NEXT,
    }
}

#[inline(always)]
fn begin(ctx: &TcContext, packet: &Packet) -> i32 {
    let tuple = &packet.tuple;
    let addressed = Endpoint {
        address: mapped(tuple.destination),
        port: tuple.destination_port,
        protocol: packet.protocol,
        padding: 0,
    };
    // SAFETY: the entry is copied at once.
    let Some(external) = (unsafe { EXTERNALS.get(&addressed) }).copied() else { return direct(packet) };
    // For other nodes' pods the service is as it is inside, whatever the external policy says: the internal traffic policy counts.
    let from_pod = inside(tuple.source) & PODS != 0;
    // SAFETY: the entry is copied at once.
    let service = if from_pod { unsafe { SERVICES.get(&addressed) }.copied().unwrap_or(external) } else { external };
    if packet.flags & TCP_RST != 0 {
        return NEXT;
    }
    let source = u64::from(u32::from_ne_bytes(tuple.source));
    let client = source << 16 | u64::from(u16::from_ne_bytes(tuple.source_port));
    let Some((id, backend)) = choose(&service, BY_ADDRESS | source, spread(client)) else {
        return if service.flags & DROP_WHEN_EMPTY != 0 {
            DROP
        } else if inside(tuple.destination) & NODE != 0 {
            // The stack has no socket there, and refuses.
            NEXT
        } else {
            flows::refuse(ctx, packet)
        };
    };
    let [.., a, b, c, d] = backend.endpoint.address;
    let mut to = Tuple {
        source: tuple.source,
        destination: [a, b, c, d],
        source_port: tuple.source_port,
        destination_port: backend.endpoint.port,
    };
    if backend.flags & ON_THIS_NODE != 0 {
        return flows::keep(ctx, packet, INGRESS, id, &to);
    }
    let Some(config) = CONFIG.get(0) else { return NEXT };
    to.source = config.address;
    flows::hide(ctx, packet, INGRESS, id, NODE_PORT_REMOTE, to, spread(client))
}

/// A datagram to a pod's own address: remembered, so that its answer is not taken for the begin of a flow of the pod's own. A TCP
/// connection's begin is seen by its flags.
#[inline(always)]
fn direct(packet: &Packet) -> i32 {
    let tuple = &packet.tuple;
    if packet.protocol == UDP && inside(tuple.destination) & PODS != 0 && inside(tuple.source) == 0 {
        let reply = tuple.reversed();
        let key = FlowKey { tuple: reply, protocol: UDP, hook: EGRESS, padding: [0; 2] };
        let flow = Flow {
            used_ns: flows::now(),
            backend: 0,
            kind: DIRECT,
            state: SEEN | REPLY,
            padding: [0; 2],
            to: reply,
            padding_2: 0,
        };
        // A flow that is there stays as it is: this is its answer, or it is this very one.
        let _ = FLOWS.insert(&key, &flow, 1);
    }
    NEXT
}

/// What an address inside of the cluster is; 0 for one outside.
#[inline(always)]
pub fn inside(address: [u8; 4]) -> u32 {
    INSIDE.get(Key::new(128, mapped(address))).copied().unwrap_or(0)
}
