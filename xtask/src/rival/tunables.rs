//! The machine's settings that upstream's kubelet changes without asking (`setupKernelTunables`): they are noted before it
//! starts, and are as they were when the cluster is gone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const NAMES: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Notes them in a file, unless they are noted.
///
/// # Errors
/// When the file can't be written.
pub(super) fn note(file: &Path) -> Result<()> {
    if file.exists() {
        return Ok(());
    }
    let values: BTreeMap<&str, String> = NAMES.into_iter().filter_map(|name| Some((name, read(name)?))).collect();
    fs::write(file, serde_json::to_string(&values)?).with_context(|| format!("can't write {}", file.display()))
}

/// Sets what was noted, where it is no longer so.
///
/// # Errors
/// When the file can't be read, or the kernel refuses.
pub(super) fn restore(file: &Path) -> Result<()> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("can't read {}", file.display())),
    };
    let noted: BTreeMap<String, String> =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))?;
    for (name, value) in noted {
        if NAMES.contains(&name.as_str()) && read(&name).is_some_and(|now| now != value) {
            fs::write(Path::new("/proc/sys").join(&name), &value).with_context(|| format!("can't set {name}"))?;
        }
    }
    Ok(())
}

fn read(name: &str) -> Option<String> {
    fs::read_to_string(Path::new("/proc/sys").join(name)).ok().map(|text| text.trim().to_owned())
}
