//! The uplink's programs on crafted packets, by `BPF_PROG_TEST_RUN`: what is ours is translated to the byte, all else stays as it is.
//! Needs root.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use aya::maps::{HashMap, Map, MapData};
use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader, TestRun, TestRunOptions};
use proptest::prelude::*;
use skep_ebpf_common::{
    Backend, DROP_WHEN_EMPTY, Endpoint, Flow, FlowKey, NODE, ON_THIS_NODE, PODS, REPLY, Service, SlotKey, TCP, UDP,
    mapped,
};
use skep_ebpf_proxy::compile::Entries;
use skep_ebpf_proxy::kernel::{Maps, map_folder};
use skep_ebpf_proxy::object;

const NEXT: u32 = u32::MAX;
const DROP: u32 = 2;
const REDIRECT: u32 = 7;

const CLIENT: [u8; 4] = [203, 0, 113, 9];
const NODE_ADDRESS: [u8; 4] = [192, 0, 2, 1];
const OTHER_NODE: [u8; 4] = [192, 0, 2, 2];
const HERE: [u8; 4] = [10, 244, 1, 2];
const ELSEWHERE: [u8; 4] = [10, 244, 2, 2];

/// Node ports: to a pod here, to one elsewhere, to none, and to none where others have some.
const TO_HERE: u16 = 30_001;
const TO_ELSEWHERE: u16 = 30_002;
const TO_NONE: u16 = 30_003;
const TO_OTHERS: u16 = 30_004;

const SYN: u8 = 2;
const FIN_ACK: u8 = 17;
const SYN_ACK: u8 = 18;
const ACK: u8 = 16;

/// The programs, over maps of their own.
struct Uplink {
    ebpf: Ebpf,
    bpf_dir: PathBuf,
    mount: tempfile::TempDir,
}

impl Uplink {
    fn new() -> Self {
        let mount = tempfile::tempdir().expect("a folder");
        assert!(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(mount.path()).status().expect("mount").success());
        let bpf_dir = mount.path().join("node");
        std::fs::create_dir_all(map_folder(&bpf_dir)).expect("a folder");
        let object = object::find(None).expect("the object is built by `cargo xtask build-ebpf`");
        let mut ebpf = EbpfLoader::new().default_map_pin_directory(map_folder(&bpf_dir)).load(&object).expect("loaded");
        for name in ["skep_nat_ingress", "skep_nat_egress"] {
            let program: &mut SchedClassifier =
                ebpf.program_mut(name).expect("there").try_into().expect("a classifier");
            program.load().expect("verified");
        }
        let mut maps = Maps::open(&bpf_dir).expect("pinned");
        maps.set_address(NODE_ADDRESS.into()).expect("set");
        maps.update(&Entries::default(), &entries()).expect("updated");
        Self { ebpf, bpf_dir, mount }
    }

    fn ingress(&self, packet: &[u8]) -> (u32, Vec<u8>) {
        self.run("skep_nat_ingress", packet)
    }

    fn egress(&self, packet: &[u8]) -> (u32, Vec<u8>) {
        self.run("skep_nat_egress", packet)
    }

    fn run(&self, name: &str, packet: &[u8]) -> (u32, Vec<u8>) {
        let program: &SchedClassifier = self.ebpf.program(name).expect("there").try_into().expect("a classifier");
        let mut out = vec![0; 4096];
        let options = TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = program.test_run(options).expect("run");
        out.truncate(result.data_size_out as usize);
        (result.return_value, out)
    }

    fn flows(&self) -> HashMap<MapData, FlowKey, Flow> {
        let data = MapData::from_pin(map_folder(&self.bpf_dir).join("FLOWS")).expect("pinned");
        HashMap::try_from(Map::LruHashMap(data)).expect("flows")
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.mount.path()).stderr(Stdio::null()).status();
    }
}

fn endpoint(address: [u8; 4], port: u16, protocol: u8) -> Endpoint {
    Endpoint { address: mapped(address), port: port.to_be_bytes(), protocol, padding: 0 }
}

fn entries() -> Entries {
    let mut entries = Entries::default();
    let services = [
        (TO_HERE, Some(HERE), 0),
        (TO_ELSEWHERE, Some(ELSEWHERE), 0),
        (TO_NONE, None, 0),
        (TO_OTHERS, None, DROP_WHEN_EMPTY),
    ];
    let mut id = 0;
    for protocol in [TCP, UDP] {
        for (port, backend, flags) in services {
            id += 1;
            if let Some(address) = backend {
                let flags = if address == HERE { ON_THIS_NODE } else { 0 };
                entries.backends.insert(id, Backend { endpoint: endpoint(address, 8080, protocol), flags });
                entries.slots.insert(SlotKey { service: id, slot: 0 }, id);
            }
            let service = Service { id, backends: backend.is_some().into(), affinity_seconds: 0, flags };
            entries.externals.insert(endpoint(NODE_ADDRESS, port, protocol), service);
        }
    }
    entries.inside.insert((mapped([10, 244, 0, 0]), 112), PODS);
    entries.inside.insert((mapped(NODE_ADDRESS), 128), NODE);
    entries.inside.insert((mapped(OTHER_NODE), 128), NODE);
    entries
}

type End = ([u8; 4], u16);

/// A packet with right checksums; `options` are bytes of IP options, a multiple of four.
fn packet(protocol: u8, from: End, to: End, flags: u8, options: usize) -> Vec<u8> {
    let mut transport = [from.1.to_be_bytes(), to.1.to_be_bytes()].concat();
    if protocol == TCP {
        transport.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    } else {
        transport.extend([0, 13, 0, 0]);
    }
    transport.extend(b"hello");
    let mut ip = vec![0x45 + (options / 4) as u8, 0];
    ip.extend(((20 + options + transport.len()) as u16).to_be_bytes());
    ip.extend([0, 7, 0x40, 0, 64, protocol, 0, 0]);
    ip.extend(from.0);
    ip.extend(to.0);
    ip.extend(std::iter::repeat_n(1, options));
    let sum = !sum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let sum = !covered(&ip, &transport);
    let at = if protocol == TCP { 16 } else { 6 };
    transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    let ethernet = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    [&ethernet[..], &ip, &transport].concat()
}

/// The one's complement sum (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum that TCP's and UDP's checksums are of.
fn covered(ip: &[u8], transport: &[u8]) -> u16 {
    let length = (transport.len() as u16).to_be_bytes();
    sum(&[&ip[12..20], &[0, ip[9]], &length, transport].concat())
}

/// Its ends, if all its checksums are right.
fn read(packet: &[u8]) -> (End, End) {
    let ip = &packet[14..];
    let (ip, transport) = ip.split_at(usize::from(ip[0] & 15) * 4);
    assert_eq!(sum(ip), 0xffff, "the header's checksum");
    let has_none = ip[9] == UDP && transport[6..8] == [0, 0];
    assert!(has_none || covered(ip, transport) == 0xffff, "the transport's checksum");
    let address = |at: usize| [ip[at], ip[at + 1], ip[at + 2], ip[at + 3]];
    let port = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
    ((address(12), port(0)), (address(16), port(2)))
}

#[test]
fn a_pod_here_gets_the_clients_packet_and_the_client_the_node_ports_answer() {
    let uplink = Uplink::new();
    for (protocol, options) in [(TCP, 0), (UDP, 0), (TCP, 8), (UDP, 40)] {
        let client = (CLIENT, 40_000 + options as u16);
        let (verdict, went) = uplink.ingress(&packet(protocol, client, (NODE_ADDRESS, TO_HERE), SYN, options));
        assert_eq!((verdict, read(&went)), (NEXT, (client, (HERE, 8080))));
        let (verdict, came) = uplink.egress(&packet(protocol, (HERE, 8080), client, SYN_ACK, options));
        assert_eq!((verdict, read(&came)), (NEXT, ((NODE_ADDRESS, TO_HERE), client)));
    }
}

#[test]
fn a_pod_elsewhere_is_asked_by_the_node_and_the_answer_finds_the_client() {
    let uplink = Uplink::new();
    for protocol in [TCP, UDP] {
        let client = (CLIENT, 40_000);
        let asked = packet(protocol, client, (NODE_ADDRESS, TO_ELSEWHERE), SYN, 0);
        let (verdict, went) = uplink.ingress(&asked);
        let (from, to) = read(&went);
        assert_eq!((verdict, from.0, to), (REDIRECT, NODE_ADDRESS, (ELSEWHERE, 8080)));
        assert_eq!(went[22], 63, "it lives one hop less");
        // Asked once more, it is the same.
        assert_eq!(uplink.ingress(&asked), (verdict, went));
        let (verdict, came) = uplink.ingress(&packet(protocol, to, from, SYN_ACK, 0));
        assert_eq!((verdict, read(&came)), (REDIRECT, ((NODE_ADDRESS, TO_ELSEWHERE), client)));
        // Both leave by the uplink as they are.
        assert_eq!(uplink.egress(&came), (NEXT, came.clone()));
    }
}

#[test]
fn a_datagram_without_a_checksum_stays_without() {
    let uplink = Uplink::new();
    let mut asked = packet(UDP, (CLIENT, 40_000), (NODE_ADDRESS, TO_HERE), 0, 0);
    asked[40..42].copy_from_slice(&[0, 0]);
    let (_, went) = uplink.ingress(&asked);
    assert_eq!((read(&went).1, &went[40..42]), ((HERE, 8080), &[0, 0][..]));
}

#[test]
fn a_pod_leaves_by_the_nodes_address_and_gets_its_answers() {
    let uplink = Uplink::new();
    for protocol in [TCP, UDP] {
        let (pod, server) = ((HERE, 50_000), (CLIENT, 443));
        let (verdict, went) = uplink.egress(&packet(protocol, pod, server, SYN, 0));
        let (from, to) = read(&went);
        assert_eq!((verdict, from.0, to), (NEXT, NODE_ADDRESS, server));
        let (verdict, came) = uplink.ingress(&packet(protocol, server, from, SYN_ACK, 0));
        assert_eq!((verdict, read(&came)), (NEXT, (server, pod)));
        // Another pod with the same port is told apart.
        let (_, other) = uplink.egress(&packet(protocol, ([10, 244, 1, 3], 50_000), server, SYN, 0));
        assert_ne!(read(&other).0, from);
    }
}

#[test]
fn inside_of_the_cluster_and_for_answers_pods_stay_themselves() {
    let uplink = Uplink::new();
    for protocol in [TCP, UDP] {
        for to in [ELSEWHERE, NODE_ADDRESS, OTHER_NODE, [224, 0, 0, 1]] {
            let inside = packet(protocol, (HERE, 50_000), (to, 443), SYN, 0);
            assert_eq!(uplink.egress(&inside), (NEXT, inside.clone()));
        }
        // One who knows the pod's own address.
        let direct = packet(protocol, (CLIENT, 40_000), (HERE, 8080), SYN, 0);
        assert_eq!(uplink.ingress(&direct), (NEXT, direct.clone()));
        let answer = packet(protocol, (HERE, 8080), (CLIENT, 40_000), SYN_ACK, 0);
        assert_eq!(uplink.egress(&answer), (NEXT, answer.clone()));
        let nodes_own = packet(protocol, (NODE_ADDRESS, 50_000), (CLIENT, 443), SYN, 0);
        assert_eq!(uplink.egress(&nodes_own), (NEXT, nodes_own.clone()));
    }
}

#[test]
fn without_backends_the_stack_refuses_or_the_packet_is_dropped() {
    let uplink = Uplink::new();
    for protocol in [TCP, UDP] {
        let none = packet(protocol, (CLIENT, 40_000), (NODE_ADDRESS, TO_NONE), SYN, 0);
        assert_eq!(uplink.ingress(&none), (NEXT, none.clone()));
        let others = packet(protocol, (CLIENT, 40_000), (NODE_ADDRESS, TO_OTHERS), SYN, 0);
        assert_eq!(uplink.ingress(&others).0, DROP);
    }
}

#[test]
fn a_connection_to_an_address_of_no_node_is_refused_in_its_name() {
    let uplink = Uplink::new();
    let (mut more, external) = (entries(), ([198, 51, 100, 7], 80));
    let none = Service { id: 99, backends: 0, affinity_seconds: 0, flags: 0 };
    more.externals.insert(endpoint(external.0, external.1, TCP), none);
    Maps::open(&uplink.bpf_dir).expect("pinned").update(&entries(), &more).expect("updated");
    let (verdict, refusal) = uplink.ingress(&packet(TCP, (CLIENT, 40_000), external, SYN, 0));
    assert_eq!((verdict, read(&refusal)), (REDIRECT, (external, (CLIENT, 40_000))));
    // Sequence 0; the packet's own, 1, and the SYN are acknowledged; RST and ACK.
    assert_eq!((&refusal[38..46], refusal[47]), (&[0, 0, 0, 0, 0, 0, 0, 2][..], 0x14));
    assert_eq!(uplink.ingress(&packet(TCP, (CLIENT, 40_000), external, ACK, 0)).0, DROP);
}

/// An ICMP error of `from` about `packet`, to whom that came from; checksums are right.
fn complaint(kind: u8, from: [u8; 4], packet: &[u8]) -> Vec<u8> {
    // The header and eight bytes more, as routers send back at least (RFC 792).
    let about = &packet[14..14 + 28];
    let mut icmp = [&[kind, 4, 0, 0, 0, 0, 5, 120][..], about].concat();
    let total = !sum(&icmp);
    icmp[2..4].copy_from_slice(&total.to_be_bytes());
    let mut ip = vec![0x45, 0];
    ip.extend((20 + icmp.len() as u16).to_be_bytes());
    ip.extend([0, 7, 0, 0, 64, 1, 0, 0]);
    ip.extend(from);
    ip.extend(&about[12..16]);
    let total = !sum(&ip);
    ip[10..12].copy_from_slice(&total.to_be_bytes());
    [&packet[..14], &ip, &icmp].concat()
}

/// Who complains, to whom, and the ends of the packet that it is about, if all checksums but the cut-off one are right.
fn read_complaint(packet: &[u8]) -> ([u8; 4], [u8; 4], (End, End)) {
    let (ip, icmp) = packet[14..].split_at(20);
    let (inner, transport) = icmp[8..].split_at(20);
    assert_eq!((sum(ip), sum(icmp), sum(inner)), (0xffff, 0xffff, 0xffff));
    let address = |header: &[u8], at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
    let port = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
    (address(ip, 12), address(ip, 16), ((address(inner, 12), port(0)), (address(inner, 16), port(2))))
}

#[test]
fn an_error_about_a_translated_packet_is_about_the_packet_that_was_sent() {
    const ROUTER: [u8; 4] = [198, 51, 100, 1];
    const UNREACHABLE: u8 = 3;
    const TIME_EXCEEDED: u8 = 11;
    let uplink = Uplink::new();
    for protocol in [TCP, UDP] {
        // A router on the way of a pod's packet to the outside.
        let (pod, server) = ((HERE, 50_000), (CLIENT, 443));
        let (_, went) = uplink.egress(&packet(protocol, pod, server, SYN, 0));
        for kind in [UNREACHABLE, TIME_EXCEEDED] {
            let (verdict, error) = uplink.ingress(&complaint(kind, ROUTER, &went));
            assert_eq!((verdict, read_complaint(&error)), (NEXT, (ROUTER, HERE, (pod, server))));
        }
        // A pod elsewhere that refuses what came by a node port.
        let (client, port) = ((CLIENT, 40_000), (NODE_ADDRESS, TO_ELSEWHERE));
        let (_, went) = uplink.ingress(&packet(protocol, client, port, SYN, 0));
        let (verdict, error) = uplink.ingress(&complaint(UNREACHABLE, ELSEWHERE, &went));
        assert_eq!((verdict, read_complaint(&error)), (REDIRECT, (NODE_ADDRESS, CLIENT, (client, port))));
        // A pod here that does.
        let (client, port) = ((CLIENT, 40_001), (NODE_ADDRESS, TO_HERE));
        let (_, went) = uplink.ingress(&packet(protocol, client, port, SYN, 0));
        let (verdict, error) = uplink.egress(&complaint(UNREACHABLE, HERE, &went));
        assert_eq!((verdict, read_complaint(&error)), (NEXT, (NODE_ADDRESS, CLIENT, (client, port))));
        // One about another's packet.
        let other = complaint(UNREACHABLE, ROUTER, &packet(protocol, (NODE_ADDRESS, 50_001), server, SYN, 0));
        assert_eq!(uplink.ingress(&other), (NEXT, other.clone()));
    }
}

#[test]
fn half_a_flow_that_the_map_forgot_comes_out_as_it_was() {
    let uplink = Uplink::new();
    for protocol in [TCP, UDP] {
        let asked = packet(protocol, (CLIENT, 40_000), (NODE_ADDRESS, TO_ELSEWHERE), ACK, 0);
        let (_, went) = uplink.ingress(&asked);
        for is_reply in [true, false] {
            let mut flows = uplink.flows();
            let all: Vec<(FlowKey, Flow)> = flows.iter().collect::<Result<_, _>>().expect("read");
            let of = |(key, flow): &&(FlowKey, Flow)| key.protocol == protocol && (flow.state & REPLY != 0) == is_reply;
            let (lost, _) = all.iter().find(of).expect("a half");
            flows.remove(lost).expect("removed");
            assert_eq!(uplink.ingress(&asked).1, went);
            let (from, to) = read(&went);
            let (_, came) = uplink.ingress(&packet(protocol, to, from, ACK, 0));
            assert_eq!(read(&came).1, (CLIENT, 40_000));
        }
    }
}

#[test]
fn a_client_that_closed_may_begin_anew_from_its_port_with_another_backend() {
    let uplink = Uplink::new();
    let (client, port) = ((CLIENT, 40_000), (NODE_ADDRESS, TO_HERE));
    uplink.ingress(&packet(TCP, client, port, SYN, 0));
    let mut moved = entries();
    let (id, _) = moved.backends.iter().find(|(_, backend)| backend.endpoint.protocol == TCP).expect("a backend");
    let (id, new) = (*id, [10, 244, 1, 7]);
    let backend = Backend { endpoint: endpoint(new, 8080, TCP), flags: ON_THIS_NODE };
    moved.backends.insert(id, backend);
    Maps::open(&uplink.bpf_dir).expect("pinned").update(&entries(), &moved).expect("updated");
    // Open, and asked again: the old one.
    assert_eq!(read(&uplink.ingress(&packet(TCP, client, port, SYN, 0)).1).1, (HERE, 8080));
    uplink.ingress(&packet(TCP, client, port, FIN_ACK, 0));
    assert_eq!(read(&uplink.ingress(&packet(TCP, client, port, SYN, 0)).1).1, (new, 8080));
}

#[test]
fn a_client_of_a_service_with_affinity_keeps_its_backend() {
    let uplink = Uplink::new();
    let mut many = entries();
    let service = many.externals.get_mut(&endpoint(NODE_ADDRESS, TO_HERE, TCP)).expect("a service");
    (service.affinity_seconds, service.backends) = (60, 32);
    for slot in 1..32 {
        let backend = Backend { endpoint: endpoint([10, 244, 1, slot as u8 + 10], 8080, TCP), flags: ON_THIS_NODE };
        many.backends.insert(100 + slot, backend);
        many.slots.insert(SlotKey { service: service.id, slot }, 100 + slot);
    }
    Maps::open(&uplink.bpf_dir).expect("pinned").update(&entries(), &many).expect("updated");
    let chosen = |client: [u8; 4], port| {
        read(&uplink.ingress(&packet(TCP, (client, port), (NODE_ADDRESS, TO_HERE), SYN, 0)).1).1
    };
    let first = chosen(CLIENT, 40_000);
    assert!((40_001..40_020).all(|port| chosen(CLIENT, port) == first));
    assert!((1..20).any(|other| chosen([203, 0, 113, 100 + other], 40_000) != first), "clients are spread");
}

#[test]
fn what_is_not_ours_or_not_whole_stays_as_it_is() {
    let uplink = Uplink::new();
    let whole = packet(TCP, (CLIENT, 40_000), (NODE_ADDRESS, TO_ELSEWHERE), SYN, 0);
    let changed = |at: usize, to: &[u8]| {
        let mut packet = whole.clone();
        packet[at..at + to.len()].copy_from_slice(to);
        packet
    };
    let others = [
        ("ARP", changed(12, &[8, 6])),
        ("IPv6", changed(12, &[0x86, 0xdd])),
        ("a first fragment", changed(20, &[0x20, 0])),
        ("a later fragment", changed(20, &[0, 7])),
        ("a header that is too short", changed(14, &[0x44])),
        ("another version", changed(14, &[0x65])),
        ("another protocol", changed(23, &[47])),
        ("another port", changed(36, &[1, 1])),
        ("another host", changed(30, &[192, 0, 2, 77])),
    ];
    for (what, packet) in others {
        assert_eq!(uplink.ingress(&packet), (NEXT, packet.clone()), "{what}");
        assert_eq!(uplink.egress(&packet), (NEXT, packet.clone()), "{what}");
    }
    for length in 34..54 {
        assert_eq!(uplink.ingress(&whole[..length]), (NEXT, whole[..length].to_vec()), "cut off at {length}");
    }
    assert_eq!(uplink.flows().iter().count(), 0);
    // A packet at the end of its way is not sent on.
    assert_eq!(uplink.ingress(&changed(22, &[1])).0, DROP);
}

#[test]
fn noise_is_harmless() {
    let uplink = Uplink::new();
    let bytes = prop::collection::vec(any::<u8>(), 34..120);
    let config = ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(mut noise in bytes, like in any::<bool>())| {
        if like {
            // As much like one of ours as helps it on.
            noise[12..15].copy_from_slice(&[8, 0, 0x45]);
            noise[20..22].copy_from_slice(&[0x40, 0]);
            noise[23] = [TCP, UDP, 1][usize::from(noise[23]) % 3];
            noise[30..34].copy_from_slice(&NODE_ADDRESS);
        }
        for (verdict, out) in [uplink.ingress(&noise), uplink.egress(&noise)] {
            prop_assert!([NEXT, DROP, REDIRECT].contains(&verdict));
            prop_assert_eq!(out.len(), noise.len());
        }
    });
}
