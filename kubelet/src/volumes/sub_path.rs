//! Parts of volumes, bound where no container can move them.
//!
//! Invariant: a part is opened below its volume's root in one step of the kernel (`openat2` with `RESOLVE_BENEATH`), so that
//! no symlink that a container put there leads out, whatever it changes meanwhile. The runtime is given a bind mount of what
//! was opened, outside of every volume.

use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::mount_table;
use crate::pod::resolve::mounts::SubPath;

/// Makes the part if it isn't there, and binds it below `pod_dir`. Says where it is.
pub(super) fn prepare(pod_dir: &Path, container: &str, part: &SubPath) -> io::Result<PathBuf> {
    let opened = open_or_create(&part.root, &part.path)?;
    let folder = pod_dir.join("volume-subpaths").join(&part.volume).join(container);
    let target = folder.join(part.index.to_string());
    fs::create_dir_all(&folder)?;
    // Containers have mounts of their own of what an earlier run was given.
    mount_table::unmount(&target)?;
    let is_folder = FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode) == FileType::Directory;
    make_target(&target, is_folder)?;
    rustix::mount::mount_bind(format!("/proc/self/fd/{}", opened.as_raw_fd()), &target)?;
    Ok(target)
}

fn make_target(target: &Path, is_folder: bool) -> io::Result<()> {
    match fs::symlink_metadata(target) {
        Ok(metadata) if metadata.is_dir() == is_folder => return Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir(target)?,
        Ok(_) => fs::remove_file(target)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if is_folder { fs::create_dir(target) } else { fs::File::create(target).map(drop) }
}

fn open_or_create(root: &Path, path: &Path) -> io::Result<OwnedFd> {
    let root = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match open_beneath(&root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        opened => return Ok(opened?),
    }
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&root)?.st_mode);
    let mut walked = PathBuf::new();
    let mut parent = open_beneath(&root, Path::new("."), OFlags::PATH | OFlags::DIRECTORY)?;
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        walked.push(name);
        parent = match open_beneath(&root, &walked, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {
                // A symlink that leads nowhere is in the way: it is not followed, and the open after it fails.
                match rustix::fs::mkdirat(&parent, name, mode) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
                // The umask must not take anything away.
                rustix::fs::fchmod(&made, mode)?;
                made
            }
            opened => opened?,
        };
    }
    Ok(parent)
}

/// Reads a small file of a volume that containers write.
///
/// # Errors
/// When it is not there, not a file, not text, or larger than `limit` bytes.
pub(super) fn read(root: &Path, path: &Path, limit: u64) -> io::Result<String> {
    let root = rustix::fs::openat(CWD, root, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // Opening a pipe must not wait for its writer.
    let opened = open(&root, path, OFlags::RDONLY | OFlags::NONBLOCK, ResolveFlags::IN_ROOT)?;
    let file = fs::File::from(opened);
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a file, or too large"));
    }
    let mut text = String::new();
    file.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

fn open_beneath(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    open(root, path, flags, ResolveFlags::BENEATH)
}

fn open(root: &OwnedFd, path: &Path, flags: OFlags, within: ResolveFlags) -> Result<OwnedFd, Errno> {
    let resolve = within | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Something was renamed meanwhile (openat2(2)).
            Err(Errno::AGAIN) => {}
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn part(root: &Path, path: &str) -> SubPath {
        SubPath { index: 0, volume: "v".to_owned(), root: root.to_owned(), path: path.into() }
    }

    #[test]
    fn a_missing_folder_is_made_with_the_volumes_mode() {
        let (pod, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let bound = prepare(pod.path(), "c", &part(volume.path(), "a/b")).expect("prepare, as root");
        fs::write(bound.join("f"), "x").unwrap();
        let again = prepare(pod.path(), "c", &part(volume.path(), "a/b")).expect("again");
        let seen = fs::read_to_string(again.join("f")).unwrap();
        mount_table::unmount_below(pod.path()).unwrap();
        assert_eq!((seen.as_str(), fs::read_to_string(volume.path().join("a/b/f")).unwrap().as_str()), ("x", "x"));
        assert_eq!(fs::metadata(volume.path().join("a")).unwrap().permissions().mode() & 0o7777, 0o777);
    }

    #[test]
    fn a_file_is_bound_as_a_file_through_a_link_inside_of_the_volume() {
        let (pod, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(volume.path().join("..data")).unwrap();
        fs::write(volume.path().join("..data/f"), "x").unwrap();
        symlink("..data/f", volume.path().join("f")).unwrap();
        let bound = prepare(pod.path(), "c", &part(volume.path(), "f")).expect("prepare, as root");
        let seen = fs::read_to_string(bound).unwrap();
        mount_table::unmount_below(pod.path()).unwrap();
        assert_eq!(seen, "x");
    }

    #[test]
    fn no_link_leads_out_of_the_volume() {
        let (pod, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink("/etc", volume.path().join("absolute")).unwrap();
        symlink("../..", volume.path().join("up")).unwrap();
        symlink("/nowhere/at/all", volume.path().join("dangling")).unwrap();
        for path in ["absolute", "absolute/passwd", "up", "up/x", "absolute/new", "dangling", "dangling/x"] {
            assert!(prepare(pod.path(), "c", &part(volume.path(), path)).is_err(), "{path}");
        }
        assert!(!Path::new("/etc/new").exists());
    }
}
