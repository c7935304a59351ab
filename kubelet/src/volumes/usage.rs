//! How much of the node a volume takes.
//!
//! Invariant: what is mounted inside of the volume is not counted, and no symlink is followed. Upstream: `fs.DiskUsage`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What lies in a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that are allocated, each file counted once.
    pub bytes: u64,
    /// Files and folders, the volume itself among them.
    pub inodes: u64,
}

pub(super) fn of(dir: &Path) -> io::Result<Usage> {
    let device = fs::symlink_metadata(dir)?.dev();
    let (mut usage, mut links) = (Usage::default(), BTreeSet::new());
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            // Containers go on working meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let counted = metadata.nlink() > 1 && !metadata.is_dir() && !links.insert(metadata.ino());
        if metadata.dev() != device || counted {
            continue;
        }
        usage.bytes += metadata.blocks() * 512;
        usage.inodes += 1;
        if metadata.is_dir() {
            match fs::read_dir(&path) {
                Ok(entries) => left.extend(entries.filter_map(|entry| Some(entry.ok()?.path()))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_counts_once_and_links_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let empty = of(dir.path()).unwrap();
        fs::write(dir.path().join("a"), vec![1; 100_000]).unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("/usr", dir.path().join("c")).unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        let usage = of(dir.path()).unwrap();
        assert_eq!((empty.inodes, usage.inodes), (1, 4));
        let taken = usage.bytes - empty.bytes;
        assert!((100_000..200_000).contains(&taken), "{taken}");
    }
}
