//! Namespaces pinned by bind mounts of `/proc/thread-self/ns/*`, so that they live without a process in them.
//!
//! Invariant: a pin is a mount of the namespace file system or it is nothing; after a reboot the empty file that is left
//! is not taken for one.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rtnetlink::LinkUnspec;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use super::unshare::unshare;

/// `NSFS_MAGIC` of the kernel's `linux/magic.h`.
const NSFS: u64 = 0x6e73_6673;
/// `TMPFS_MAGIC`, likewise.
const TMPFS: u64 = 0x0102_1994;
/// The loopback interface is a network namespace's first.
const LOOPBACK: u32 = 1;

/// A kind of namespace that a pod has of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Network,
    Ipc,
    Uts,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Network, Self::Ipc, Self::Uts];

    /// The name below `/proc/<pid>/ns` and of the pin.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
        }
    }

    fn flag(self) -> UnshareFlags {
        match self {
            Self::Network => UnshareFlags::NEWNET,
            Self::Ipc => UnshareFlags::NEWIPC,
            Self::Uts => UnshareFlags::NEWUTS,
        }
    }
}

/// What is set inside of new namespaces.
#[derive(Debug, Clone)]
pub(super) struct Inside {
    /// Which ones are new.
    pub(super) kinds: Vec<Kind>,
    /// For a new UTS namespace.
    pub(super) hostname: String,
    /// Files below `/proc/sys` and what is written to them; an optional one may fail, as on a kernel without it.
    pub(super) sysctls: Vec<Sysctl>,
}

/// A kernel parameter of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sysctl {
    pub(super) path: String,
    pub(super) value: String,
    pub(super) optional: bool,
}

/// Makes namespaces and pins them in `folder` under their names.
///
/// A thread of its own unshares, and ends with the call: no thread of the runtime ever leaves the node's namespaces.
pub(super) async fn pin_new(folder: &Path, inside: Inside) -> io::Result<()> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let folder = folder.to_owned();
    let has_network = inside.kinds.contains(&Kind::Network);
    std::thread::Builder::new().name("pod-namespaces".to_owned()).spawn(move || {
        // The receiver is gone when the pod's worker was stopped: what is pinned is then found and removed later.
        let _ = sender.send(make(&folder, &inside, &runtime));
    })?;
    let netlink = receiver.await.map_err(|_| io::Error::other("the thread that makes namespaces panicked"))??;
    match netlink {
        Some((connection, handle)) if has_network => {
            let up = handle.link().set(LinkUnspec::new_with_index(LOOPBACK).up().build()).execute();
            tokio::select! {
                done = up => done.map_err(io::Error::other),
                () = connection => Err(io::Error::other("the netlink connection ended")),
            }
        }
        Some(_) | None => Ok(()),
    }
}

type Netlink = (NetlinkConnection, rtnetlink::Handle);
type NetlinkConnection = futures::future::BoxFuture<'static, ()>;

fn make(folder: &Path, inside: &Inside, runtime: &tokio::runtime::Handle) -> io::Result<Option<Netlink>> {
    unshare(inside.kinds.iter().fold(UnshareFlags::empty(), |flags, kind| flags | kind.flag()))?;
    if inside.kinds.contains(&Kind::Uts) {
        rustix::system::sethostname(inside.hostname.as_bytes())?;
    }
    for sysctl in &inside.sysctls {
        let written = fs::write(Path::new("/proc/sys").join(&sysctl.path), &sysctl.value);
        if let Err(error) = written
            && !sysctl.optional
        {
            let text = format!("open /proc/sys/{}: {error}", sysctl.path);
            return Err(io::Error::new(error.kind(), text));
        }
    }
    for kind in &inside.kinds {
        pin(&Path::new("/proc/thread-self/ns").join(kind.name()), &folder.join(kind.name()))?;
    }
    if !inside.kinds.contains(&Kind::Network) {
        return Ok(None);
    }
    // The socket belongs to the namespace in which it is opened, whichever thread uses it later.
    let _runtime = runtime.enter();
    let (connection, handle, _) = rtnetlink::new_connection()?;
    Ok(Some((Box::pin(connection), handle)))
}

/// Pins the kubelet's own namespace, unless it is known to be the one of the node's first process, in which the container
/// runtime is taken to live; one that is shared with it needs no pin. A kernel that doesn't say (another user's process,
/// a restricted `/proc`) gets the pin: joining what one is in already changes nothing.
pub(super) fn pin_own(kind: Kind, pin_at: &Path) -> io::Result<bool> {
    let own = Path::new("/proc/self/ns").join(kind.name());
    let first = Path::new("/proc/1/ns").join(kind.name());
    let own_is = fs::metadata(&own)?;
    if fs::metadata(first).is_ok_and(|first_is| first_is.ino() == own_is.ino()) {
        return Ok(false);
    }
    if is_pinned(pin_at) {
        if fs::metadata(pin_at)?.ino() == own_is.ino() {
            return Ok(true);
        }
        unpin(pin_at)?;
    }
    if let Some(folder) = pin_at.parent() {
        fs::create_dir_all(folder)?;
    }
    pin(&own, pin_at)?;
    Ok(true)
}

fn pin(namespace: &Path, pin_at: &Path) -> io::Result<()> {
    fs::File::create(pin_at)?;
    Ok(rustix::mount::mount_bind(namespace, pin_at)?)
}

/// Whether a namespace is pinned there.
pub(super) fn is_pinned(path: &Path) -> bool {
    has_file_system(path, NSFS)
}

/// Removes a pin, or the file that is left of one. It is not an error that there is none.
pub(super) fn unpin(path: &Path) -> io::Result<()> {
    unmount(path)?;
    absent_is_fine(fs::remove_file(path))
}

/// Mounts an empty memory file system for a pod's `/dev/shm`.
pub(super) fn mount_shm(path: &Path, bytes: u64) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let options = std::ffi::CString::new(format!("mode=1777,size={bytes}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("shm", path, "tmpfs", flags, options.as_c_str())?)
}

/// Whether a memory file system of its own is mounted there.
pub(super) fn is_shm_mounted(path: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|is| is.dev()).ok();
    has_file_system(path, TMPFS) && device(path) != path.parent().and_then(device)
}

/// Unmounts and removes a pod's `/dev/shm`. It is not an error that there is none.
pub(super) fn unmount_shm(path: &Path) -> io::Result<()> {
    unmount(path)?;
    absent_is_fine(fs::remove_dir(path))
}

fn has_file_system(path: &Path, magic: u64) -> bool {
    rustix::fs::statfs(path).is_ok_and(|is| u64::try_from(is.f_type) == Ok(magic))
}

/// Lazily, and all that lie over each other: what still uses them keeps them, what comes later doesn't see them.
fn unmount(path: &Path) -> io::Result<()> {
    loop {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
