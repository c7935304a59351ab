//! A packet's addresses and ports: read, and written with all checksums. Ethernet, IPv4; TCP, UDP and ICMP echo.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::programs::TcContext;
use skep_ebpf_common::{ICMP, TCP, Tuple, UDP};

/// The length of an Ethernet header; tags are taken off before the hook.
const ETHERNET: usize = 14;
/// The Ethernet type of IPv4, as it is in the packet.
const IPV4: u16 = 0x0800_u16.to_be();
/// In the IP header.
const FRAGMENT: usize = ETHERNET + 6;
const TIME_TO_LIVE: usize = ETHERNET + 8;
const HEADER_CHECKSUM: usize = ETHERNET + 10;
const SOURCE: usize = ETHERNET + 12;
const DESTINATION: usize = ETHERNET + 16;

const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;

/// TCP's flags.
pub const TCP_FIN: u8 = 1;
pub const TCP_SYN: u8 = 2;
pub const TCP_RST: u8 = 4;
pub const TCP_ACK: u8 = 16;

/// What was read.
#[derive(Clone, Copy)]
pub struct Packet {
    pub tuple: Tuple,
    pub protocol: u8,
    /// TCP's flags; 0 for others.
    pub flags: u8,
    /// Where the transport header is.
    transport: usize,
}

/// An ICMP error: who says it, and about which packet.
#[derive(Clone, Copy)]
pub struct Complaint {
    pub from: [u8; 4],
    pub about: Tuple,
    pub protocol: u8,
    /// Where the ICMP header is.
    icmp: usize,
    /// Where the packet's IP header is.
    inner: usize,
    /// Where the packet's transport header is.
    transport: usize,
}

/// What a packet is to the translation.
pub enum Read {
    Packet(Packet),
    Complaint(Complaint),
    /// Not IPv4, a fragment, another protocol, or cut off: none of our business.
    Other,
}

/// Reads the packet of the context.
#[inline(always)]
pub fn read(ctx: &TcContext) -> Read {
    match packet(ctx) {
        Some(read) => read,
        None => Read::Other,
    }
}

#[inline(always)]
fn packet(ctx: &TcContext) -> Option<Read> {
    if ctx.skb.protocol() != u32::from(IPV4) {
        return None;
    }
    let (transport, protocol) = internet(ctx, ETHERNET)?;
    let (source, destination) = addresses(ctx, ETHERNET)?;
    if protocol == ICMP {
        let header: [u8; 8] = ctx.load(transport).ok()?;
        let identifier = [header[4], header[5]];
        let (source_port, destination_port) = match header[0] {
            ECHO_REQUEST => (identifier, [0; 2]),
            ECHO_REPLY => ([0; 2], identifier),
            UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM => return complaint(ctx, source, transport),
            _ => return None,
        };
        let tuple = Tuple { source, destination, source_port, destination_port };
        return Some(Read::Packet(Packet { tuple, protocol, flags: 0, transport }));
    }
    let [source_port, destination_port]: [[u8; 2]; 2] = ctx.load(transport).ok()?;
    let flags = match protocol {
        TCP => {
            // The whole header is there, or the packet is not touched.
            let _: [u8; 20] = ctx.load(transport).ok()?;
            ctx.load(transport + 13).ok()?
        }
        UDP => {
            let _: [u8; 8] = ctx.load(transport).ok()?;
            0
        }
        _ => return None,
    };
    let tuple = Tuple { source, destination, source_port, destination_port };
    Some(Read::Packet(Packet { tuple, protocol, flags, transport }))
}

#[inline(always)]
fn complaint(ctx: &TcContext, from: [u8; 4], icmp: usize) -> Option<Read> {
    let inner = icmp + 8;
    let (transport, protocol) = internet(ctx, inner)?;
    if protocol != TCP && protocol != UDP {
        return None;
    }
    let (source, destination) = addresses(ctx, inner)?;
    let [source_port, destination_port]: [[u8; 2]; 2] = ctx.load(transport).ok()?;
    let about = Tuple { source, destination, source_port, destination_port };
    Some(Read::Complaint(Complaint { from, about, protocol, icmp, inner, transport }))
}

/// Where the transport header is of the IP header at `at`, and its protocol; none for fragments.
#[inline(always)]
fn internet(ctx: &TcContext, at: usize) -> Option<(usize, u8)> {
    let first: u8 = ctx.load(at).ok()?;
    let length = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || length < 20 {
        return None;
    }
    let fragment: [u8; 2] = ctx.load(at + FRAGMENT - ETHERNET).ok()?;
    // More fragments, or an offset.
    if u16::from_be_bytes(fragment) & 0x3fff != 0 {
        return None;
    }
    let protocol: u8 = ctx.load(at + 9).ok()?;
    Some((at + length, protocol))
}

#[inline(always)]
fn addresses(ctx: &TcContext, at: usize) -> Option<([u8; 4], [u8; 4])> {
    let source: [u8; 4] = ctx.load(at + SOURCE - ETHERNET).ok()?;
    let destination: [u8; 4] = ctx.load(at + DESTINATION - ETHERNET).ok()?;
    Some((source, destination))
}

/// Gives the packet other addresses and ports. None: the kernel refused, and the packet may be half written.
#[inline(always)]
pub fn write(ctx: &TcContext, packet: &Packet, to: &Tuple) -> Option<()> {
    let from = &packet.tuple;
    let at = packet.transport;
    let (checksum, flags) = match packet.protocol {
        TCP => (at + 16, u64::from(BPF_F_PSEUDO_HDR)),
        // A checksum of zero says that there is none, and stays.
        UDP => (at + 6, u64::from(BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0)),
        // ICMP's does not cover addresses.
        _ => (at + 2, 0),
    };
    address(ctx, SOURCE, checksum, flags, from.source, to.source)?;
    address(ctx, DESTINATION, checksum, flags, from.destination, to.destination)?;
    let flags = flags & !u64::from(BPF_F_PSEUDO_HDR);
    if packet.protocol == ICMP {
        // One of both is the identifier, the other is zero.
        port(ctx, at + 4, checksum, flags, merged(from), merged(to))?;
    } else {
        port(ctx, at, checksum, flags, from.source_port, to.source_port)?;
        port(ctx, at + 2, checksum, flags, from.destination_port, to.destination_port)?;
    }
    Some(())
}

/// Gives an ICMP error to the one whose packet it is about, as if it were about the packet that was sent: `reply` is what answers to
/// that packet are translated to. None: the kernel refused.
#[inline(always)]
pub fn write_complaint(ctx: &TcContext, complaint: &Complaint, reply: &Tuple) -> Option<()> {
    let about = &complaint.about;
    // A router on the way speaks for itself; the receiver has the address that the sender knows.
    if u32::from_ne_bytes(complaint.from) == u32::from_ne_bytes(about.destination) {
        header(ctx, ETHERNET, SOURCE, complaint.from, reply.source)?;
    }
    header(ctx, ETHERNET, DESTINATION, about.source, reply.destination)?;
    header(ctx, complaint.inner, complaint.inner + SOURCE - ETHERNET, about.source, reply.destination)?;
    header(ctx, complaint.inner, complaint.inner + DESTINATION - ETHERNET, about.destination, reply.source)?;
    // The inner IP header sums up to what it did, so that ICMP's checksum changes by the ports only. The inner transport checksum
    // stays: the packet is cut off, and nobody can check it.
    let checksum = complaint.icmp + 2;
    port(ctx, complaint.transport, checksum, 0, about.source_port, reply.destination_port)?;
    port(ctx, complaint.transport + 2, checksum, 0, about.destination_port, reply.source_port)
}

/// Makes the answer that refuses (RFC 9293 section 3.5.1) of a packet that opens a connection, in its place: addresses and ports swapped,
/// which changes no sum. What the client says of itself in the options is of no matter in a reset. None: the kernel refused.
#[inline(always)]
pub fn write_refusal(ctx: &TcContext, packet: &Packet) -> Option<()> {
    let (tuple, at) = (&packet.tuple, packet.transport);
    ctx.store(SOURCE, &tuple.destination, 0).ok()?;
    ctx.store(DESTINATION, &tuple.source, 0).ok()?;
    ctx.store(at, &tuple.destination_port, 0).ok()?;
    ctx.store(at + 2, &tuple.source_port, 0).ok()?;
    let [sequence, acknowledged]: [[u8; 4]; 2] = ctx.load(at + 4).ok()?;
    let next = u32::from_be_bytes(sequence).wrapping_add(1).to_be_bytes();
    for (at, from, to) in [(at + 4, sequence, [0; 4]), (at + 8, acknowledged, next)] {
        let (from, to) = (u32::from_ne_bytes(from), u32::from_ne_bytes(to));
        ctx.l4_csum_replace(packet.transport + 16, from.into(), to.into(), 4).ok()?;
        ctx.store(at, &to, 0).ok()?;
    }
    let length: u8 = ctx.load(at + 12).ok()?;
    port(ctx, at + 12, at + 16, 0, [length, packet.flags], [length, TCP_RST | TCP_ACK])
}

/// One hop less to live, where the packet does not go through the stack. None: it has none left.
#[inline(always)]
pub fn age(ctx: &TcContext) -> Option<()> {
    let [left, protocol]: [u8; 2] = ctx.load(TIME_TO_LIVE).ok()?;
    if left <= 1 {
        return None;
    }
    let (from, to) = (u16::from_ne_bytes([left, protocol]), u16::from_ne_bytes([left - 1, protocol]));
    ctx.l3_csum_replace(HEADER_CHECKSUM, from.into(), to.into(), 2).ok()?;
    ctx.store(TIME_TO_LIVE, &(left - 1), 0).ok()
}

#[inline(always)]
fn address(ctx: &TcContext, at: usize, checksum: usize, flags: u64, from: [u8; 4], to: [u8; 4]) -> Option<()> {
    let (from, to) = (u32::from_ne_bytes(from), u32::from_ne_bytes(to));
    if from == to {
        return Some(());
    }
    if flags != 0 {
        ctx.l4_csum_replace(checksum, from.into(), to.into(), flags | 4).ok()?;
    }
    ctx.l3_csum_replace(HEADER_CHECKSUM, from.into(), to.into(), 4).ok()?;
    ctx.store(at, &to, 0).ok()
}

#[inline(always)]
fn header(ctx: &TcContext, start: usize, at: usize, from: [u8; 4], to: [u8; 4]) -> Option<()> {
    let (from, to) = (u32::from_ne_bytes(from), u32::from_ne_bytes(to));
    if from == to {
        return Some(());
    }
    ctx.l3_csum_replace(start + HEADER_CHECKSUM - ETHERNET, from.into(), to.into(), 4).ok()?;
    ctx.store(at, &to, 0).ok()
}

#[inline(always)]
fn port(ctx: &TcContext, at: usize, checksum: usize, flags: u64, from: [u8; 2], to: [u8; 2]) -> Option<()> {
    let (from, to) = (u16::from_ne_bytes(from), u16::from_ne_bytes(to));
    if from == to {
        return Some(());
    }
    ctx.l4_csum_replace(checksum, from.into(), to.into(), flags | 2).ok()?;
    ctx.store(at, &to, 0).ok()
}

#[inline(always)]
fn merged(tuple: &Tuple) -> [u8; 2] {
    [tuple.source_port[0] | tuple.destination_port[0], tuple.source_port[1] | tuple.destination_port[1]]
}
