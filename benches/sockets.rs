//! connect(2) through the program at the cgroup, with 1, 100 and 10 000 Services in the maps, against the same call without it:
//! `cargo bench -p skep-benches --bench sockets`. Needs root and `cargo xtask build-ebpf`.
//!
//! The kernel can't test-run programs at socket addresses, so the whole system call is measured, where it costs least and the program's
//! part is largest: a datagram socket, which sends nothing when it is connected, connected again and again. Each call goes to another Service.

use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};

use anyhow::Result;
use criterion::{BenchmarkId, Criterion};
use skep_benches::netns::Netns;
use skep_benches::node::Node;
use skep_benches::services::{ENDPOINTS, PORT, Services, TARGET_PORT, cluster_ip, endpoint, sequence};
use skep_ebpf_proxy::compile::Entries;

/// How many addresses are connected to by turns.
const ADDRESSES: usize = 4096;

fn main() -> Result<()> {
    let node = Node::new()?;
    let netns = Netns::new()?;
    // Every address is the namespace's own: a route is found, and nothing is sent.
    netns.ip("route add local 10.0.0.0/8 dev lo")?;
    netns.within(|| connects(&node))
}

fn connects(node: &Node) -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let mut maps = node.attach()?;
    let mut now = Entries::default();
    for services in [1, 100, 10_000] {
        let wanted = Services { count: services, protocol: "UDP", external: false }.entries()?;
        maps.update(&now, &wanted)?;
        now = wanted;
        let random = || sequence(1).take(ADDRESSES);
        let direct: Vec<SocketAddr> = random()
            .map(|number| (endpoint(number % services, (number >> 16) % ENDPOINTS), TARGET_PORT).into())
            .collect();
        let through: Vec<SocketAddr> = random().map(|number| (cluster_ip(number % services), PORT).into()).collect();
        let mut group = criterion.benchmark_group("connect(2) by criterion");
        node.leave()?;
        let mut measure = |name: &str, addresses: &[SocketAddr]| -> Result<()> {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            let mut addresses = addresses.iter().cycle();
            group.bench_function(BenchmarkId::new(name, services), |bencher| {
                bencher.iter(|| addresses.next().map(|address| socket.connect(black_box(address)).expect("a route")));
            });
            Ok(())
        };
        measure("direct", &direct)?;
        node.enter()?;
        measure("Service", &through)?;
        node.leave()?;
        group.finish();
    }
    criterion.final_summary();
    Ok(())
}
