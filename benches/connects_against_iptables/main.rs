//! TCP connections through a Service: by the eBPF programs, by iptables rules in kube-proxy's shape, and to the endpoint itself, by turns in one run.
//!
//! `cargo run --release -p skep-benches --bin connects-against-iptables -- [--connects N] [--turns N] [--json]`. Needs root, `cargo xtask build-ebpf`,
//! iptables and iproute2. One client connects, hears that the server closed, closes by a reset (no port waits), and
//! connects again, each time to another Service, with the endpoints in another network namespace behind a veth. The rules stand in a namespace of their own, which has connection tracking because
//! of them; the other sides share one without. The client is as a node's own process: its packets meet the rules once, in OUTPUT.

mod pin;
mod rules;
mod world;

use std::io::{Seek as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Parser;
use rustix::io::read;
use rustix::net::{AddressFamily, SocketType, connect, ipproto, socket, sockopt};
use skep_benches::netns::Netns;
use skep_benches::node::Node;
use skep_benches::sample::{Record, Sample};
use skep_benches::services::{ENDPOINTS, PORT, Services, TARGET_PORT, cluster_ip, endpoint, sequence};
use skep_ebpf_proxy::compile::Entries;

use crate::world::Server;

const WHAT: &str = "TCP connections through a Service";
const DATAGRAM: &str = "connect(2) of a UDP socket";
const LOADING: &str = "loading all Services";
const DIRECT: &str = "direct";
const EBPF: &str = "eBPF";
/// Both backends of Debian's iptables: nf_tables, which is its default, and the old one.
const IPTABLES: [&str; 2] = ["iptables-nft", "iptables-legacy"];

/// eBPF beside iptables.
#[derive(Parser)]
struct Args {
    /// Connections of each side in a turn.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connects: u32,
    /// Turns of each side at each number of Services.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100))]
    turns: u32,
    /// Print a line of JSON for each side and number of Services, in the place of the tables.
    #[arg(long)]
    json: bool,
}

/// Datagram sockets' calls that are timed together: the clock takes as long as a part of one.
const TOGETHER: usize = 100;

/// Someone who connects.
struct Side<'a> {
    name: &'static str,
    netns: &'a Netns,
    /// Its calls go through the programs at this node's cgroup.
    node: Option<&'a Node>,
    /// Whom it connects to: a Service by a random number.
    address: fn(u32, u32) -> SocketAddr,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let node = Node::new()?;
    let server = Server::start()?;
    let plain = server.client(0)?;
    let ruled = [server.client(1)?, server.client(2)?];
    let mut maps = node.attach()?;
    let mut now = Entries::default();
    let direct = |number, services| (endpoint(number % services, (number >> 16) % ENDPOINTS), TARGET_PORT).into();
    let through = |number, services| (cluster_ip(number % services), PORT).into();
    let mut sides = vec![
        Side { name: DIRECT, netns: &plain, node: None, address: direct },
        Side { name: EBPF, netns: &plain, node: Some(&node), address: through },
    ];
    sides.extend(IPTABLES.iter().zip(&ruled).map(|(name, netns)| Side { name, netns, node: None, address: through }));
    for services in [1, 1_000, 10_000] {
        let wanted = Services { count: services, protocol: "UDP", external: false }.entries()?;
        maps.update(&now, &wanted)?;
        now = wanted;
        let mut datagrams = [Sample::default(), Sample::default()];
        for turn in 0..args.turns {
            for (side, sample) in sides.iter().zip(&mut datagrams) {
                sample.extend(side.turn(u64::from(turn) + 1, services, args.connects, datagrams_connect)?);
            }
        }
        let wanted = Services { count: services, protocol: "TCP", external: false }.entries()?;
        maps.update(&now, &Entries::default())?;
        let begun = Instant::now();
        maps.update(&Entries::default(), &wanted)?;
        let mut loading = vec![(EBPF, begun.elapsed())];
        now = wanted;
        for (name, netns) in IPTABLES.iter().zip(&ruled) {
            loading.push((name, restore(netns, name, services)?));
        }
        let mut samples = vec![Sample::default(); sides.len()];
        for turn in 0..args.turns {
            for (side, sample) in sides.iter().zip(&mut samples) {
                sample.extend(side.turn(u64::from(turn) + 1, services, args.connects, connect_all)?);
            }
        }
        report(&args, services, &sides, &samples, &loading)?;
        report_datagrams(&args, services, &datagrams)?;
    }
    Ok(())
}

impl Side<'_> {
    fn turn(
        &self,
        seed: u64,
        services: u32,
        connects: u32,
        connect: fn(&[SocketAddr]) -> Result<Sample>,
    ) -> Result<Sample> {
        let addresses: Vec<SocketAddr> =
            sequence(seed).take(connects as usize).map(|number| (self.address)(number, services)).collect();
        if let Some(node) = self.node {
            node.enter()?;
        }
        let sample = self.netns.within(|| connect(&addresses));
        if let Some(node) = self.node {
            node.leave()?;
        }
        sample
    }
}

/// The time of connect(2) for each address; `elapsed` has making the sockets, hearing that the server closed, and closing too.
fn connect_all(addresses: &[SocketAddr]) -> Result<Sample> {
    pin::to_first();
    let mut latencies = Vec::with_capacity(addresses.len());
    let begun = Instant::now();
    for address in addresses {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::TCP))?;
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        let asked = Instant::now();
        if let Err(error) = connect(&socket, address) {
            bail!("can't connect to {address}: {error}");
        }
        latencies.push(asked.elapsed());
        // The server closes: connections never queue at it, where one too many would wait for a second.
        while read(&socket, &mut [0; 1])? > 0 {}
    }
    Ok(Sample { latencies, elapsed: begun.elapsed() })
}

/// The mean time of connect(2) of one datagram socket, which sends nothing, over each hundred addresses.
fn datagrams_connect(addresses: &[SocketAddr]) -> Result<Sample> {
    pin::to_first();
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut sample = Sample::default();
    for some in addresses.chunks(TOGETHER) {
        let asked = Instant::now();
        for address in some {
            socket.connect(address)?;
        }
        let elapsed = asked.elapsed();
        sample.extend(Sample { latencies: vec![elapsed / some.len() as u32], elapsed });
    }
    Ok(sample)
}

/// Puts the rules for these Services in the place of all others, and says how long it took.
fn restore(netns: &Netns, iptables: &str, services: u32) -> Result<Duration> {
    let mut input = tempfile::tempfile()?;
    input.write_all(rules::rules(services)?.as_bytes())?;
    input.rewind()?;
    let begun = Instant::now();
    netns.run(&format!("{iptables}-restore"), &[], input)?;
    Ok(begun.elapsed())
}

fn report(
    args: &Args,
    services: u32,
    sides: &[Side<'_>],
    samples: &[Sample],
    loading: &[(&str, Duration)],
) -> Result<()> {
    let measured: Vec<_> = samples.iter().map(Sample::measured).collect();
    ensure!(measured.iter().all(|measured| measured.per_second > 0.0), "a side connected never");
    if args.json {
        for (side, measured) in sides.iter().zip(&measured) {
            measured.record(WHAT, side.name, services.into()).print()?;
        }
        for (side, time) in loading {
            let p50_ns = time.as_secs_f64() * 1e9;
            Record { what: LOADING, side, size: services.into(), per_second: None, p50_ns, p99_ns: None }.print()?;
        }
        return Ok(());
    }
    let ours = sides.iter().zip(&measured).find(|(side, _)| side.name == EBPF).map_or(1.0, |(_, ours)| ours.per_second);
    println!(
        "{services} Services, {ENDPOINTS} endpoints each; {} connections of each side",
        args.connects * args.turns
    );
    println!("  {:<16} {:>12} {:>10} {:>10}   eBPF does", "", "connects/s", "p50", "p99");
    for (side, measured) in sides.iter().zip(&measured) {
        let (per_second, p50, p99) = (measured.per_second, measured.p50, measured.p99);
        println!("  {:<16} {per_second:>12.0} {p50:>10.1?} {p99:>10.1?}   {:.2} x", side.name, ours / per_second);
    }
    for (side, time) in loading {
        println!("  {LOADING} by {side}: {time:.1?}");
    }
    Ok(())
}

fn report_datagrams(args: &Args, services: u32, samples: &[Sample]) -> Result<()> {
    for (side, sample) in [DIRECT, EBPF].into_iter().zip(samples) {
        let p50 = sample.measured().p50;
        if args.json {
            let p50_ns = p50.as_secs_f64() * 1e9;
            let size = services.into();
            Record { what: DATAGRAM, side, size, per_second: None, p50_ns, p99_ns: None }.print()?;
        } else {
            println!("  {DATAGRAM} by {side}: {p50:.2?}");
        }
    }
    Ok(())
}
