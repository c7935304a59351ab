//! The cluster's own containerd, and what it and runc leave outside of its folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::layout::Layout;
use super::mounts;
use super::parts::{self, Part, Trees};
use super::processes;
use crate::image::suite::Suite;
use crate::shell;

/// Where containerd's shims put their sockets and runc its state, whatever the configuration says (containerd's
/// `defaults.DefaultStateDir`).
const SHARED: &str = "/run/containerd";
/// The namespace whose images the CRI service sees.
const NAMESPACE: &str = "k8s.io";

/// Starts containerd, unless it runs as it should: containers go on either way.
///
/// # Errors
/// When it does not answer.
pub(crate) fn start(layout: &Layout, trees: &Trees) -> Result<()> {
    let (config, wanted) = (layout.containerd_config(), parts::containerd_configuration(layout));
    let same = fs::read_to_string(&config).is_ok_and(|there| there == wanted);
    if same && processes::find(layout, &Part::Containerd).is_some() && answers(layout) {
        return Ok(());
    }
    processes::stop(layout, &Part::Containerd)?;
    if let Some(folder) = config.parent() {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    }
    fs::write(&config, wanted).with_context(|| format!("can't write {}", config.display()))?;
    let mut child = processes::start(layout, &Part::Containerd, trees)?;
    processes::wait_until_ready(layout, &Part::Containerd, &mut child, || answers(layout))
}

/// Imports image archives.
///
/// # Errors
/// When containerd refuses one.
pub(crate) fn import(layout: &Layout, archives: &[PathBuf]) -> Result<()> {
    for archive in archives {
        let words = ["--namespace", NAMESPACE, "images", "import", "--snapshotter", "overlayfs"];
        shell::output(ctr(layout).args(words).arg(archive))
            .with_context(|| format!("can't import {}", archive.display()))?;
    }
    Ok(())
}

/// Imports the suite's images.
///
/// # Errors
/// When containerd refuses them.
pub(crate) fn import_suite(layout: &Layout, suite: &Suite) -> Result<()> {
    suite.import(|| ctr(layout))
}

/// What is in the folder that all containerds of a machine share, and is this one's. Read before its own folders go.
pub(crate) fn leftovers(layout: &Layout) -> Vec<PathBuf> {
    leftovers_of(&layout.containerd_state())
}

/// The same of a containerd by its state directory.
pub(crate) fn leftovers_of(state: &Path) -> Vec<PathBuf> {
    let bundles = folders(&state.join("io.containerd.runtime.v2.task")).into_iter().flat_map(|space| folders(&space));
    let sockets = bundles.filter_map(|bundle| shim_socket(&bundle));
    let runc = folders(&Path::new(SHARED).join("runc")).into_iter().flat_map(|space| folders(&space));
    sockets.chain(runc.filter(|container| is_of(container, state))).collect()
}

/// Removes them, and the shared folders where they are empty then.
///
/// # Errors
/// When one can't be removed.
pub(crate) fn remove_leftovers(leftovers: &[PathBuf]) -> Result<()> {
    for path in leftovers {
        mounts::remove(path)?;
    }
    for folder in ["runc/k8s.io", "runc", "s", "fifo", ""] {
        // Fails where it holds something, which is another's.
        let _ = fs::remove_dir(Path::new(SHARED).join(folder));
    }
    Ok(())
}

fn answers(layout: &Layout) -> bool {
    shell::output(ctr(layout).args(["--timeout", "2s", "version"])).is_ok()
}

fn ctr(layout: &Layout) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(layout.containerd_socket());
    command
}

/// The socket of a container's shim, which its bundle names: in `address` (1.x) or `bootstrap.json` (2.x).
fn shim_socket(bundle: &Path) -> Option<PathBuf> {
    let named = fs::read_to_string(bundle.join("address")).ok().or_else(|| {
        let bootstrap: Value = serde_json::from_slice(&fs::read(bundle.join("bootstrap.json")).ok()?).ok()?;
        Some(bootstrap["address"].as_str()?.to_owned())
    })?;
    let path = PathBuf::from(named.trim().strip_prefix("unix://")?);
    path.starts_with(Path::new(SHARED).join("s")).then_some(path)
}

/// Whether a container that runc keeps was made from a bundle below a folder (runc's `state.json`, libcontainer's label `bundle`).
fn is_of(container: &Path, state: &Path) -> bool {
    let read = || -> Option<Value> { serde_json::from_slice(&fs::read(container.join("state.json")).ok()?).ok() };
    let Some(file) = read() else { return false };
    let labels = file["config"]["labels"].as_array().into_iter().flatten().filter_map(Value::as_str);
    labels.filter_map(|label| label.strip_prefix("bundle=")).any(|bundle| Path::new(bundle).starts_with(state))
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_of_runc_belongs_to_the_containerd_of_its_bundle() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = r#"{"config": {"labels": ["bundle=/run/skep/containerd/state/x/y"]}}"#;
        fs::write(folder.path().join("state.json"), state).expect("written");
        assert!(is_of(folder.path(), Path::new("/run/skep/containerd/state")));
        assert!(!is_of(folder.path(), Path::new("/run/other/containerd/state")));
    }

    #[test]
    fn the_shims_socket_is_read_in_both_forms_and_nowhere_else() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("bootstrap.json"), r#"{"address": "unix:///run/containerd/s/2"}"#)
            .expect("written");
        assert_eq!(shim_socket(folder.path()), Some("/run/containerd/s/2".into()));
        fs::write(folder.path().join("address"), "unix:///run/containerd/s/1").expect("written");
        assert_eq!(shim_socket(folder.path()), Some("/run/containerd/s/1".into()));
        fs::write(folder.path().join("address"), "unix:///etc/passwd").expect("written");
        assert_eq!(shim_socket(folder.path()), None);
    }
}
