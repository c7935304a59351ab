//! Mounts: the bpffs of the cluster's own, and taking away whatever is mounted below its folders.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where it is.
    pub(crate) point: PathBuf,
    /// The file system's type.
    pub(crate) kind: String,
}

/// Everything that is mounted, in the order in which it was.
///
/// # Errors
/// When /proc is not there.
pub(crate) fn all() -> Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo").context("can't read /proc/self/mountinfo")?))
}

/// Mounts a bpffs, unless it is mounted.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn bpffs(point: &Path) -> Result<()> {
    fs::create_dir_all(point).with_context(|| format!("can't make {}", point.display()))?;
    if all()?.iter().any(|mount| mount.point == point && mount.kind == "bpf") {
        return Ok(());
    }
    mount("bpf", point, "bpf", MountFlags::empty(), None::<&std::ffi::CStr>)
        .with_context(|| format!("can't mount a bpffs on {}", point.display()))
}

/// Unmounts everything at or below a folder, the newest first; afterwards nothing is.
///
/// # Errors
/// When something stays.
pub(crate) fn unmount_below(folder: &Path) -> Result<()> {
    for mount in all()?.iter().rev().filter(|mount| mount.point.starts_with(folder)) {
        if unmount(&mount.point, UnmountFlags::empty()).is_err() {
            // Busy, by a process that is on its way out: out of sight now, and gone with it.
            let _ = unmount(&mount.point, UnmountFlags::DETACH);
        }
    }
    match all()?.iter().find(|mount| mount.point.starts_with(folder)) {
        Some(mount) => bail!("{} can't be unmounted", mount.point.display()),
        None => Ok(()),
    }
}

/// Removes a file or a folder with all that is in it. Nothing is removed while anything is mounted in it: what is below
/// such a mount may be the machine's own files.
///
/// # Errors
/// When something is mounted there, or can't be removed.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => {
            if let Some(mount) = all()?.iter().find(|mount| mount.point.starts_with(path)) {
                bail!("{} is still mounted", mount.point.display());
            }
            fs::remove_dir_all(path)
        }
        Ok(_) => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", path.display()))
        }
        Err(_) | Ok(()) => Ok(()),
    }
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ');
            let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(4)?)));
            // Optional fields end with a dash; the type follows.
            fields.find(|field| *field == b"-")?;
            Some(Mount { point, kind: String::from_utf8_lossy(fields.next()?).into_owned() })
        })
        .collect()
}

/// Space, tab, newline and backslash are three octal digits behind a backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match digits {
            Some(digits) => {
                out.push(digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_and_types_are_read_with_and_without_optional_fields() {
        let text = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                     42 27 254:0 /run/netns /run/netns rw shared:1 master:2 - tmpfs tmpfs rw\n\
                     43 27 0:4 net:[1] /tmp/a\\040b\\134c rw - nsfs nsfs rw\n";
        let of = |point: &str, kind: &str| Mount { point: point.into(), kind: kind.to_owned() };
        assert_eq!(parse(text), [of("/", "ext4"), of("/run/netns", "tmpfs"), of("/tmp/a b\\c", "nsfs")]);
    }

    #[test]
    fn a_folder_goes_and_one_that_is_not_there_is_no_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        fs::create_dir_all(path.join("b")).expect("made");
        remove(&path).expect("removed");
        remove(&path).expect("nothing there");
        assert!(!path.exists());
    }
}
