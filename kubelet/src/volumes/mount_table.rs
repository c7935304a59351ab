//! What is mounted on the node.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::mount::UnmountFlags;

/// Unmounts everything at and below `dir`, the deepest first. What is still in use goes when its last user does.
pub(super) fn unmount_below(dir: &Path) -> io::Result<()> {
    // The table has no symlinks in its paths.
    let dir = match fs::canonicalize(dir) {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    // A later mount may lie over an earlier one at the same place: the table has them in order.
    for point in mount_points(&table).into_iter().rev().filter(|point| point.starts_with(&dir)) {
        unmount(&point)?;
    }
    Ok(())
}

/// Unmounts what is at `path`; nothing being there is no error.
pub(super) fn unmount(path: &Path) -> io::Result<()> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The fifth field of each line of `mountinfo` (proc_pid_mountinfo(5)), with blanks as they are.
fn mount_points(table: &str) -> Vec<PathBuf> {
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(unescaped).collect()
}

/// The kernel writes blank, tab, newline and backslash as three octal digits.
fn unescaped(field: &str) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_blanks() {
        let table =
            "22 1 0:20 / /sys rw - sysfs sysfs rw\n23 1 0:21 / /a\\040b\\134 rw shared:1 - tmpfs tmpfs rw\nbad\n";
        assert_eq!(mount_points(table), [Path::new("/sys"), Path::new("/a b\\")]);
    }
}
