//! Packets from outside through the program at the uplink (tcx ingress), with 1, 100 and 10 000 Services in the maps, by BPF_PROG_TEST_RUN:
//! `cargo bench -p skep-benches --bench packets`. Needs root and `cargo xtask build-ebpf`.
//!
//! The time is the kernel's own, of one run of the program a call: a packet that was translated can't be run again. It includes reading the
//! clock twice, some tens of nanoseconds, and caches that the call between two runs cools.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TestRun as _};
use aya::{EbpfLoader, TestRunOptions};
use criterion::{BenchmarkId, Criterion};
use skep_benches::node::Node;
use skep_benches::services::{PORT, Services, external_ip, sequence};
use skep_ebpf_proxy::compile::Entries;
use skep_ebpf_proxy::kernel::{UPLINK_PROGRAMS, map_folder};

/// Flows that go on by turns.
const FLOWS: usize = 1024;
/// Let the next program, or the stack, have the packet (`TCX_NEXT`).
const NEXT: u32 = u32::MAX;
const DESTINATION: std::ops::Range<usize> = 30..34;
const SYN: u8 = 2;
const ACK: u8 = 16;

fn main() -> Result<()> {
    let node = Node::new()?;
    let mut criterion = Criterion::default().configure_from_args();
    let mut maps = node.attach()?;
    let mut ebpf = EbpfLoader::new().default_map_pin_directory(map_folder(&node.folder())).load(node.object())?;
    let (name, _) = UPLINK_PROGRAMS[0];
    let program: &mut SchedClassifier = ebpf.program_mut(name).context("the object lacks the program")?.try_into()?;
    program.load()?;
    let program: &SchedClassifier = program;
    let mut now = Entries::default();
    for services in [1, 100, 10_000] {
        let wanted = Services { count: services, protocol: "TCP", external: true }.entries()?;
        maps.update(&now, &wanted)?;
        now = wanted;
        is_translated(program, services)?;
        let mut group = criterion.benchmark_group("a packet from outside (tcx ingress)");
        let mut measure = |name: &str, packets: &mut dyn FnMut() -> Vec<u8>| {
            group.bench_function(BenchmarkId::new(name, services), |bencher| {
                bencher.iter_custom(|count| (0..count).map(|_| run(program, &packets()).expect("it runs").0).sum());
            });
        };
        let nowhere = packet(Ipv4Addr::new(192, 0, 2, 1), 40_000, Ipv4Addr::new(203, 0, 113, 1), SYN);
        measure("to no Service", &mut || nowhere.clone());
        let mut numbers = sequence(u64::from(services));
        measure("opens a flow", &mut || {
            numbers.next().map(|number| opening(number, services, SYN)).expect("it has no end")
        });
        let known: Vec<Vec<u8>> = sequence(7).take(FLOWS).map(|number| opening(number, services, ACK)).collect();
        for packet in &known {
            run(program, packet)?;
        }
        let mut known = known.iter().cycle();
        measure("of a known flow", &mut || known.next().cloned().expect("it has no end"));
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}

/// What is measured is what is meant: a packet to a Service leaves the program with another destination, and one to nowhere as it came.
fn is_translated(program: &SchedClassifier, services: u32) -> Result<()> {
    for number in sequence(3).take(16) {
        let packet = opening(number, services, SYN);
        let (_, out) = run(program, &packet)?;
        ensure!(out[DESTINATION] != packet[DESTINATION], "a packet to a Service was not translated");
    }
    let nowhere = packet(Ipv4Addr::new(192, 0, 2, 1), 40_000, Ipv4Addr::new(203, 0, 113, 1), SYN);
    ensure!(run(program, &nowhere)?.1 == nowhere, "a packet to nowhere was changed");
    Ok(())
}

/// The program run once: how long it took, and the packet as it left.
fn run(program: &SchedClassifier, packet: &[u8]) -> Result<(Duration, Vec<u8>)> {
    let mut out = vec![0; packet.len()];
    let mut options = TestRunOptions::new();
    options.data_in = Some(packet);
    options.data_out = Some(&mut out);
    let result = program.test_run(options)?;
    ensure!(result.return_value == NEXT, "the program returned {}", result.return_value);
    Ok((result.duration, out))
}

/// A packet from some client to some Service.
fn opening(number: u32, services: u32, flags: u8) -> Vec<u8> {
    let client = Ipv4Addr::from_bits(Ipv4Addr::new(203, 0, 113, 0).to_bits() | number >> 24);
    packet(client, 1024 | number as u16, external_ip((number >> 4) % services), flags)
}

/// Ethernet, IPv4 and TCP without data. Checksums stay zero: the program changes them by differences.
fn packet(source: Ipv4Addr, source_port: u16, destination: Ipv4Addr, flags: u8) -> Vec<u8> {
    let mut packet = vec![0; 12];
    packet.extend([0x08, 0x00]);
    packet.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(source_port.to_be_bytes());
    packet.extend(PORT.to_be_bytes());
    packet.extend([0; 8]);
    packet.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    packet
}
