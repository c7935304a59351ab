//! What a pod's containers share: network, IPC and UTS namespaces without a process to hold them, `/dev/shm`, and the
//! attachment to the pod network.
//!
//! Invariant: a sandbox is whole or it is not there. What was begun is marked on disk first and finished last, so that
//! after a crash or a reboot [`Sandboxes::find`] finds only whole ones, and [`Sandboxes::remove`] removes the rest.

mod capabilities;
mod namespaces;
mod sysctl;
mod unshare;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use self::capabilities::PortMapping;
use self::namespaces::{Inside, Kind};
use crate::cni::{Attach, Cni, CniError};
use crate::runtime::spec::PodNamespaces;

/// The size of `/dev/shm` that every runtime gives.
const DEFAULT_SHM_BYTES: u64 = 64 << 20;
const INTERFACE: &str = "eth0";
const STATE: &str = "sandbox.json";
const SHM: &str = "shm";

/// What a pod asks of its sandbox.
#[derive(Debug, Clone, Default)]
pub struct SandboxSpec {
    /// The pod's UID: names its folder and its attachment to the network.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Of the UTS namespace, unless the node's is used.
    pub hostname: String,
    /// The node's network and hostname.
    pub host_network: bool,
    /// The node's IPC and `/dev/shm`.
    pub host_ipc: bool,
    /// The node's processes.
    pub host_pid: bool,
    /// Kernel parameters of the pod's namespaces, by name.
    pub sysctls: Vec<(String, String)>,
    /// Of `/dev/shm`; none is 64 MiB.
    pub shm_bytes: Option<u64>,
    /// Ports of the node that lead into the pod (`hostPort`), for plugins with the capability `portMappings`.
    pub ports: Vec<PortMapping>,
    /// For plugins with the capabilities `bandwidth` and `io.kubernetes.cri.pod-annotations`.
    pub annotations: BTreeMap<String, String>,
}

/// A whole sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// What the pod's containers join.
    pub namespaces: PodNamespaces,
    /// The pod's `/dev/shm` on the node; none is the node's own.
    pub shm: Option<PathBuf>,
    /// The pod's addresses, the primary one first; empty for `hostNetwork`.
    pub addresses: Vec<IpAddr>,
}

/// Why a sandbox could not be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The network's plugins failed.
    #[error("failed to setup network for sandbox {uid:?}: {source}")]
    Network {
        /// The pod.
        uid: String,
        /// Why.
        source: CniError,
    },
    /// The network's plugins failed to undo it.
    #[error("failed to destroy network for sandbox {uid:?}: {source}")]
    NetworkRemoval {
        /// The pod.
        uid: String,
        /// Why.
        source: CniError,
    },
    /// A kernel parameter belongs to the node (upstream: `SysctlForbidden`).
    #[error("sysctl {0:?} is not in a namespace of the pod")]
    Sysctl(String),
    /// The UID can't name a folder.
    #[error("{0:?} is not a valid pod UID")]
    Uid(String),
    /// A file, mount or namespace.
    #[error("sandbox {uid:?}: {doing}: {source}")]
    Io {
        /// The pod.
        uid: String,
        /// What was done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// The sandboxes of a node.
#[derive(Debug, Clone)]
pub struct Sandboxes {
    run_dir: PathBuf,
    cni: Cni,
}

/// What is kept on disk. A sandbox whose state is not `ready` was begun and never finished.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    ready: bool,
    network: Option<PathBuf>,
    ipc: Option<PathBuf>,
    uts: Option<PathBuf>,
    host_pid: bool,
    shm: Option<PathBuf>,
    addresses: Vec<IpAddr>,
}

impl Sandboxes {
    /// Sandboxes below `<run_dir>/pods/<uid>`. Mounts made there must be seen by the container runtime.
    pub fn new(run_dir: &Path, cni: Cni) -> Self {
        Self { run_dir: run_dir.to_owned(), cni }
    }

    /// Makes a pod's sandbox, or returns the one that it has. One call a pod at a time.
    ///
    /// # Errors
    /// When a part of it can't be made; what was made is removed, or left for [`Self::remove`] if that fails as well.
    pub async fn create(&self, spec: &SandboxSpec) -> Result<Sandbox, SandboxError> {
        if let Some(sandbox) = self.find(&spec.uid).await? {
            return Ok(sandbox);
        }
        // What an earlier kubelet began, or a reboot left.
        self.remove(&spec.uid).await?;
        let made = self.make(spec).await;
        if made.is_err()
            && let Err(error) = self.remove(&spec.uid).await
        {
            tracing::warn!(uid = spec.uid, %error, "a half-made sandbox could not be removed; tried again later");
        }
        made
    }

    /// Finds a pod's sandbox as it is on disk, if it is whole and its mounts are still there.
    ///
    /// # Errors
    /// When its state can't be read.
    pub async fn find(&self, uid: &str) -> Result<Option<Sandbox>, SandboxError> {
        let folder = self.folder(uid)?;
        let found = blocking(move || find(&folder)).await;
        found.map_err(failed(uid, "reading its state"))
    }

    /// Removes a pod's sandbox, or what there is of one: network attachment, namespaces, `/dev/shm`, state.
    ///
    /// # Errors
    /// When a part of it can't be removed; it can be called again.
    pub async fn remove(&self, uid: &str) -> Result<(), SandboxError> {
        let folder = self.folder(uid)?;
        let network = folder.join(Kind::Network.name());
        let netns = namespaces::is_pinned(&network).then_some(network.as_path());
        let removed = self.cni.del(uid, netns).await;
        removed.map_err(|source| SandboxError::NetworkRemoval { uid: uid.to_owned(), source })?;
        blocking(move || clear(&folder)).await.map_err(failed(uid, "removing its namespaces"))
    }

    /// The UIDs of all sandboxes, those not whole among them.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub async fn list(&self) -> io::Result<Vec<String>> {
        let folder = self.run_dir.join("pods");
        blocking(move || {
            let entries = match fs::read_dir(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
                other => other?,
            };
            let uid = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().into_string().ok());
            entries.filter_map(|entry| uid(entry).transpose()).collect()
        })
        .await
    }

    async fn make(&self, spec: &SandboxSpec) -> Result<Sandbox, SandboxError> {
        let folder = self.folder(&spec.uid)?;
        let mut kinds = Kind::ALL.to_vec();
        kinds.retain(|kind| match kind {
            Kind::Network | Kind::Uts => !spec.host_network,
            Kind::Ipc => !spec.host_ipc,
        });
        let sysctls = sysctl::sysctls(&spec.sysctls, &kinds).map_err(SandboxError::Sysctl)?;
        let host = self.run_dir.join("host");
        let shm_bytes = spec.shm_bytes.unwrap_or(DEFAULT_SHM_BYTES);
        let (own, host_pid) = (kinds.clone(), spec.host_pid);
        let prepared = folder.clone();
        let begun = blocking(move || begin(&prepared, &host, &own, host_pid, shm_bytes)).await;
        let mut state = begun.map_err(failed(&spec.uid, "preparing its folder"))?;
        if !kinds.is_empty() {
            let inside = Inside { kinds, hostname: spec.hostname.clone(), sysctls };
            let pinned = namespaces::pin_new(&folder, inside).await;
            pinned.map_err(failed(&spec.uid, "making its namespaces"))?;
        }
        if let Some(netns) = state.network.as_deref().filter(|_| !spec.host_network) {
            let attach = Attach {
                container_id: &spec.uid,
                netns,
                interface: INTERFACE,
                args: capabilities::arguments(spec),
                capabilities: capabilities::capabilities(spec),
            };
            let attached = self.cni.add(&attach).await;
            state.addresses = attached.map_err(|source| SandboxError::Network { uid: spec.uid.clone(), source })?;
        }
        state.ready = true;
        let sandbox = state.sandbox();
        let finished = blocking(move || state.write(&folder)).await;
        finished.map_err(failed(&spec.uid, "writing its state"))?;
        Ok(sandbox)
    }

    fn folder(&self, uid: &str) -> Result<PathBuf, SandboxError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if uid.is_empty() || uid.starts_with('.') || !uid.bytes().all(plain) {
            return Err(SandboxError::Uid(uid.to_owned()));
        }
        Ok(self.run_dir.join("pods").join(uid))
    }
}

impl State {
    fn read(folder: &Path) -> io::Result<Option<Self>> {
        match fs::read(folder.join(STATE)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, folder: &Path) -> io::Result<()> {
        let temporary = folder.join("sandbox.json.new");
        fs::write(&temporary, serde_json::to_vec(self)?)?;
        fs::rename(temporary, folder.join(STATE))
    }

    fn sandbox(&self) -> Sandbox {
        let namespaces = PodNamespaces {
            network: self.network.clone(),
            ipc: self.ipc.clone(),
            uts: self.uts.clone(),
            host_pid: self.host_pid,
            target_pid: None,
        };
        Sandbox { namespaces, shm: self.shm.clone(), addresses: self.addresses.clone() }
    }
}

fn find(folder: &Path) -> io::Result<Option<Sandbox>> {
    let Some(state) = State::read(folder)?.filter(|state| state.ready) else { return Ok(None) };
    let pins = [&state.network, &state.ipc, &state.uts];
    let pinned = pins.into_iter().flatten().all(|path| namespaces::is_pinned(path));
    let shm = state.shm.iter().all(|path| namespaces::is_shm_mounted(path));
    Ok((pinned && shm).then(|| state.sandbox()))
}

/// Marks the sandbox as begun, mounts its `/dev/shm`, and says where its namespaces will be: the pod's `own` ones in its
/// folder, the others where the kubelet's own are pinned if the runtime doesn't share them.
fn begin(folder: &Path, host: &Path, own: &[Kind], host_pid: bool, shm_bytes: u64) -> io::Result<State> {
    fs::create_dir_all(folder)?;
    let place = |kind: Kind| -> io::Result<Option<PathBuf>> {
        if own.contains(&kind) {
            return Ok(Some(folder.join(kind.name())));
        }
        let pin_at = host.join(kind.name());
        Ok(namespaces::pin_own(kind, &pin_at)?.then_some(pin_at))
    };
    let shm = own.contains(&Kind::Ipc).then(|| folder.join(SHM));
    let state = State {
        ready: false,
        network: place(Kind::Network)?,
        ipc: place(Kind::Ipc)?,
        uts: place(Kind::Uts)?,
        host_pid,
        shm,
        addresses: vec![],
    };
    state.write(folder)?;
    if let Some(shm) = &state.shm {
        namespaces::mount_shm(shm, shm_bytes)?;
    }
    Ok(state)
}

fn clear(folder: &Path) -> io::Result<()> {
    for kind in Kind::ALL {
        namespaces::unpin(&folder.join(kind.name()))?;
    }
    namespaces::unmount_shm(&folder.join(SHM))?;
    for file in ["sandbox.json.new", STATE] {
        if let Err(error) = fs::remove_file(folder.join(file))
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
    }
    match fs::remove_dir(folder) {
        // Others keep files of the pod there as well.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Ok(()),
        other => other,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn failed(uid: &str, doing: &'static str) -> impl FnOnce(io::Error) -> SandboxError {
    move |source| SandboxError::Io { uid: uid.to_owned(), doing, source }
}
