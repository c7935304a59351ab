//! `skep-ebpf-proxy`: runs the agent, or shows what the kernel has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use skep_ebpf_common::{Endpoint, TCP};
use skep_ebpf_proxy::compile::ServiceState;
use skep_ebpf_proxy::dns::{self, Listeners, Name, Publisher, Upstream};
use skep_ebpf_proxy::kernel::{self, Maps};
use skep_ebpf_proxy::pods::{Cidr, Pods, routes};
use skep_ebpf_proxy::{agent, cni, object};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The network namespace of the node: the one that this process is in.
const NETNS: &str = "/proc/self/ns/net";
/// What is logged where `RUST_LOG` says nothing: the name server's crates log each question.
const LOGGED: &str = "info,hickory_server=warn,hickory_net=warn,hickory_resolver=warn";

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
    /// Shows which sockets talk to which backend for which service.
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
    /// The link to other nodes, whose MTU the pods get; else the default route's.
    #[arg(long)]
    uplink: Option<String>,
    /// The networks of all pods: what leaves them is to get the node's address. May be repeated.
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
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
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
    let maps = kernel::attach(&object, bpf_dir, &args.cgroup)?;
    tracing::info!(cgroup = %args.cgroup.display(), bpf_dir = %bpf_dir.display(), "programs attached");
    let agent_name = concat!("skep-ebpf-proxy/", env!("CARGO_PKG_VERSION"));
    if !args.cluster_cidr.is_empty() {
        tracing::warn!("--cluster-cidr has no effect yet: pods are not masqueraded");
    }
    let client = skep_client::connect(&args.kubeconfig, agent_name).await?;
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    if let Some(socket) = args.cni_socket {
        let pods = Arc::new(Pods::open(&args.pod_state_dir, NETNS.into(), args.uplink)?);
        let (server, token) = (Arc::clone(&pods), stop.clone());
        tasks.spawn(async move { cni::server::run(&socket, server, token).await.context("can't serve CNI calls") });
        let (client, own, token) = (client.clone(), args.node_name.clone(), stop.clone());
        tasks.spawn(async move {
            routes::run(client, &own, pods, token).await;
            Ok(())
        });
    }
    let names = serve_names(args.names, &mut tasks, &stop).await?;
    let state = ServiceState { node_name: args.node_name, node_addresses: args.node_ips, ..ServiceState::default() };
    let mut running = std::pin::pin!(agent::run(client, state, maps, names, stop.clone()));
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
        for (_, backend) in entries.slots.iter().filter(|(key, _)| key.service == service.id) {
            match entries.backends.get(backend) {
                Some(endpoint) => println!("  {}", shown(endpoint)),
                None => println!("  backend {backend} is unknown"),
            }
        }
    }
    Ok(())
}

fn show_backends(bpf_dir: &Path) -> anyhow::Result<()> {
    for (id, endpoint) in &Maps::open(bpf_dir)?.entries()?.backends {
        println!("{} id={id}", shown(endpoint));
    }
    Ok(())
}

fn show_conntrack(bpf_dir: &Path) -> anyhow::Result<()> {
    for (key, service) in Maps::open(bpf_dir)?.connections()? {
        println!("socket={} {} via {}", key.cookie, shown(&key.backend), shown(&service));
    }
    Ok(())
}

fn shown(endpoint: &Endpoint) -> String {
    let address = Ipv6Addr::from(endpoint.address);
    let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
    let protocol = if endpoint.protocol == TCP { "TCP" } else { "UDP" };
    format!("{protocol} {}", SocketAddr::new(address, u16::from_be_bytes(endpoint.port)))
}
