//! The nodes' cgroups, in every tree that the machine has mounted. No tree is mounted or rearranged.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::mounts;
use super::parts::Trees;
use super::processes;

/// How long the kernel may take to let go of a cgroup whose processes were killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Finds the machine's trees.
///
/// # Errors
/// When no cgroup version 2 is mounted: eBPF programs attach there.
pub(crate) fn trees() -> Result<Trees> {
    let mounts = mounts::all()?;
    let unified = mounts.iter().find(|mount| mount.kind == "cgroup2").map(|mount| mount.point.clone());
    let unified = unified.context("no cgroup version 2 is mounted (at /sys/fs/cgroup, or /sys/fs/cgroup/unified)")?;
    Ok(Trees { unified })
}

/// Makes a cgroup in every tree.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn make(cgroup: &Path) -> Result<()> {
    for path in everywhere(cgroup)? {
        fs::create_dir_all(&path).with_context(|| format!("can't make the cgroup {}", path.display()))?;
    }
    Ok(())
}

/// Whether a cgroup is in any tree.
///
/// # Errors
/// When mounts can't be read.
pub(crate) fn exists(cgroup: &Path) -> Result<bool> {
    Ok(everywhere(cgroup)?.iter().any(|path| path.exists()))
}

/// Kills every process in a cgroup and below it.
///
/// # Errors
/// When one can't be killed.
pub(crate) fn kill(cgroup: &Path) -> Result<()> {
    let trees = everywhere(cgroup)?;
    processes::kill_all(&format!("the containers in {}", cgroup.display()), || {
        let mut pids = Vec::new();
        for folder in trees.iter().flat_map(|tree| folders(tree)) {
            let text = match fs::read_to_string(folder.join("cgroup.procs")) {
                Ok(text) => text,
                // It went meanwhile, or is a threaded one, whose processes the one above lists.
                Err(_) => continue,
            };
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    })
}

/// Removes a cgroup and all below it from every tree.
///
/// # Errors
/// When one has processes still.
pub(crate) fn remove(cgroup: &Path) -> Result<()> {
    for tree in everywhere(cgroup)? {
        let mut last = None;
        let gone = processes::wait_for(PATIENCE, || {
            for folder in folders(&tree).iter().rev() {
                match fs::remove_dir(folder) {
                    Err(error) if error.kind() != ErrorKind::NotFound => last = Some(error),
                    Err(_) | Ok(()) => {}
                }
            }
            Ok(!tree.exists())
        })?;
        if !gone {
            bail!(
                "can't remove the cgroup {}: {}",
                tree.display(),
                last.map_or_else(String::new, |error| error.to_string())
            );
        }
    }
    Ok(())
}

/// A cgroup's folder in each tree.
fn everywhere(cgroup: &Path) -> Result<Vec<PathBuf>> {
    let relative = cgroup.strip_prefix("/").unwrap_or(cgroup);
    if relative.as_os_str().is_empty() {
        bail!("the root of a cgroup tree is the machine's");
    }
    let mut trees: Vec<PathBuf> = mounts::all()?
        .into_iter()
        .filter(|mount| mount.kind == "cgroup" || mount.kind == "cgroup2")
        .map(|mount| mount.point.join(relative))
        .collect();
    trees.sort_unstable();
    trees.dedup();
    Ok(trees)
}

/// A folder and all below it, parents first; none where it is not.
fn folders(top: &Path) -> Vec<PathBuf> {
    if !top.is_dir() {
        return Vec::new();
    }
    let mut all = vec![top.to_owned()];
    let mut next = 0;
    while let Some(folder) = all.get(next).cloned() {
        next += 1;
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        all.extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
    all
}
