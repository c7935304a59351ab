//! An empty folder for a pod, on the disk or in memory.
//!
//! Invariant: the folder appears under its name only with its mode and group, and what containers later do to either is
//! left alone. Memory that a reboot took away is mounted again.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use rustix::mount::MountFlags;
use skep_api::quantity::Quantity;

use super::error::Cause;

/// What it is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Medium {
    Disk,
    /// A tmpfs; without a size, the kernel's half of the memory.
    Memory {
        bytes: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) medium: Medium,
    pub(super) mode: u32,
    /// The group that may write into it (`fsGroup`).
    pub(super) group: Option<u32>,
}

impl Request {
    /// # Errors
    /// When the medium isn't known here.
    pub(super) fn of(source: &EmptyDirVolumeSource, group: Option<u32>) -> Result<Self, Cause> {
        let bytes = source.size_limit.as_ref().and_then(|limit| limit.0.parse::<Quantity>().ok());
        let bytes = bytes.and_then(|limit| u64::try_from(limit.value()).ok()).filter(|bytes| *bytes > 0);
        let medium = match source.medium.as_deref() {
            None | Some("") => Medium::Disk,
            Some("Memory") => Medium::Memory { bytes },
            Some(other) => {
                return Err(Cause::refused(format!("emptyDir of medium {other:?} is not supported by this node")));
            }
        };
        let mode = source.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o777);
        // As upstream's `SetVolumeOwnership` leaves an empty folder: the group may use it, and inherits into it.
        let mode = if group.is_some() { mode | 0o2770 } else { mode };
        Ok(Self { medium, mode: mode & 0o7777, group })
    }
}

pub(super) fn set_up(dir: &Path, request: &Request) -> io::Result<()> {
    match request.medium {
        Medium::Disk if dir.is_dir() => Ok(()),
        Medium::Disk => create(dir, request),
        Medium::Memory { bytes } => {
            if !dir.is_dir() {
                create(dir, request)?;
            }
            if is_mount_point(dir)? { Ok(()) } else { mount(dir, request, bytes) }
        }
    }
}

fn create(dir: &Path, request: &Request) -> io::Result<()> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    fs::create_dir_all(parent)?;
    // No volume's name begins with a dot.
    let new = parent.join(format!(".{}.new", name.to_string_lossy()));
    match fs::create_dir(&new) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Err(_) | Ok(()) => {}
    }
    chown(&new, None, request.group)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(request.mode))?;
    fs::rename(&new, dir)
}

fn is_mount_point(dir: &Path) -> io::Result<bool> {
    let parent = dir.parent().unwrap_or(dir);
    Ok(fs::metadata(dir)?.dev() != fs::metadata(parent)?.dev())
}

fn mount(dir: &Path, request: &Request, bytes: Option<u64>) -> io::Result<()> {
    let mut options = format!("mode={:o}", request.mode);
    if let Some(group) = request.group {
        options += &format!(",gid={group}");
    }
    if let Some(bytes) = bytes {
        options += &format!(",size={bytes}");
    }
    // Secrets must not reach a disk by way of swap; kernels before 6.4 don't know the option.
    mount_tmpfs(dir, &format!("{options},noswap")).or_else(|error| match error.kind() {
        io::ErrorKind::InvalidInput => mount_tmpfs(dir, &options),
        _ => Err(error),
    })
}

fn mount_tmpfs(dir: &Path, options: &str) -> io::Result<()> {
    let options = CString::new(options).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    rustix::mount::mount("tmpfs", dir, "tmpfs", MountFlags::empty(), options.as_c_str())?;
    Ok(())
}
