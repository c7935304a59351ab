//! What a container's specification needs to know of the machine: cgroup version, capabilities, device nodes.
//!
//! Invariant: read anew when asked; a machine on which nothing can be read is one with nothing.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The kernel's capabilities by number (`include/uapi/linux/capability.h`).
pub const CAPABILITIES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Folders and nodes of `/dev` that a container has its own of (containerd's `HostDevices`).
const OWN_IN_CONTAINER: [&str; 7] = ["pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"];
/// `/dev` is not deep; a loop of bind mounts would be.
const MAX_DEPTH: usize = 8;

/// A device node of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// In `/dev`.
    pub path: PathBuf,
    /// Block device, else character device.
    pub block: bool,
    /// Major and minor number.
    pub number: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
}

impl Device {
    /// As the OCI specification has it.
    pub(super) fn to_oci(&self) -> Value {
        json!({
            "path": self.path, "type": if self.block { "b" } else { "c" },
            "major": self.number.0, "minor": self.number.1,
            "fileMode": self.mode, "uid": self.owner.0, "gid": self.owner.1,
        })
    }
}

/// The machine as containers see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// cgroup v2 alone is mounted: containers get a cgroup namespace of their own.
    pub cgroup_v2: bool,
    /// What a privileged container may have: no more than this process has itself.
    pub capabilities: Vec<&'static str>,
    /// What a privileged container finds in `/dev`.
    pub devices: Vec<Device>,
}

impl HostFacts {
    /// Reads them from `/proc`, `/sys` and `/dev`.
    pub fn detect() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut found = Vec::new();
        devices(Path::new("/dev"), 0, &mut found);
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Self {
            cgroup_v2: Path::new("/sys/fs/cgroup/cgroup.controllers").exists(),
            capabilities: bounding(&status),
            devices: found,
        }
    }
}

/// The bounding set of a `/proc/<pid>/status`.
fn bounding(status: &str) -> Vec<&'static str> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let set = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    CAPABILITIES.iter().enumerate().filter(|(number, _)| set >> number & 1 == 1).map(|(_, name)| *name).collect()
}

fn devices(folder: &Path, depth: usize, found: &mut Vec<Device>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // Of the entry itself: links are not devices.
        let Ok(is) = entry.metadata() else { continue };
        let name = entry.file_name();
        let kind = is.file_type();
        if kind.is_dir() {
            if depth < MAX_DEPTH && !OWN_IN_CONTAINER.iter().any(|own| name == *own) {
                devices(&entry.path(), depth + 1, found);
            }
        } else if (kind.is_char_device() || kind.is_block_device()) && name != "console" && is.rdev() != 0 {
            let number = (rustix::fs::major(is.rdev()), rustix::fs::minor(is.rdev()));
            let mode = is.mode() & 0o7777;
            let (path, owner) = (entry.path(), (is.uid(), is.gid()));
            found.push(Device { path, block: kind.is_block_device(), number, mode, owner });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounding_set_is_read_by_bits() {
        assert_eq!(bounding("Name:\tx\nCapBnd:\t0000000000000021\n"), ["CAP_CHOWN", "CAP_KILL"]);
        assert!(bounding("").is_empty());
    }

    #[test]
    fn the_machine_has_a_null_device_and_no_terminals() {
        let found = HostFacts::detect().devices;
        let null = found.iter().find(|device| device.path == Path::new("/dev/null")).unwrap();
        assert_eq!((null.number, null.block), ((1, 3), false));
        assert!(!found.iter().any(|device| device.path.starts_with("/dev/pts")));
    }
}
