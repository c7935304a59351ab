//! `cargo xtask deploy`: a cluster on this machine. Run again, it is updated in place: processes are replaced, containers go on, data is kept.
//!
//! Nodes are network namespaces on one bridge, each with its own kubelet and network agent; all share one private containerd.
//! Invariant: everything that a deployment makes outside of its data directory has a name that begins with the cluster's,
//! and follows from the settings alone, so that `--down` finds it whatever became of the rest.

mod api;
mod build;
pub(crate) mod cgroups;
pub(crate) mod containerd;
mod down;
mod layout;
pub(crate) mod mounts;
pub(crate) mod network;
mod owner;
mod parts;
pub(crate) mod processes;
pub(crate) mod progress;
pub(crate) mod registry;
mod settings;
mod status;
pub(crate) mod subnet;
mod up;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub(crate) use api::Api;
pub(crate) use build::Profile;
pub(crate) use layout::Layout;
use parts::Part;
use settings::Wishes;
use subnet::Subnet;

/// What to deploy. What is not said is as it was at the last time, or the default.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many nodes [default: 2].
    #[arg(long)]
    nodes: Option<u8>,
    /// Where data, keys, logs and the kubeconfig are kept.
    #[arg(long, default_value = "/var/lib/skep")]
    data_dir: PathBuf,
    /// Where the API is served, besides the nodes' network [default: 127.0.0.1:6443].
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// The first part of every name of links, network namespaces and cgroups: clusters side by side need different ones [default: skep].
    #[arg(long)]
    name: Option<String>,
    /// The nodes' network [default: a free one, 172.30.0.0/24 at first].
    #[arg(long)]
    node_network: Option<Subnet>,
    /// The pods' network [default: 10.244.0.0/16].
    #[arg(long)]
    cluster_cidr: Option<Subnet>,
    /// Services' addresses [default: 10.96.0.0/16].
    #[arg(long)]
    service_cidr: Option<Subnet>,
    /// How the binaries are built.
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// Imports the images of Kubernetes' end-to-end suite, and serves them from a registry on the loopback: minutes the first time.
    #[arg(long)]
    suite_images: bool,
    /// Takes what is built as it is.
    #[arg(long)]
    no_build: bool,
    /// Takes the cluster away, data included.
    #[arg(long, conflicts_with = "status")]
    down: bool,
    /// Says what runs.
    #[arg(long)]
    status: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let data_dir = data_dir(args)?;
    if args.status {
        return status::run(&data_dir);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("network namespaces, mounts and cgroups need root");
    }
    if args.down {
        return down::run(&data_dir, args.name.as_deref());
    }
    up::tell(&up::run(args, &data_dir)?);
    Ok(())
}

/// Brings a cluster up, or up to date, for another command.
///
/// # Errors
/// When a step fails: its name, and the end of a log.
pub(crate) fn up(args: &Args) -> Result<Layout> {
    if !rustix::process::geteuid().is_root() {
        bail!("network namespaces, mounts and cgroups need root");
    }
    up::run(args, &data_dir(args)?)
}

/// Takes the cluster in a data directory away; where there is none, nothing happens.
///
/// # Errors
/// When something can't be ended or removed.
pub(crate) fn down(data_dir: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("network namespaces, mounts and cgroups need root");
    }
    down::run(data_dir, None)
}

/// The logs of a cluster's processes.
pub(crate) fn logs(layout: &Layout) -> Vec<PathBuf> {
    Part::all(layout).iter().map(|part| layout.log(&part.name())).collect()
}

impl Args {
    /// The cluster for the conformance suite: two nodes with the suite's images, and no name, port or network of a cluster that somebody uses.
    pub(crate) fn for_suite(data_dir: &Path, profile: Profile, no_build: bool) -> Self {
        Self {
            nodes: Some(2),
            data_dir: data_dir.to_owned(),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 16443))),
            name: Some("skepconf".to_owned()),
            node_network: None,
            cluster_cidr: Some(Subnet::new([10, 246, 0, 0], 16)),
            service_cidr: Some(Subnet::new([10, 106, 0, 0], 16)),
            profile,
            suite_images: true,
            no_build,
            down: false,
            status: false,
        }
    }

    fn wishes(&self) -> Wishes {
        Wishes {
            name: self.name.clone(),
            nodes: self.nodes,
            listen: self.listen,
            node_network: self.node_network,
            cluster_cidr: self.cluster_cidr,
            service_cidr: self.service_cidr,
        }
    }
}

/// The data directory as the kernel shows it in /proc, by which processes and mounts are compared.
fn data_dir(args: &Args) -> Result<PathBuf> {
    match args.data_dir.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(std::path::absolute(&args.data_dir)?),
        Err(error) => Err(error).with_context(|| format!("can't use {}", args.data_dir.display())),
    }
}
