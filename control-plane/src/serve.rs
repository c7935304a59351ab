//! `skep-control-plane serve`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::{SignedDuration, Timestamp};
use skep_apiserver::pki::Pki;
use skep_apiserver::rest::Ranges;
use skep_apiserver::{ApiServer, Config};
use skep_store::Store;
use skep_store::embedded::{Embedded, Options};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{credentials, managers};

/// How the control plane serves.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Keys, certificates and the embedded store live here.
    #[arg(long, env = "SKEP_DATA_DIR", default_value = "/var/lib/skep")]
    pub(crate) data_dir: PathBuf,
    /// The store: `embedded` (in the data directory) or `embedded:DIRECTORY`.
    #[arg(long, env = "SKEP_STORE", default_value = "embedded")]
    store: String,
    /// Where the API is served; given several times, on each. The administrator's kubeconfig names the first.
    #[arg(long, default_value = "0.0.0.0:6443")]
    listen: Vec<SocketAddr>,
    /// The address by which nodes and pods reach the API; the first listening address by default.
    #[arg(long)]
    advertise_address: Option<IpAddr>,
    /// Further names and addresses in the serving certificate.
    #[arg(long = "san")]
    sans: Vec<String>,
    /// Addresses of Services.
    #[arg(long, default_value = "10.96.0.0/16")]
    service_cluster_ip_range: String,
    /// The pods' network, of which each node gets a part; none leaves podCIDRs to others.
    #[arg(long, default_value = "10.244.0.0/16")]
    pub(crate) cluster_cidr: String,
    /// How long nothing may be heard of a node before it is called unreachable.
    #[arg(long, default_value = "50s", value_parser = duration)]
    pub(crate) node_monitor_grace_period: Duration,
    /// Runs no controllers in this process.
    #[arg(long)]
    pub(crate) no_controllers: bool,
    /// Runs no scheduler in this process.
    #[arg(long)]
    pub(crate) no_scheduler: bool,
    /// Ports of NodePort Services.
    #[arg(long, default_value = "30000-32767")]
    service_node_port_range: String,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(args: &Args) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("can't start the runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: &Args) -> Result<()> {
    let ranges = Ranges::new(&args.service_cluster_ip_range, ports(&args.service_node_port_range)?)
        .map_err(anyhow::Error::msg)?;
    let (first, further) = args.listen.split_first().context("--listen: an address is needed")?;
    let advertise = args.advertise_address.unwrap_or_else(|| reachable(*first));
    let mut names = args.sans.clone();
    names.push(advertise.to_string());
    names.extend(
        args.listen.iter().filter(|listen| !listen.ip().is_unspecified()).map(|listen| listen.ip().to_string()),
    );
    names.push(ranges.api_server().to_string());
    let pki = Pki::open_or_create(&args.data_dir.join("pki"), &names, Timestamp::now())?;
    let pki = Arc::new(pki);
    let store = open(args)?;
    let shutdown = CancellationToken::new();
    let config = Config { store, pki: pki.clone(), listen: *first, advertise, ranges };
    let server = ApiServer::start(config, shutdown.clone()).await?;
    for address in further {
        server.listen(*address).await?;
    }
    server.ready().await;
    // One that listens everywhere is found at the address that it advertises.
    let host = if first.ip().is_unspecified() { advertise } else { first.ip() };
    // Written last: whoever waits for this file finds a server that is ready.
    credentials::admin(&pki, &args.data_dir, SocketAddr::new(host, server.address.port()))?;
    let mut managed = managers::start(args, &server, &pki, &shutdown)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping");
    shutdown.cancel();
    while managed.join_next().await.is_some() {}
    server.stop().await;
    Ok(())
}

fn open(args: &Args) -> Result<Arc<dyn Store>> {
    let directory = match args.store.split_once(':') {
        None if args.store == "embedded" => args.data_dir.join("store"),
        Some(("embedded", directory)) if !directory.is_empty() => PathBuf::from(directory),
        _ => bail!("--store {}: only `embedded` and `embedded:DIRECTORY` are known", args.store),
    };
    let store = Embedded::open(&directory, Options::default())
        .with_context(|| format!("can't open the store in {}", directory.display()))?;
    Ok(Arc::new(store))
}

fn ports(range: &str) -> Result<std::ops::RangeInclusive<u16>> {
    let parsed =
        range.split_once('-').and_then(|(low, high)| Some((low.parse::<u16>().ok()?, high.parse::<u16>().ok()?)));
    match parsed {
        Some((low, high)) if 0 < low && low < high => Ok(low..=high),
        _ => bail!("--service-node-port-range {range}: two ports, such as 30000-32767"),
    }
}

/// A time such as `50s` or `1m30s`.
fn duration(text: &str) -> Result<Duration> {
    let duration: SignedDuration = text.parse().context("not a duration, such as 50s")?;
    Duration::try_from(duration).context("a duration must not be negative")
}

/// Where a server that listens everywhere says it is: loopback, until told otherwise.
fn reachable(listen: SocketAddr) -> IpAddr {
    if listen.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { listen.ip() }
}
