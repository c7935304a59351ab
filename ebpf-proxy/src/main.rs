//! `skep-ebpf-proxy`: runs the agent, or shows what the kernel has.

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use skep_ebpf_common::{DIRECT, Endpoint, FIN, ICMP, MASQUERADE, ON_THIS_NODE, REPLY, RST, SEEN, TCP, Tuple, mapped};
use skep_ebpf_proxy::compile::{Entries, ServiceState};
use skep_ebpf_proxy::dns::{self, Listeners, Name, Publisher, Upstream};
use skep_ebpf_proxy::kernel::{self, Maps, Uplink};
use skep_ebpf_proxy::pods::{Cidr, Pods, forward, must_be_ethernet, routes};
use skep_ebpf_proxy::{agent, cni, nodes, object};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The network namespace of the node: the one that this process is in.
const NETNS: &str = "/proc/self/ns/net";
/// What is logged where `RUST_LOG` says nothing. The name server's crates log each question, and the client each failure that the
/// watches log as well.
const LOGGED: &str = "info,hickory_server=warn,hickory_net=warn,hickory_resolver=warn,kube_client::client=off";

/// Serves Kubernetes Services on this node by eBPF programs.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// The folder of this node on a mounted bpffs, where maps and links are pinned.
    #[arg(long, global = true, default_value = "/sys/fs/bpf/skep")]
    bpf_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the agent until SIGTERM; its programs stay attached then.
    Run(Box<Run>),
    /// Detaches the programs, removes the maps and takes the name server's address from the loopback link.
    Detach,
    /// Shows the services that the kernel knows.
    Services,
    /// Shows the backends that the kernel knows.
    Backends,
    /// Shows which sockets talk to which backend for which service, and the flows that are translated at the uplink.
    Conntrack,
}

#[derive(Args)]
struct Run {
    /// The kubeconfig file.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// This node's name.
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// This node's IPv4 addresses, on which node ports are served.
    #[arg(long = "node-ip", value_delimiter = ',')]
    node_ips: Vec<Ipv4Addr>,
    /// The cgroup v2 folder whose processes get Services: the node's own.
    #[arg(long, default_value = "/sys/fs/cgroup")]
    cgroup: PathBuf,
    /// The eBPF object, where it is not in the binary or beside it.
    #[arg(long)]
    ebpf_object: Option<PathBuf>,
    /// Serves `skep-cni` on this unix socket and routes to other nodes' pods; without it pods' links are someone else's.
    #[arg(long)]
    cni_socket: Option<PathBuf>,
    /// Where the pods' addresses are kept.
    #[arg(long, default_value = "/var/lib/skep/pods")]
    pod_state_dir: PathBuf,
    /// The link to other nodes and the outside: node ports are served on it, pods that leave the cluster get the node's address
    /// there, and pods get its MTU. Without it pods have the MTU of the default route's link.
    #[arg(long)]
    uplink: Option<String>,
    /// The networks of all pods: what leaves them gets the node's address. May be repeated; none: nothing does.
    #[arg(long, value_delimiter = ',')]
    cluster_cidr: Vec<Cidr>,
    #[command(flatten)]
    names: Names,
}

/// The cluster's names.
#[derive(Args)]
struct Names {
    /// Serves names on this address and port, UDP and TCP; an IPv4 link-local address is given to the node's loopback link.
    /// May be repeated; none: names are not served.
    #[arg(long, value_delimiter = ',')]
    dns_listen: Vec<SocketAddr>,
    /// The cluster's domain.
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: Name,
    /// Who is asked for names outside of the cluster's domain, as an address with or without a port; else the name servers in
    /// /etc/resolv.conf. May be repeated.
    #[arg(long, value_delimiter = ',', value_parser = server)]
    dns_upstream: Vec<SocketAddr>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| LOGGED.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let cli = Cli::parse();
    match cli.command {
        Command::Run(args) => run(*args, &cli.bpf_dir).await,
        Command::Detach => {
            kernel::detach(&cli.bpf_dir)?;
            Ok(dns::address::remove(NETNS.as_ref()).await?)
        }
        Command::Services => show_services(&cli.bpf_dir),
        Command::Backends => show_backends(&cli.bpf_dir),
        Command::Conntrack => show_conntrack(&cli.bpf_dir),
    }
}

async fn run(args: Run, bpf_dir: &Path) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    let object = object::find(args.ebpf_object.as_deref())?;
    let uplink = match (&args.uplink, args.node_ips.first()) {
        (Some(link), Some(address)) => Some(Uplink { link: link.clone(), address: *address }),
        (Some(_), None) => bail!("--uplink needs --node-ip: the address that translated packets are sent from"),
        (None, _) if !args.cluster_cidr.is_empty() => {
            bail!("--cluster-cidr needs --uplink: pods are masqueraded there")
        }
        (None, _) => None,
    };
    if let Some(uplink) = &uplink {
        must_be_ethernet(NETNS.as_ref(), &uplink.link).await.context("the uplink can't be used")?;
        forward()?;
    }
    let (programs, maps) = kernel::load(&object, bpf_dir, &args.cgroup, uplink.as_ref())?;
    let waiting = if programs.replace_another_layout()? {
        tracing::info!(
            "an agent with another layout of the maps was here: its programs serve until the new maps are filled"
        );
        Some(programs)
    } else {
        programs.attach()?;
        tracing::info!(cgroup = %args.cgroup.display(), bpf_dir = %bpf_dir.display(), "programs attached");
        None
    };
    let agent_name = concat!("skep-ebpf-proxy/", env!("CARGO_PKG_VERSION"));
    let client = skep_client::connect(&args.kubeconfig, agent_name).await?;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let (sender, node_watch) = watch::channel(None);
    if args.cni_socket.is_some() || !args.cluster_cidr.is_empty() {
        let (client, token) = (client.clone(), stop.clone());
        tasks.spawn(async move {
            nodes::run(client, sender, token).await;
            Ok(())
        });
    }
    // Without CNI calls no pod has a port of the node.
    let mut host_ports = watch::channel(Vec::new()).1;
    if let Some(socket) = args.cni_socket {
        let pods = Arc::new(Pods::open(&args.pod_state_dir, NETNS.into(), args.uplink)?);
        host_ports = pods.host_ports();
        let (server, token) = (Arc::clone(&pods), stop.clone());
        tasks.spawn(async move { cni::server::run(&socket, server, token).await.context("can't serve CNI calls") });
        let (watched, own, token) = (node_watch.clone(), args.node_name.clone(), stop.clone());
        tasks.spawn(async move {
            routes::run(watched, &own, pods, token).await;
            Ok(())
        });
    }
    let names = serve_names(args.names, &mut tasks, &stop).await?;
    let state = ServiceState {
        node_name: args.node_name,
        node_addresses: args.node_ips,
        cluster_networks: args.cluster_cidr,
        ..ServiceState::default()
    };
    let sources = agent::Sources { client, nodes: node_watch, host_ports };
    let mut running = std::pin::pin!(agent::run(sources, state, maps, waiting, names, stop.clone()));
    tokio::select! {
        result = &mut running => return Ok(result?),
        Some(ended) = tasks.join_next() => return ended?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    running.await?;
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

/// Starts to serve names where it is asked for, and says where to put them.
async fn serve_names(
    args: Names,
    tasks: &mut JoinSet<anyhow::Result<()>>,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Publisher>> {
    if args.dns_listen.is_empty() {
        return Ok(None);
    }
    let server: Vec<IpAddr> = args.dns_listen.iter().map(SocketAddr::ip).collect();
    dns::address::add(NETNS.as_ref(), &server).await?;
    let listeners = Listeners::bind(&args.dns_listen).await?;
    let servers = if args.dns_upstream.is_empty() {
        dns::nameservers("/etc/resolv.conf".as_ref(), &args.dns_listen).unwrap_or_else(|error| {
            tracing::warn!(%error, "/etc/resolv.conf can't be read: names outside of the cluster can't be resolved");
            Vec::new()
        })
    } else {
        args.dns_upstream
    };
    tracing::info!(?servers, "names outside of the cluster are asked of these servers");
    let upstream = Upstream::new(&servers).context("can't ask name servers")?;
    let (zones, watched) = watch::channel(None);
    let (domain, token) = (args.cluster_domain.clone(), stop.clone());
    tasks.spawn(async move { Ok(listeners.serve(domain, watched, upstream, token).await?) });
    Ok(Some(Publisher { domain: args.cluster_domain, server, zones }))
}

/// An address, with the port of name servers where none is said.
fn server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53));
    address.or_else(|_| text.parse()).map_err(|_| format!("{text:?} is no address"))
}

fn show_services(bpf_dir: &Path) -> anyhow::Result<()> {
    let entries = Maps::open(bpf_dir)?.entries()?;
    for (frontend, service) in &entries.services {
        println!("{} id={} affinity={}s", shown(frontend), service.id, service.affinity_seconds);
        show_slots(&entries, service.id);
        if let Some(external) = entries.externals.get(frontend).filter(|external| external.id != service.id) {
            println!("  from outside id={}", external.id);
            show_slots(&entries, external.id);
        }
    }
    Ok(())
}

fn show_slots(entries: &Entries, service: u32) {
    for (_, backend) in entries.slots.iter().filter(|(key, _)| key.service == service) {
        match entries.backends.get(backend) {
            Some(backend) => println!("  {}", shown(&backend.endpoint)),
            None => println!("  backend {backend} is unknown"),
        }
    }
}

fn show_backends(bpf_dir: &Path) -> anyhow::Result<()> {
    for (id, backend) in &Maps::open(bpf_dir)?.entries()?.backends {
        let place = if backend.flags & ON_THIS_NODE != 0 { "here" } else { "elsewhere" };
        println!("{} id={id} {place}", shown(&backend.endpoint));
    }
    Ok(())
}

fn show_conntrack(bpf_dir: &Path) -> anyhow::Result<()> {
    let maps = Maps::open(bpf_dir)?;
    for (key, service) in maps.connections()? {
        println!("socket={} {} via {}", key.cookie, shown(&key.backend), shown(&service));
    }
    let now = kernel::monotonic_ns();
    for (key, flow) in maps.flows()? {
        let end = |address: [u8; 4], port, protocol| {
            shown(&Endpoint { address: mapped(address), port, protocol, padding: 0 })
        };
        let pair = |tuple: &Tuple| {
            let to = end(tuple.destination, tuple.destination_port, key.protocol);
            format!(
                "{} > {}",
                end(tuple.source, tuple.source_port, key.protocol),
                to.split_once(' ').map_or("", |(_, to)| to)
            )
        };
        let kind = match flow.kind {
            MASQUERADE => "masquerade",
            DIRECT => "direct",
            _ => "node-port",
        };
        let direction = if flow.state & REPLY != 0 { "reply" } else { "forward" };
        let names = [(SEEN, "seen"), (FIN, "closed"), (RST, "reset")];
        let state: Vec<&str> = names.iter().filter(|(bit, _)| flow.state & bit != 0).map(|(_, name)| *name).collect();
        let idle = now.saturating_sub(flow.used_ns) / 1_000_000_000;
        println!("{kind} {direction} {} => {} {} idle={idle}s", pair(&key.tuple), pair(&flow.to), state.join("+"));
    }
    Ok(())
}

fn shown(endpoint: &Endpoint) -> String {
    let address = Ipv6Addr::from(endpoint.address);
    let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
    let protocol = match endpoint.protocol {
        TCP => "TCP",
        ICMP => "ICMP",
        _ => "UDP",
    };
    format!("{protocol} {}", SocketAddr::new(address, u16::from_be_bytes(endpoint.port)))
}
