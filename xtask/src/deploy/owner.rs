//! Whose a cluster's names are: `/run/NAME/data-dir` names the data directory that made the links, namespaces and cgroups of that name.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::layout::Layout;
use super::{cgroups, network};

/// Takes the cluster's names for this data directory.
///
/// # Errors
/// When they are another cluster's, or something that no cluster has made has one of them.
pub(crate) fn claim(layout: &Layout, known: bool) -> Result<()> {
    match read(layout)? {
        Some(owner) if Path::new(&owner) == layout.data_dir => return Ok(()),
        Some(owner) => bail!(
            "the name {:?} is that of the cluster in {owner}: take it away with `cargo xtask deploy --down --data-dir \
             {owner}`, or choose another by --name",
            layout.name()
        ),
        None => {}
    }
    // A cluster that is known was here before the machine's restart, or somebody emptied /run: what is there is its own.
    if !known {
        let mut there = network::there(layout)?;
        if cgroups::exists(&layout.cgroup())? {
            there.push(format!("cgroup {}", layout.cgroup().display()));
        }
        if !there.is_empty() {
            bail!("these are there, and no cluster's: {}; choose another --name", there.join(", "));
        }
    }
    let file = layout.owner_file();
    fs::create_dir_all(layout.run_dir()).with_context(|| format!("can't make {}", layout.run_dir().display()))?;
    fs::write(&file, layout.data_dir.to_string_lossy().as_bytes())
        .with_context(|| format!("can't write {}", file.display()))
}

/// Whether the cluster's names on this machine are this data directory's to take away.
///
/// # Errors
/// When the file can't be read.
pub(crate) fn is_owner(layout: &Layout, known: bool) -> Result<bool> {
    Ok(read(layout)?.map_or(known, |owner| Path::new(&owner) == layout.data_dir))
}

/// Whether a data directory can be used: one of ours, an empty one, or none yet. What else is in it would go with `--down`.
///
/// # Errors
/// When it holds something else.
pub(crate) fn check_data_dir(data_dir: &Path, known: bool) -> Result<()> {
    // One of the time when there was a control plane only.
    if known || data_dir.join("pki/ca.crt").exists() {
        return Ok(());
    }
    let holds_something = match fs::read_dir(data_dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => return Err(error).with_context(|| format!("can't read {}", data_dir.display())),
    };
    if holds_something {
        bail!("{} holds something that is no cluster's: choose another --data-dir", data_dir.display());
    }
    Ok(())
}

fn read(layout: &Layout) -> Result<Option<String>> {
    match fs::read_to_string(layout.owner_file()) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't read {}", layout.owner_file().display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_else_in_it_is_no_data_directory() {
        let folder = tempfile::tempdir().expect("a folder");
        check_data_dir(folder.path(), false).expect("empty");
        check_data_dir(&folder.path().join("none"), false).expect("not there");
        fs::write(folder.path().join("letter"), "").expect("written");
        assert!(check_data_dir(folder.path(), false).is_err());
        check_data_dir(folder.path(), true).expect("ours");
    }
}
