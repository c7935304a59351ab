//! Taking a cluster away, whatever is left of it: each step removes what is there, and what is not there is no error.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use super::layout::{DATA_PARTS, Layout};
use super::parts::Part;
use super::progress::Progress;
use super::settings::{self, Settings, Wishes};
use super::subnet::Subnet;
use super::{cgroups, containerd, mounts, network, owner, processes};

/// So many nodes are looked for where nothing says how many there were; a /24 has no room for more.
const ANY_NODES: u8 = 200;

/// Runs the steps. What outlives a failure is found again by running it again: the files that lead there go last.
pub(crate) fn run(data_dir: &Path, name: Option<&str>) -> Result<()> {
    let known = known(data_dir, name)?;
    let is_known = known.is_some();
    let layout = Layout::new(known.map_or_else(|| guess(name), Ok)?, data_dir);
    let on_machine = owner::is_owner(&layout, is_known)?;
    let data_is_ours = data_dir.join(Settings::file()).exists();
    if !on_machine && !data_is_ours {
        println!("No cluster is in {}", data_dir.display());
        return Ok(());
    }
    let progress = Progress::new(if on_machine { 6 } else { 2 })?;
    if on_machine {
        progress.step("stopping kubelets and network agents", || {
            let parts = Part::all(&layout);
            let on_nodes = parts.iter().filter(|part| matches!(part, Part::Kubelet(_) | Part::NetworkAgent(_)));
            on_nodes.rev().try_for_each(|part| processes::stop(&layout, part))
        })?;
        progress.step("ending containers", || {
            cgroups::kill(&layout.cgroup())?;
            processes::stop(&layout, &Part::Containerd)?;
            processes::stop(&layout, &Part::Registry)?;
            processes::kill_shims(&layout)
        })?;
    }
    progress.step("stopping the control plane", || processes::stop_own_binaries(&layout))?;
    if on_machine {
        progress.step("removing mounts, cgroups and network", || {
            let leftovers = containerd::leftovers(&layout);
            mounts::unmount_below(&layout.run_dir())?;
            layout.nodes().iter().try_for_each(network::remove_node)?;
            network::remove_bridge(&layout)?;
            cgroups::remove(&layout.cgroup())?;
            containerd::remove_leftovers(&leftovers)
        })?;
    }
    progress.step("removing data", || if data_is_ours { remove_data(&layout) } else { Ok(()) })?;
    if on_machine {
        progress.step("removing what leads to the rest", || mounts::remove(&layout.run_dir()))?;
    }
    if data_is_ours {
        mounts::remove(&data_dir.join(Settings::file()))?;
        // Left alone when it holds something that is not ours.
        let _ = fs::remove_dir(data_dir);
    }
    progress.done();
    println!("Nothing of the cluster {} in {} is left", layout.name(), data_dir.display());
    Ok(())
}

fn remove_data(layout: &Layout) -> Result<()> {
    for part in DATA_PARTS.into_iter().filter(|part| *part != Settings::file()) {
        let path = layout.data_dir.join(part);
        mounts::unmount_below(&path)?;
        mounts::remove(&path)?;
    }
    Ok(())
}

fn known(data_dir: &Path, name: Option<&str>) -> Result<Option<Settings>> {
    let known = Settings::read(data_dir).unwrap_or_else(|error| {
        eprintln!("{error:#}: looking for the cluster by its name");
        None
    });
    if let (Some(known), Some(name)) = (&known, name)
        && known.name != name
    {
        bail!("the cluster in {} has the name {:?}, not {name:?}", data_dir.display(), known.name);
    }
    Ok(known)
}

/// The settings of a cluster whose data is gone, by its name: enough to find everything that has a name.
fn guess(name: Option<&str>) -> Result<Settings> {
    if let Some(name) = name {
        settings::check_name(name)?;
    }
    let wishes = Wishes { name: name.map(str::to_owned), nodes: Some(ANY_NODES), ..Wishes::default() };
    Settings::resolve(None, &wishes, || Ok(Subnet::new([172, 30, 0, 0], 24)))
}
