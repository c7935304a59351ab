//! The machine that figures are of, and when: without them a figure says nothing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::shell;

/// Date, processors, memory, kernel, disk and load, as one sentence.
pub(crate) fn facts() -> Result<String> {
    let read = |path: &str| fs::read_to_string(path).with_context(|| format!("can't read {path}"));
    let date = shell::output(&mut shell::command("date", ["-u", "+%-d %B %Y"]))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpuinfo = read("/proc/cpuinfo")?;
    let model = value(&cpuinfo, "model name").unwrap_or("unnamed");
    let meminfo = read("/proc/meminfo")?;
    let memory = value(&meminfo, "MemTotal").and_then(kibibytes).unwrap_or_default() as f64 / f64::from(1 << 20);
    let kernel = read("/proc/sys/kernel/osrelease")?;
    let disk = disk(&read("/proc/self/mounts")?, &std::env::temp_dir()).unwrap_or_else(|| "unknown".into());
    let loadavg = read("/proc/loadavg")?;
    let load = loadavg.split(' ').next().unwrap_or_default();
    Ok(format!(
        "{}: {cores} cores ({model}), {memory:.0} GiB, Linux {}, {disk}; load at the start {load}",
        date.trim(),
        kernel.trim()
    ))
}

/// The value behind a name, in the form that /proc has.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix("kB")?.trim().parse().ok()
}

/// The file system that a folder is on, and its device.
fn disk(mounts: &str, folder: &Path) -> Option<String> {
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        Some((fields.next()?, fields.next()?, fields.next()?))
    });
    // The last of the mounts at one place is the one that is seen.
    let (device, _, kind) =
        fields.filter(|(_, place, _)| folder.starts_with(place)).max_by_key(|(_, place, _)| place.len())?;
    Some(format!("{kind} on {device}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_on_the_nearest_mount_above_it() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /tmp ext4 rw 0 0\ntmpfs /tmpfiles tmpfs rw 0 0\n";
        assert_eq!(disk(mounts, Path::new("/tmp/x")).as_deref(), Some("ext4 on /dev/vdb"));
        assert_eq!(disk(mounts, Path::new("/var")).as_deref(), Some("ext4 on /dev/vda"));
    }

    #[test]
    fn memory_is_read_in_kibibytes() {
        assert_eq!(value("MemTotal:       24650000 kB\n", "MemTotal").and_then(kibibytes), Some(24_650_000));
    }
}
