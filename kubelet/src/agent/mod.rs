//! The agent: joins what decides and what acts, for all pods that are bound to this node.
//!
//! ```text
//! Pod watch ──────▶ registry ──▶ a worker a pod ──▶ containerd, CNI, cgroups, volumes
//! containerd's events ──▶ wake the worker of that container
//! readiness ──────▶ the Node object and its Lease
//! API server ─────▶ server ──▶ logs, exec, attach, port-forward
//! ```
//!
//! Invariant: every task is owned by [`run`] and ends with its token; a kubelet that ends leaves its pods as they are, and the
//! next one takes them over by their labels in containerd.

mod backend;
mod config;
mod dial;
mod events;
mod garbage;
mod image_volumes;
mod node;
mod observe;
mod pods;
mod pulls;
mod record;
mod registry;
mod report;
mod resize;
mod resolved;
mod retry;
mod start;
mod stop;
mod streams;
mod worker;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use kube::Client;
use skep_client::EventRecorder;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use self::config::Config;
use self::node::Node;
use self::registry::Registry;
use crate::cgroups::Hierarchy;
use crate::cni::Cni;
use crate::images::{GarbagePolicy, Images};
use crate::logs::writer::Rotation;
use crate::node::{ImagesSource, Machine, NodeConfig, NodeImage, NodeRegistration, Readiness};
use crate::objects::Objects;
use crate::pod::lifecycle::Hooks;
use crate::pod::resolve::NodeContext;
use crate::pod::resolve::name_files::ResolverConfig;
use crate::probes::{Change, ExecError, ExecOutput, ExecRunner, Prober, Probes};
use crate::runtime::containerd::{Containerd, RuntimeError};
use crate::runtime::host::HostFacts;
use crate::sandbox::Sandboxes;
use crate::volumes::Volumes;

/// containerd's namespace: the one in which its CRI service keeps images.
const NAMESPACE: &str = "k8s.io";
/// The most that is kept of what a probe's or a hook's command prints.
const COMMAND_OUTPUT: usize = 10 << 10;
/// A command without a limit of its own, as a hook's, whose caller gives it up sooner.
const LONGEST_COMMAND: Duration = Duration::from_secs(24 * 3600);
/// How long the output of processes of exec that an earlier kubelet started is held open.
const RELEASE: Duration = Duration::from_secs(30);
/// How long the processes of probes and clients may take to be cleared away at the end.
const DRAIN: Duration = Duration::from_secs(5);
/// How many images are pulled at a time (upstream: `maxParallelImagePulls`).
const PARALLEL_PULLS: usize = 5;
/// How often the runtime and the network are asked whether they are ready.
const READINESS_PERIOD: Duration = Duration::from_secs(5);
/// How long a containerd that does not answer yet is waited for between two tries.
const CONNECT_PERIOD: Duration = Duration::from_secs(1);

/// Runs the kubelet until `stop`.
///
/// # Errors
/// When it can't start: its kubeconfig, its folders, its certificate, its address.
pub async fn run(config: Config, stop: CancellationToken) -> Result<()> {
    let name = match &config.node_name {
        Some(name) => name.clone(),
        None => rustix::system::uname().nodename().to_string_lossy().to_lowercase(),
    };
    for folder in [&config.root_dir, &config.run_dir, &config.pod_logs_dir] {
        std::fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    }
    let agent_name = concat!("skep-kubelet/", env!("CARGO_PKG_VERSION"));
    let client = skep_client::connect(&config.kubeconfig, agent_name).await?;
    let listener =
        TcpListener::bind(config.listen).await.with_context(|| format!("can't listen on {}", config.listen))?;
    let Some(containerd) = connect(&config.containerd_socket, &config.snapshotter, &stop).await else { return Ok(()) };
    let containerd = containerd.with_snapshot_labels(HashMap::from([(record::NODE.to_owned(), name.clone())]));
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    let (recorder, events) = EventRecorder::new(client.clone(), "kubelet", &name, stop.clone());
    tasks.spawn(async move {
        events.await;
        Ok(())
    });
    let (node, changes) = assemble(&config, name, client, containerd, recorder.clone(), &stop, &mut tasks).await?;
    let node = Arc::new(node);
    sweep(&node).await;
    let (readiness, ready) = watch::channel(Readiness::default());
    tasks.spawn(watch_readiness(node.clone(), readiness, stop.clone()));
    let registration =
        NodeRegistration::new(node.client.clone(), node_config(&config, &node.name), node.clone(), ready, recorder);
    let token = stop.clone();
    tasks.spawn(async move {
        registration.run(token).await;
        Ok(())
    });
    tasks.spawn(events::run(node.clone(), changes, stop.clone()));
    tasks.spawn(backend::serve(listener, node.clone(), config.clone(), stop.clone()));
    tasks.spawn(garbage::run(node.clone(), garbage_policy(&config), stop.clone()));
    tasks.spawn(pods::run(node.clone(), stop.clone()));
    info!(node = node.name, listen = %config.listen, "kubelet started");
    let mut first = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.unwrap_or_else(|error| Err(error.into()));
        if let Err(error) = &ended {
            warn!(%error, "a part of the kubelet ended");
        }
        first = first.and(ended);
        // One that ends by itself takes the others along: a kubelet is whole, or it is started again.
        stop.cancel();
    }
    node.probes.shutdown().await;
    if tokio::time::timeout(DRAIN, node.containerd.drained()).await.is_err() {
        warn!("processes of exec are left to the next kubelet");
    }
    first
}

/// Removes the snapshots that a kubelet which died left without an owner.
async fn sweep(node: &Node) {
    let swept = match node.volumes.list_uids().await {
        Ok(pods) => node.containerd.sweep_snapshots(&pods).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match swept {
        Ok(0) => {}
        Ok(swept) => info!(swept, "snapshots that nothing uses removed"),
        Err(error) => warn!(%error, "snapshots that nothing uses can't be looked for"),
    }
}

async fn connect(socket: &Path, snapshotter: &str, stop: &CancellationToken) -> Option<Containerd> {
    loop {
        let error = match Containerd::connect(socket, NAMESPACE, snapshotter).await {
            Ok(containerd) => match containerd.version().await {
                Ok(version) => {
                    info!(version, socket = %socket.display(), "containerd answers");
                    return Some(containerd);
                }
                Err(error) => error,
            },
            Err(error) => error,
        };
        warn!(%error, "waiting for containerd");
        tokio::select! {
            () = stop.cancelled() => return None,
            () = tokio::time::sleep(CONNECT_PERIOD) => {}
        }
    }
}

/// Makes the parts that act; tasks that they need are spawned into `tasks`.
async fn assemble(
    config: &Config,
    name: String,
    client: Client,
    containerd: Containerd,
    recorder: EventRecorder,
    stop: &CancellationToken,
    tasks: &mut JoinSet<Result<()>>,
) -> Result<(Node, mpsc::Receiver<Change>)> {
    let images = Images::connect(&config.containerd_socket, NAMESPACE, &config.snapshotter, PARALLEL_PULLS).await?;
    let images = images.with_access_records(&config.root_dir.join("image_manager"));
    let cni = Cni::new(config.cni_conf_dir.clone(), config.cni_bin_dirs.clone(), config.root_dir.join("cni"));
    let objects = Arc::new(Objects::new(client.clone()));
    let (watched, token) = (objects.clone(), stop.clone());
    tasks.spawn(async move {
        watched.run(token).await;
        Ok(())
    });
    let run_exec = Arc::new(ExecInContainer { containerd: containerd.clone(), fifos: config.run_dir.join("exec") });
    let prober = Arc::new(Prober::new(run_exec)?);
    let (probes, changes) = Probes::new(prober.clone(), recorder.clone(), stop.clone());
    let machine = Machine::read(&config.root_dir).context("can't read the machine's facts")?;
    let (readers, token) = (Containerd::release_execs(&config.run_dir.join("exec")), stop.clone());
    tasks.spawn(async move {
        // Long enough for every start that an earlier kubelet asked for.
        let _ = token.run_until_cancelled(tokio::time::sleep(RELEASE)).await;
        drop(readers);
        token.cancelled().await;
        Ok(())
    });
    for folder in ["attach", "exec"] {
        let folder = config.run_dir.join(folder);
        std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    }
    let host = HostFacts::detect();
    let node = Node {
        context: context(config, &name, &machine, &host),
        addresses: config.node_ips.clone(),
        volumes: Volumes::new(&config.root_dir, objects.clone()),
        sandboxes: Sandboxes::new(&config.run_dir, cni.clone()),
        cgroups: Hierarchy::detect(Path::new("/sys/fs/cgroup"), &config.cgroup_root),
        hooks: Hooks::new(prober, recorder.clone()),
        host,
        root: config.root_dir.clone(),
        run: config.run_dir.clone(),
        logs: config.pod_logs_dir.clone(),
        rotation: Rotation { max_bytes: config.container_log_max_size, max_files: config.container_log_max_files },
        binary: std::env::current_exe().context("can't find the own program")?,
        pods: Registry::default(),
        name,
        client,
        containerd,
        images,
        objects,
        probes,
        recorder,
        cni,
        followers: TaskTracker::new(),
    };
    Ok((node, changes))
}

/// Asks the runtime and the network whether they are ready, for as long as the kubelet runs.
async fn watch_readiness(node: Arc<Node>, readiness: watch::Sender<Readiness>, stop: CancellationToken) -> Result<()> {
    let mut period = tokio::time::interval(READINESS_PERIOD);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = period.tick() => {}
        }
        let version = node.containerd.version().await;
        let seen = Readiness {
            runtime: version.as_ref().err().map(ToString::to_string),
            network: node.cni.status().await.err(),
            runtime_version: version.ok(),
        };
        readiness.send_if_modified(|known| std::mem::replace(known, seen.clone()) != seen);
    }
}

fn node_config(config: &Config, name: &str) -> NodeConfig {
    let defaults = NodeConfig::new(name, config.root_dir.clone());
    NodeConfig {
        eviction: config.eviction_hard.unwrap_or(defaults.eviction),
        node_ips: config.node_ips.clone(),
        port: config.listen.port(),
        max_pods: config.max_pods,
        labels: config.node_labels.iter().cloned().collect(),
        ..defaults
    }
}

/// When unused images are removed.
fn garbage_policy(config: &Config) -> GarbagePolicy {
    GarbagePolicy {
        high_percent: config.image_gc_high_threshold,
        low_percent: config.image_gc_low_threshold.min(config.image_gc_high_threshold),
        ..GarbagePolicy::default()
    }
}

/// What containers are told of the node.
fn context(config: &Config, name: &str, machine: &Machine, host: &HostFacts) -> NodeContext {
    let node_config = node_config(config, name);
    let resolver = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
    NodeContext {
        hostname: name.to_owned(),
        addresses: config.node_ips.clone(),
        allocatable: crate::node::amounts(&node_config, machine),
        memory_capacity: machine.memory_bytes,
        capabilities: host.capabilities.iter().map(|name| (*name).to_owned()).collect(),
        cluster_domain: config.cluster_domain.clone(),
        cluster_dns: config.cluster_dns.clone(),
        resolver: ResolverConfig::parse(&resolver),
        seccomp_default: false,
    }
}

/// Runs the commands of probes and hooks.
struct ExecInContainer {
    containerd: Containerd,
    fifos: PathBuf,
}

#[async_trait]
impl ExecRunner for ExecInContainer {
    async fn run(&self, id: &str, command: &[String], timeout: Option<Duration>) -> Result<ExecOutput, ExecError> {
        let timeout = timeout.unwrap_or(LONGEST_COMMAND);
        let ran = self.containerd.run_collect(&self.fifos, id, command.to_vec(), COMMAND_OUTPUT, timeout).await;
        match ran {
            Ok(ran) => Ok(ExecOutput {
                exit_code: i32::try_from(ran.exit_code).unwrap_or(i32::MAX),
                output: String::from_utf8_lossy(&ran.output).into_owned(),
            }),
            Err(RuntimeError::TimedOut { .. }) => Err(ExecError::TimedOut),
            Err(error) => Err(ExecError::Failed(error.to_string())),
        }
    }
}

#[async_trait]
impl ImagesSource for Node {
    async fn images(&self) -> Result<Vec<NodeImage>, String> {
        let images = self.images.list().await.map_err(|error| error.to_string())?;
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Ok(images
            .into_iter()
            .map(|image| NodeImage { size_bytes: size(image.size_bytes), names: image.names })
            .collect())
    }
}
