//! Removes what containers left, whatever they made of it.
//!
//! Invariant: neither the stack, nor the open files, nor the length of a path grows with how deep folders lie in each other,
//! and no symlink is followed. A folder that isn't empty is moved to the top before it is looked into.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes the folder and all that is in it; its not being there is no error. Nothing may be mounted in it.
pub(super) fn folder(path: &Path) -> io::Result<()> {
    let top = match rustix::fs::openat(CWD, path, FOLDER, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let mut moved = 0_u64;
    // Each pass takes away what lies at the top, and brings up what lay one folder deeper.
    loop {
        let folders = remove_files(&top)?;
        if folders.is_empty() {
            break;
        }
        for name in &folders {
            empty(&top, name, &mut moved)?;
        }
    }
    std::fs::remove_dir(path)
}

/// Removes the files of a folder, and names its folders.
fn remove_files(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut folders = vec![];
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                FileType::from_raw_mode(rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)
            }
            known => known,
        };
        if kind == FileType::Directory {
            folders.push(name.to_owned());
        } else {
            rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
        }
    }
    Ok(folders)
}

/// Removes a folder at the top, after its own folders were moved there.
fn empty(top: &OwnedFd, name: &CString, moved: &mut u64) -> io::Result<()> {
    let folder = rustix::fs::openat(top, name, FOLDER, Mode::empty())?;
    for inner in remove_files(&folder)? {
        match rustix::fs::unlinkat(&folder, &inner, AtFlags::REMOVEDIR) {
            Ok(()) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        loop {
            *moved += 1;
            match rustix::fs::renameat_with(
                &folder,
                &inner,
                top,
                format!(".{moved}"),
                rustix::fs::RenameFlags::NOREPLACE,
            ) {
                // A container chose this name.
                Err(Errno::EXIST) => {}
                renamed => break renamed?,
            }
        }
    }
    Ok(rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `depth` folders in each other, each with a file and a folder beside.
    fn dig(root: &Path, depth: usize) {
        let mut at = rustix::fs::openat(CWD, root, FOLDER, Mode::empty()).unwrap();
        for _ in 0..depth {
            for name in ["d", ".1", "e"] {
                rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
            }
            rustix::fs::symlinkat("/etc", &at, "link").unwrap();
            let file = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&at, "f", file, Mode::RUSR).unwrap();
            at = rustix::fs::openat(&at, "d", FOLDER, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn folders_of_any_depth_are_removed_and_links_are_not_followed() {
        // In memory: a disk takes long for so many folders.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        dig(&root, 5000);
        folder(&root).unwrap();
        assert!(!root.exists() && Path::new("/etc/passwd").exists());
    }

    #[test]
    fn what_is_not_there_is_no_error_and_a_link_is_not_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        folder(&dir.path().join("none")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        assert!(folder(&dir.path().join("link")).is_err());
    }
}
