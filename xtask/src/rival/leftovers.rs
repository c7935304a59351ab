//! What kubelets and CNI's library put into places that no configuration names: found again by what it says, which leads
//! into the cluster's data directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::deploy::mounts;

/// A link for each container's log (the kubelet's `ContainerLogsDir`).
const LOG_LINKS: &str = "/var/log/containers";
/// What each pod's network was told (libcni's `CacheDir`).
const NETWORK_RESULTS: &str = "/var/lib/cni/results";
/// The socket for device plug-ins, wherever the kubelet's own root is (`DevicePluginPath`).
const KUBELET: &str = "/var/lib/kubelet";
/// In the data directory: the machine had no such folder before.
const KUBELET_NOTE: &str = "made-var-lib-kubelet";

/// Notes what was there before the cluster; before its kubelet starts for the first time.
///
/// # Errors
/// When the note can't be written.
pub(super) fn note(data_dir: &Path) -> Result<()> {
    if Path::new(KUBELET).exists() {
        return Ok(());
    }
    let file = data_dir.join(KUBELET_NOTE);
    fs::write(&file, "").with_context(|| format!("can't write {}", file.display()))
}

/// Removes what is the cluster's.
///
/// # Errors
/// When something can't be removed.
pub(super) fn remove(data_dir: &Path) -> Result<()> {
    let is_link = |path: &Path| fs::read_link(path).is_ok_and(|target| target.starts_with(data_dir));
    let is_result = |path: &Path| is_network_result(path, data_dir);
    for (folder, is_ours) in
        [(LOG_LINKS, &is_link as &dyn Fn(&Path) -> bool), (NETWORK_RESULTS, &is_result as &dyn Fn(&Path) -> bool)]
    {
        for path in entries(folder).into_iter().filter(|path| is_ours(path)) {
            mounts::remove(&path)?;
        }
    }
    if data_dir.join(KUBELET_NOTE).exists() {
        mounts::remove(Path::new(KUBELET))?;
    }
    for folder in [LOG_LINKS, NETWORK_RESULTS, "/var/lib/cni"] {
        // Fails where it holds something, which is another's.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

/// Whether libcni noted it of a network namespace that the cluster's containerd made.
fn is_network_result(file: &Path, data_dir: &Path) -> bool {
    let Ok(text) = fs::read(file) else { return false };
    let noted: Option<Value> = serde_json::from_slice(&text).ok();
    noted.is_some_and(|noted| noted["netns"].as_str().is_some_and(|path| Path::new(path).starts_with(data_dir)))
}

fn entries(folder: &str) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_result_is_the_clusters_by_its_namespace() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("bridge-1-eth0");
        fs::write(&file, r#"{"kind": "cniCacheV1", "netns": "/data/containerd/state/netns/cni-1"}"#).expect("written");
        assert!(is_network_result(&file, Path::new("/data")));
        assert!(!is_network_result(&file, Path::new("/data2")));
        assert!(!is_network_result(&folder.path().join("none"), Path::new("/data")));
    }
}
