//! `skep-ebpf-proxy`: runs the agent, or shows what the kernel has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use skep_ebpf_common::{Endpoint, TCP};
use skep_ebpf_proxy::compile::ServiceState;
use skep_ebpf_proxy::kernel::{self, Maps};
use skep_ebpf_proxy::pods::{Pods, routes};
use skep_ebpf_proxy::{agent, cni, object};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

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
    Run(Run),
    /// Detaches the programs and removes the maps.
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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let cli = Cli::parse();
    match cli.command {
        Command::Run(args) => run(args, &cli.bpf_dir).await,
        Command::Detach => Ok(kernel::detach(&cli.bpf_dir)?),
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
    let client = skep_client::connect(&args.kubeconfig, agent_name).await?;
    let stop = CancellationToken::new();
    let mut pod_tasks = JoinSet::new();
    if let Some(socket) = args.cni_socket {
        let pods = Arc::new(Pods::open(&args.pod_state_dir, "/proc/self/ns/net".into(), args.uplink)?);
        let (server, token) = (Arc::clone(&pods), stop.clone());
        pod_tasks.spawn(async move { cni::server::run(&socket, server, token).await.context("can't serve CNI calls") });
        let (client, own, token) = (client.clone(), args.node_name.clone(), stop.clone());
        pod_tasks.spawn(async move {
            routes::run(client, &own, pods, token).await;
            Ok(())
        });
    }
    let state = ServiceState { node_name: args.node_name, node_addresses: args.node_ips, ..ServiceState::default() };
    let mut running = std::pin::pin!(agent::run(client, state, maps, stop.clone()));
    tokio::select! {
        result = &mut running => return Ok(result?),
        Some(ended) = pod_tasks.join_next() => return ended?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    running.await?;
    while let Some(ended) = pod_tasks.join_next().await {
        ended??;
    }
    Ok(())
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
    format!("{protocol} {}", std::net::SocketAddr::new(address, u16::from_be_bytes(endpoint.port)))
}
