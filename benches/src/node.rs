//! A node as far as the socket programs go: a cgroup that they are attached to, and a bpffs that their maps are pinned in.
//!
//! The bpffs is mounted nowhere but at a descriptor, so that it goes with the process; a cgroup that a killed bench left is removed
//! by the next one.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use skep_ebpf_proxy::kernel::{self, Maps};
use skep_ebpf_proxy::object;

/// What the names of the benches' cgroups begin with; the process's number follows.
const CGROUP: &str = "skep-bench-";

/// The cgroup and the bpffs.
pub struct Node {
    home: PathBuf,
    cgroup: PathBuf,
    bpf: OwnedFd,
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
        let bpf = bpffs().context("can't mount a bpffs").inspect_err(|_| drop(fs::remove_dir(&cgroup)))?;
        Ok(Self { home: tree.join(own), cgroup, bpf, object })
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
        PathBuf::from(format!("/proc/self/fd/{}/node", self.bpf.as_raw_fd()))
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
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// A bpffs at no place: paths lead to it through the descriptor.
fn bpffs() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("bpf", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
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
