//! A volume's files belong to the pod's `fsGroup`.
//!
//! Upstream: `changeFilePermission` of `pkg/volume/volume_linux.go`.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::Path;

/// Gives everything at and below `dir` to `group`, readable, and writable unless `read_only`; folders pass the group on.
/// Symlinks are given too, and never followed.
pub(super) fn apply(dir: &Path, group: Option<u32>, read_only: bool) -> io::Result<()> {
    let Some(group) = group else { return Ok(()) };
    let metadata = fs::symlink_metadata(dir)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(dir)? {
            apply(&entry?.path(), Some(group), read_only)?;
        }
    }
    lchown(dir, None, Some(group))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mask = if read_only { 0o440 } else { 0o660 } | if metadata.is_dir() { 0o2110 } else { 0 };
    fs::set_permissions(dir, fs::Permissions::from_mode((metadata.mode() & 0o7777) | mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_given_to_the_group_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        fs::set_permissions(dir.path().join("f"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("l")).unwrap();
        apply(dir.path(), Some(2000), true).expect("apply, as root");
        let of = |path: &Path| fs::metadata(path).map(|metadata| (metadata.gid(), metadata.mode() & 0o7777)).unwrap();
        assert_eq!(of(&dir.path().join("f")), (2000, 0o640));
        assert_eq!(of(dir.path()), (2000, 0o2755));
        assert_ne!(of(outside.path()).0, 2000);
        assert_eq!(fs::symlink_metadata(dir.path().join("l")).unwrap().gid(), 2000);
    }
}
