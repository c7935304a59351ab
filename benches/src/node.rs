//! A node as far as the socket programs go: a cgroup that they are attached to, and a bpffs that their maps are pinned in.
//!
//! The bpffs is mounted in a mount namespace of the calling thread and those that it makes later, so that it goes with the process;
//! a cgroup that a killed bench left is removed by the next one.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use skep_ebpf_proxy::kernel::{self, Maps};
use skep_ebpf_proxy::object;
use tempfile::TempDir;

use crate::unshare;

/// What the names of the benches' cgroups begin with; the process's number follows.
const CGROUP: &str = "skep-bench-";

/// The cgroup and the bpffs.
pub struct Node {
    home: PathBuf,
    cgroup: PathBuf,
    bpf: TempDir,
    object: Vec<u8>,
}

impl Node {
    /// Made, with no program attached yet, and this process not in the cgroup.
    ///
    /// # Errors
    /// Without root, without a cgroup v2 tree, or when the eBPF object is not built.
    pub fn new() -> Result<Self> {
        let object = object::find(None)?.into_owned();
        let unified = Path::new("/sys/fs/cgroup/unified");
        let tree = if unified.is_dir() { unified } else { Path::new("/sys/fs/cgroup") };
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).context("there is no cgroup v2 tree")?;
        remove_left(tree);
        let cgroup = tree.join(format!("{CGROUP}{}", std::process::id()));
        fs::create_dir(&cgroup).with_context(|| format!("can't make {} (this needs root)", cgroup.display()))?;
        let node = Self { home: tree.join(own), cgroup, bpf: tempfile::tempdir()?, object };
        unshare::mounts().context("can't make a mount namespace")?;
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        rustix::mount::mount("bpf", node.bpf.path(), "bpf", MountFlags::empty(), None)
            .context("can't mount a bpffs")?;
        Ok(node)
    }

    /// Attaches the programs to the cgroup, over maps that are empty the first time.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(&self) -> Result<Maps> {
        Ok(kernel::attach(&self.object, &self.folder(), &self.cgroup, None)?)
    }

    /// Where maps and links are pinned.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.bpf.path().join("node")
    }

    /// The compiled programs.
    #[must_use]
    pub fn object(&self) -> &[u8] {
        &self.object
    }

    /// Moves this process into the cgroup: its calls go through the programs from now on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> Result<()> {
        enter(&self.cgroup)
    }

    /// Moves this process to where it was.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn leave(&self) -> Result<()> {
        enter(&self.home)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.leave();
        let _ = kernel::detach(&self.folder());
        let _ = rustix::mount::unmount(self.bpf.path(), UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.cgroup);
    }
}

fn enter(cgroup: &Path) -> Result<()> {
    let processes = cgroup.join("cgroup.procs");
    fs::write(&processes, std::process::id().to_string())
        .with_context(|| format!("can't write {}", processes.display()))
}

/// Removes the cgroups of benches that are no more.
fn remove_left(tree: &Path) {
    for entry in fs::read_dir(tree).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(CGROUP)).and_then(|id| id.parse::<u32>().ok());
        if process.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}
