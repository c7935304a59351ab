//! The root file system of an image, mounted for containers to read (KEP-4639).
//!
//! Invariant: nothing of it can be written, executed or used as a device, from the node or from a container. The snapshot
//! itself is the runtime's ([`crate::runtime::views`]).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use containerd_client::types::Mount;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountFlags;

use super::mount_table;

const FLAGS: MountFlags =
    MountFlags::RDONLY.union(MountFlags::NOSUID).union(MountFlags::NODEV).union(MountFlags::NOEXEC);
/// The kernel takes less than a page of options (`mount(2)`); the smallest page.
const OPTIONS_LIMIT: usize = 4096;

/// Mounts a view of an image, as the snapshotter says it, at `target`, in place of what was mounted there: containers keep
/// what they were given. Waits for the file system.
///
/// # Errors
/// When the mounts are of a kind that isn't known here, or writable, or the kernel refuses.
pub fn mount(mounts: &[Mount], target: &Path) -> io::Result<()> {
    let unsupported = || io::Error::new(io::ErrorKind::Unsupported, "the snapshot is no read-only overlay or folder");
    let [mount] = mounts else { return Err(unsupported()) };
    fs::create_dir_all(target)?;
    mount_table::unmount(target)?;
    match mount.r#type.as_str() {
        "bind" => {
            rustix::mount::mount_bind(&mount.source, target)?;
            // The first call takes no flags of its own.
            if let Err(error) = rustix::mount::mount_remount(target, MountFlags::BIND | FLAGS, c"") {
                mount_table::unmount(target)?;
                return Err(error.into());
            }
            Ok(())
        }
        "overlay" if is_view(&mount.options) => {
            let (options, _folders) = data(&mount.options, OPTIONS_LIMIT)?;
            let options = CString::new(options).map_err(|_| unsupported())?;
            Ok(rustix::mount::mount("overlay", target, "overlay", FLAGS, options.as_c_str())?)
        }
        _ => Err(unsupported()),
    }
}

fn is_view(options: &[String]) -> bool {
    !options.iter().any(|option| option.starts_with("upperdir="))
}

/// The options as the kernel takes them. Where they are too long, each layer is named by an open file, which has to stay
/// open until the mount is made.
fn data(options: &[String], limit: usize) -> io::Result<(String, Vec<OwnedFd>)> {
    let options = options.iter().filter(|option| !matches!(option.as_str(), "ro" | "rw"));
    let whole = options.clone().map(String::as_str).collect::<Vec<_>>().join(",");
    if whole.len() < limit {
        return Ok((whole, vec![]));
    }
    let mut open = vec![];
    let mut short = vec![];
    for option in options {
        let Some(folders) = option.strip_prefix("lowerdir=") else {
            short.push(option.clone());
            continue;
        };
        let mut names = vec![];
        for folder in folders.split(':') {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
            names.push(format!("/proc/self/fd/{}", opened.as_raw_fd()));
            open.push(opened);
        }
        short.push(format!("lowerdir={}", names.join(":")));
    }
    Ok((short.join(","), open))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(layers: &[&Path]) -> Mount {
        let layers: Vec<_> = layers.iter().map(|layer| layer.display().to_string()).collect();
        let options = vec!["index=off".to_owned(), format!("lowerdir={}", layers.join(":"))];
        Mount { r#type: "overlay".to_owned(), source: "overlay".to_owned(), options, ..Mount::default() }
    }

    #[test]
    fn many_layers_are_named_by_open_files_and_mount_as_the_same() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let layers: Vec<_> = (0..100).map(|number| folder.path().join(format!("{number:0>50}"))).collect();
        layers.iter().for_each(|layer| fs::create_dir(layer).unwrap());
        fs::write(layers[0].join("f"), "upper").unwrap();
        fs::write(layers[99].join("f"), "lower").unwrap();
        fs::write(layers[99].join("g"), "lower").unwrap();
        let target = folder.path().join("target");
        let overlay = overlay(&layers.iter().map(|layer| layer.as_path()).collect::<Vec<_>>());
        mount(&[overlay], &target).expect("mount, as root");
        let seen = ["f", "g"].map(|name| fs::read_to_string(target.join(name)).unwrap());
        let written = fs::write(target.join("f"), "x").unwrap_err().kind();
        mount_table::unmount(&target).unwrap();
        assert_eq!((seen, written), (["upper", "lower"].map(str::to_owned), io::ErrorKind::ReadOnlyFilesystem));
    }

    #[test]
    fn what_can_be_written_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut writable = overlay(&[folder.path()]);
        writable.options.push(format!("upperdir={}", folder.path().display()));
        assert_eq!(mount(&[writable], &folder.path().join("t")).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }
}
