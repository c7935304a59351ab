//! The OCI runtime specification of a container: a pure function of what was resolved for it.
//!
//! Invariant: nothing is looked up here; names, users, mounts and variables arrive resolved.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::host::{Device, HostFacts};

/// Capabilities of a container that asks for none (containerd's default set).
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Nobody but a privileged container sees these.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Nobody but a privileged container writes these.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// A bind mount into the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    /// On the node.
    pub source: PathBuf,
    /// In the container.
    pub destination: PathBuf,
    /// Writes are refused.
    pub read_only: bool,
    /// Nothing in it can be executed.
    pub no_exec: bool,
    /// What is mounted below it, before or later, is seen on the other side.
    pub propagation: Propagation,
}

/// How mounts spread between a volume and the node (upstream: `mountPropagation`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Propagation {
    /// Neither way (`None`).
    #[default]
    Private,
    /// From the node into the container (`HostToContainer`).
    FromNode,
    /// Both ways (`Bidirectional`).
    Both,
}

/// The pod's pinned namespaces; one that is none is the node's own (`hostNetwork`, `hostIPC`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodNamespaces {
    /// Network.
    pub network: Option<PathBuf>,
    /// System V IPC and POSIX message queues.
    pub ipc: Option<PathBuf>,
    /// Hostname.
    pub uts: Option<PathBuf>,
    /// Processes: false is a namespace of the container's own, true the node's (`hostPID`).
    pub host_pid: bool,
    /// The processes' namespace of another container of the pod, which this one joins.
    pub target_pid: Option<PathBuf>,
}

/// All that makes a container's specification.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSpec {
    /// The command and its arguments, expanded.
    pub args: Vec<String>,
    /// `NAME=value`, in order.
    pub env: Vec<String>,
    /// The working directory.
    pub cwd: PathBuf,
    /// User and group.
    pub user: (u32, u32),
    /// Supplemental groups, `fsGroup` among them.
    pub groups: Vec<u32>,
    /// Names with `CAP_`, after the defaults, additions and drops were applied.
    pub capabilities: Vec<String>,
    /// The process may not gain privileges (`allowPrivilegeEscalation: false`).
    pub no_new_privileges: bool,
    /// The root file system refuses writes.
    pub read_only_root: bool,
    /// The process has a terminal.
    pub terminal: bool,
    /// Relative to the parent's; more is killed first.
    pub oom_score_adj: i32,
    /// Beyond the standard ones; later ones lie over earlier ones.
    pub mounts: Vec<BindMount>,
    /// The pod's namespaces.
    pub namespaces: PodNamespaces,
    /// The pod's `/dev/shm` on the node, shared by its containers; none is the node's own (`hostIPC`).
    pub shm: Option<PathBuf>,
    /// All devices, `/sys` writable, nothing masked (`privileged`).
    pub privileged: bool,
    /// Nothing of `/proc` is masked or read-only (`procMount: Unmasked`).
    pub unmasked_proc: bool,
    /// The seccomp profile as the OCI specification's `linux.seccomp`; none is unconfined.
    pub seccomp: Option<Value>,
    /// The container's cgroup, below the pod's.
    pub cgroup: PathBuf,
    /// Weight, quota (microseconds a 100 ms period) and memory bytes.
    pub cpu_shares: u64,
    /// None: as much as there is.
    pub cpu_quota: Option<i64>,
    /// None: no limit.
    pub memory_bytes: Option<i64>,
    /// Containers with the same group share a shim: the pod's UID.
    pub shim_group: String,
}

impl ContainerSpec {
    /// The specification as runc reads it, for a machine of which nothing is known: no device nodes but the usual ones,
    /// cgroup v1. [`Self::to_oci_on`] is for a real one.
    pub fn to_oci(&self) -> Value {
        self.to_oci_on(&HostFacts::default())
    }

    /// The specification as runc reads it, on a machine: what `privileged` means depends on it.
    pub fn to_oci_on(&self, host: &HostFacts) -> Value {
        let capabilities = match self.privileged && !host.capabilities.is_empty() {
            true => json!(host.capabilities),
            false => json!(self.capabilities),
        };
        let mut linux = json!({
            "cgroupsPath": self.cgroup,
            "namespaces": self.all_namespaces(host),
            "resources": {
                "devices": self.device_rules(),
                "cpu": {"shares": self.cpu_shares, "quota": self.cpu_quota.unwrap_or(-1), "period": 100_000},
                "memory": self.memory_bytes.map_or(json!({}), |bytes| json!({"limit": bytes})),
            },
        });
        if let Some(propagation) = self.root_propagation() {
            linux["rootfsPropagation"] = propagation.into();
        }
        if self.privileged {
            linux["devices"] = host.devices.iter().map(Device::to_oci).collect();
        } else {
            let hidden = |path: &&&str| !self.unmasked_proc || !path.starts_with("/proc");
            linux["maskedPaths"] = MASKED.iter().filter(hidden).copied().collect();
            linux["readonlyPaths"] = READ_ONLY.iter().filter(hidden).copied().collect();
        }
        if let Some(profile) = &self.seccomp {
            linux["seccomp"] = profile.clone();
        }
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": self.terminal,
                "user": {"uid": self.user.0, "gid": self.user.1, "additionalGids": self.groups},
                "args": self.args,
                "env": self.env,
                "cwd": self.cwd,
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
                "noNewPrivileges": self.no_new_privileges,
                "oomScoreAdj": self.oom_score_adj,
            },
            "root": {"path": "rootfs", "readonly": self.read_only_root},
            "mounts": self.all_mounts(),
            "annotations": {"io.containerd.runc.v2.group": self.shim_group},
            "linux": linux,
        })
    }

    fn all_namespaces(&self, host: &HostFacts) -> Vec<Value> {
        let pod = &self.namespaces;
        let joined = [("network", &pod.network), ("ipc", &pod.ipc), ("uts", &pod.uts)].into_iter();
        let joined = joined.filter_map(|(kind, path)| Some(json!({"type": kind, "path": path.as_ref()?})));
        let mut all = vec![json!({"type": "mount"})];
        match &pod.target_pid {
            Some(path) => all.push(json!({"type": "pid", "path": path})),
            None if pod.host_pid => {}
            None => all.push(json!({"type": "pid"})),
        }
        // As containerd: on cgroup v2 a container sees its own cgroup as the root, unless it is to manage the node's.
        if host.cgroup_v2 && !self.privileged {
            all.push(json!({"type": "cgroup"}));
        }
        all.extend(joined);
        all
    }

    fn all_mounts(&self) -> Vec<Value> {
        let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
        let access = if self.privileged { "rw" } else { "ro" };
        let mut mounts = vec![
            mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount(
                "/dev/pts",
                "devpts",
                "devpts",
                &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            ),
            self.shm_mount(),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ];
        mounts.push(match self.namespaces.network {
            Some(_) => mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
            None => mount("/sys", "bind", "/sys", &["rbind", "nosuid", "noexec", "nodev", access]),
        });
        mounts.push(mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access]));
        // A volume takes the place of what would be there.
        let taken = |mount: &Value| self.mounts.iter().any(|bind| mount["destination"] == json!(bind.destination));
        mounts.retain(|mount| !taken(mount));
        // What lies deeper comes later, however the pod lists its volumes.
        let mut binds: Vec<&BindMount> = self.mounts.iter().collect();
        binds.sort_by_key(|bind| bind.destination.components().count());
        mounts.extend(binds.into_iter().map(|bind| {
            let access = if bind.read_only { "ro" } else { "rw" };
            let propagation = match bind.propagation {
                Propagation::Private => "rprivate",
                Propagation::FromNode => "rslave",
                Propagation::Both => "rshared",
            };
            let mut options = vec!["rbind", propagation, access];
            options.extend(bind.no_exec.then_some("noexec"));
            json!({"destination": bind.destination, "type": "bind", "source": bind.source, "options": options})
        }));
        mounts
    }

    fn shm_mount(&self) -> Value {
        let options = ["nosuid", "noexec", "nodev"];
        let bind = |source: &Path| {
            let options = [["rbind"].as_slice(), &options, &["rprivate"]].concat();
            json!({"destination": "/dev/shm", "type": "bind", "source": source, "options": options})
        };
        match (&self.shm, &self.namespaces.ipc) {
            (Some(shm), _) => bind(shm),
            (None, None) => bind(Path::new("/dev/shm")),
            (None, Some(_)) => {
                let options = [options.as_slice(), &["mode=1777", "size=65536k"]].concat();
                json!({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": options})
            }
        }
    }

    /// The root's mounts must spread at least as far as those of the volume that spreads farthest.
    fn root_propagation(&self) -> Option<&'static str> {
        let any = |propagation| self.mounts.iter().any(|bind| bind.propagation == propagation);
        match (any(Propagation::Both), any(Propagation::FromNode)) {
            (true, _) => Some("rshared"),
            (false, true) => Some("rslave"),
            (false, false) => None,
        }
    }

    /// Everything is denied but making device nodes and the devices that runc puts into `/dev`; nothing to a privileged
    /// container.
    fn device_rules(&self) -> Value {
        if self.privileged {
            return json!([{"allow": true, "access": "rwm"}]);
        }
        let allow = |major: i64, minor: i64| json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"});
        json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "access": "m"}, {"allow": true, "type": "b", "access": "m"},
            allow(1, 3), allow(1, 5), allow(1, 7), allow(1, 8), allow(1, 9), allow(5, 0), allow(5, 2),
            {"allow": true, "type": "c", "major": 136, "access": "rwm"},
        ])
    }
}

#[cfg(test)]
mod tests;
