//! Taking the upstream cluster away, whatever is left of it: nothing of it stays on the machine.

use std::fs;
use std::path::Path;

use anyhow::Result;

use super::layout::Layout;
use super::parts::{Part, is_shim};
use super::up::{Settings, owner};
use super::{leftovers, tunables};
use crate::deploy::progress::Progress;
use crate::deploy::subnet::Subnet;
use crate::deploy::{cgroups, containerd, mounts, network, processes};

/// In the place of a network that is not known.
const ANY: Subnet = Subnet::new([172, 30, 0, 0], 24);

/// Runs the steps. What outlives a failure is found again by running it again.
///
/// # Errors
/// When something can't be ended or removed.
pub(super) fn run(data_dir: &Path) -> Result<()> {
    let settings = Settings::read(data_dir)?;
    // Where its data is gone, the machine's names are left; they don't follow from the network.
    let layout = settings.as_ref().map_or_else(|| Layout::new(data_dir, ANY), |settings| settings.layout(data_dir));
    let owner = owner(&layout);
    if settings.is_none() && owner.as_deref().map(Path::new) != Some(data_dir) {
        println!("No upstream cluster is in {}", data_dir.display());
        return Ok(());
    }
    // The machine's names may be another's by now; what is in the data directory is this one's in any case.
    let on_machine = owner.is_none_or(|owner| Path::new(&owner) == data_dir);
    let progress = Progress::new(4)?;
    progress.step("stopping the node and the control plane", || {
        let stay = [Part::Etcd, Part::Containerd];
        Part::ALL.into_iter().rev().filter(|part| !stay.contains(part)).try_for_each(|part| end(&layout, part))
    })?;
    progress.step("ending containers", || {
        if on_machine {
            cgroups::kill(&layout.cgroup())?;
        }
        end(&layout, Part::Containerd)?;
        processes::kill_matching("a container's shim", |_, arguments| is_shim(data_dir, arguments))?;
        end(&layout, Part::Etcd)
    })?;
    progress.step("removing mounts, cgroups and network", || {
        let of_containerd = containerd::leftovers_of(&layout.path("containerd/state"));
        mounts::unmount_below(data_dir)?;
        if on_machine {
            if network::has_link(&layout.link()) {
                network::ip(&["link", "delete", &layout.link()])?;
            }
            network::remove_namespace(&layout.netns_file())?;
            cgroups::remove(&layout.cgroup())?;
        }
        containerd::remove_leftovers(&of_containerd)?;
        leftovers::remove(data_dir)?;
        tunables::restore(&layout.path("tunables.json"))
    })?;
    progress.step("removing data", || remove_data(data_dir))?;
    progress.done();
    println!("Nothing of the upstream cluster in {} is left", data_dir.display());
    Ok(())
}

/// Without asking first: what it would tidy up goes with the rest.
fn end(layout: &Layout, part: Part) -> Result<()> {
    let data_dir = layout.data_dir();
    processes::kill_matching(part.program(), |executable, arguments| part.is(data_dir, executable, arguments))
}

/// The settings go last: they lead to the rest.
fn remove_data(data_dir: &Path) -> Result<()> {
    for entry in fs::read_dir(data_dir).into_iter().flatten() {
        let path = entry?.path();
        if !path.ends_with(Settings::FILE) {
            mounts::remove(&path)?;
        }
    }
    mounts::remove(&data_dir.join(Settings::FILE))?;
    mounts::remove(data_dir)
}
