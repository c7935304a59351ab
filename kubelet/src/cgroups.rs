//! The cgroups of a node's pods: `<root>/kubepods[/besteffort|/burstable]/pod<uid>`.
//!
//! Invariant: directories are made, written and removed under the given root only; no cgroup tree is ever mounted.
//! [`Hierarchy::detect`] finds which of the two layouts the machine has.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Controllers that a pod's limits need.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];
/// The scheduler's period in microseconds (upstream: `QuotaPeriod`).
const PERIOD_MICROS: u64 = 100_000;

/// A pod's class of service (upstream: `GetPodQOS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosClass {
    /// Limits equal requests for every container.
    Guaranteed,
    /// Some request or limit is given.
    Burstable,
    /// None is given.
    BestEffort,
}

/// What a cgroup may use; none means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// The requested processor time in thousandths of a core: the weight against others.
    pub cpu_request_millis: u64,
    /// The most processor time in thousandths of a core.
    pub cpu_limit_millis: Option<u64>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Limits {
    /// Limits that hold nothing back that either lets through.
    #[must_use]
    pub fn widest(self, other: Self) -> Self {
        // No limit is the widest.
        let most = |one: Option<u64>, other: Option<u64>| Some(one?.max(other?));
        Self {
            cpu_request_millis: self.cpu_request_millis.max(other.cpu_request_millis),
            cpu_limit_millis: most(self.cpu_limit_millis, other.cpu_limit_millis),
            memory_bytes: most(self.memory_bytes, other.memory_bytes),
            pids: most(self.pids, other.pids),
        }
    }
}

/// Which layout the machine's cgroups have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A tree a controller.
    V1,
    /// One tree.
    V2,
}

/// The machine's cgroup tree and the part of it that is this node's.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    mount: PathBuf,
    root: PathBuf,
    version: Version,
}

impl Hierarchy {
    /// Finds the layout at `mount` (`/sys/fs/cgroup`); `root` is the node's own cgroup, as `/skep/node-1`.
    pub fn detect(mount: &Path, root: &Path) -> Self {
        // Only the root of a v2 tree has this file; a hybrid machine has it below `unified`.
        let version = if mount.join("cgroup.controllers").exists() { Version::V2 } else { Version::V1 };
        let root = root.strip_prefix("/").unwrap_or(root).to_owned();
        Self { mount: mount.to_owned(), root, version }
    }

    /// The layout that was found.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The cgroup of a pod, absolute within the tree: what containerd is given as the parent of its containers.
    pub fn pod_path(&self, qos: QosClass, uid: &str) -> PathBuf {
        let class = match qos {
            QosClass::Guaranteed => "kubepods",
            QosClass::Burstable => "kubepods/burstable",
            QosClass::BestEffort => "kubepods/besteffort",
        };
        Path::new("/").join(&self.root).join(class).join(format!("pod{uid}"))
    }

    /// Makes the cgroup at `path` (see [`Self::pod_path`]) with its parents, and sets its limits.
    ///
    /// # Errors
    /// When the kernel refuses a directory or a value.
    pub fn apply(&self, path: &Path, limits: Limits) -> io::Result<()> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        match self.version {
            Version::V1 => {
                for controller in self.controllers() {
                    let tree = self.mount.join(controller);
                    create_v1(&tree, relative, controller)?;
                    write_all(&tree.join(relative), &v1_settings(controller, limits))?;
                }
                Ok(())
            }
            Version::V2 => {
                create_v2(&self.mount, relative)?;
                write_all(&self.mount.join(relative), &v2_settings(limits))
            }
        }
    }

    /// Removes a cgroup with all below it, from every tree that has it: a runtime makes it in more trees than have limits.
    ///
    /// # Errors
    /// `ResourceBusy` while a process is in it.
    pub fn remove_all(&self, path: &Path) -> io::Result<()> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        self.trees()?.iter().try_for_each(|tree| remove_below(&tree.join(relative)))
    }

    /// How often the kernel killed for memory in a cgroup; 0 when that can't be read.
    pub fn oom_kills(&self, path: &Path) -> u64 {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let file = match self.version {
            Version::V1 => self.mount.join("memory").join(relative).join("memory.oom_control"),
            Version::V2 => self.mount.join(relative).join("memory.events"),
        };
        let text = fs::read_to_string(file).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        count.unwrap_or(0)
    }

    /// Bytes that a cgroup uses; none when that can't be read.
    pub fn memory_usage(&self, path: &Path) -> Option<u64> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let file = match self.version {
            Version::V1 => self.mount.join("memory").join(relative).join("memory.usage_in_bytes"),
            Version::V2 => self.mount.join(relative).join("memory.current"),
        };
        fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    /// Every cgroup tree: one in v2, one a controller and the unified one otherwise.
    fn trees(&self) -> io::Result<Vec<PathBuf>> {
        if self.version == Version::V2 {
            return Ok(vec![self.mount.clone()]);
        }
        let mut trees = Vec::new();
        for entry in fs::read_dir(&self.mount)? {
            let entry = entry?;
            // Names of combined controllers are links to the tree that both have.
            if entry.file_type()?.is_dir() {
                trees.push(entry.path());
            }
        }
        Ok(trees)
    }

    fn controllers(&self) -> impl Iterator<Item = &'static str> {
        CONTROLLERS.into_iter().filter(|controller| self.mount.join(controller).is_dir())
    }
}

/// Removes a cgroup's folder, the ones below it first; its files can't be removed, and need not be.
fn remove_below(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path())?;
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("{}: {error}", directory.display())))
        }
        Err(_) | Ok(()) => Ok(()),
    }
}

/// The v1 weight of a request (upstream: `MilliCPUToShares`).
pub fn cpu_shares(millis: u64) -> u64 {
    (millis.saturating_mul(1024) / 1000).clamp(2, 262_144)
}

/// The v2 weight for v1 shares (KEP-2254): 2..=262144 mapped to 1..=10000.
pub fn cpu_weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn quota(millis: u64) -> u64 {
    // The kernel takes no quota under a millisecond.
    (millis.saturating_mul(PERIOD_MICROS) / 1000).max(1000)
}

fn v1_settings(controller: &str, limits: Limits) -> Vec<(&'static str, String)> {
    let or_none = |value: Option<u64>, none: &str| value.map_or_else(|| none.to_owned(), |value| value.to_string());
    match controller {
        "cpu" => vec![
            ("cpu.shares", cpu_shares(limits.cpu_request_millis).to_string()),
            ("cpu.cfs_period_us", PERIOD_MICROS.to_string()),
            ("cpu.cfs_quota_us", or_none(limits.cpu_limit_millis.map(quota), "-1")),
        ],
        "memory" => vec![("memory.limit_in_bytes", or_none(limits.memory_bytes, "-1"))],
        "pids" => vec![("pids.max", or_none(limits.pids, "max"))],
        _ => vec![],
    }
}

fn v2_settings(limits: Limits) -> Vec<(&'static str, String)> {
    let or_max = |value: Option<u64>| value.map_or_else(|| "max".to_owned(), |value| value.to_string());
    vec![
        ("cpu.weight", cpu_weight(cpu_shares(limits.cpu_request_millis)).to_string()),
        ("cpu.max", format!("{} {PERIOD_MICROS}", or_max(limits.cpu_limit_millis.map(quota)))),
        ("memory.max", or_max(limits.memory_bytes)),
        ("pids.max", or_max(limits.pids)),
    ]
}

fn write_all(directory: &Path, settings: &[(&str, String)]) -> io::Result<()> {
    settings.iter().try_for_each(|(file, value)| {
        let path = directory.join(file);
        fs::write(&path, value)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {value}: {error}", path.display())))
    })
}

/// A new v1 cpuset has no processors and takes no process until it was given its parent's.
fn create_v1(tree: &Path, relative: &Path, controller: &str) -> io::Result<()> {
    let mut directory = tree.to_owned();
    for part in relative {
        let parent = directory.clone();
        directory.push(part);
        fs::create_dir_all(&directory)?;
        if controller == "cpuset" {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if fs::read_to_string(directory.join(file))?.trim().is_empty() {
                    fs::write(directory.join(file), fs::read_to_string(parent.join(file))?.trim())?;
                }
            }
        }
    }
    Ok(())
}

/// In v2 a parent must hand each controller down before a child can be limited by it.
fn create_v2(mount: &Path, relative: &Path) -> io::Result<()> {
    let mut directory = mount.to_owned();
    for part in relative {
        let available = fs::read_to_string(directory.join("cgroup.controllers"))?;
        let wanted: Vec<_> = CONTROLLERS
            .into_iter()
            .filter(|controller| available.split_whitespace().any(|name| name == *controller))
            .map(|controller| format!("+{controller}"))
            .collect();
        fs::write(directory.join("cgroup.subtree_control"), wanted.join(" "))?;
        directory.push(part);
        fs::create_dir_all(&directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { cpu_request_millis: 250, cpu_limit_millis: Some(500), memory_bytes: Some(64 << 20), pids: Some(100) };

    #[test]
    fn shares_and_weights_follow_upstream() {
        assert_eq!([0, 1, 250, 1000, 1_000_000].map(cpu_shares), [2, 2, 256, 1024, 262_144]);
        assert_eq!([2, 1024, 262_144].map(cpu_weight), [1, 39, 10_000]);
        assert_eq!([1, 500].map(quota), [1000, 50_000]);
    }

    #[test]
    fn settings_without_a_limit_lift_the_old_one() {
        let v2 = v2_settings(Limits::default());
        assert!(v2.contains(&("memory.max", "max".to_owned())) && v2.contains(&("cpu.max", "max 100000".to_owned())));
        assert_eq!(v1_settings("memory", Limits::default()), [("memory.limit_in_bytes", "-1".to_owned())]);
    }

    #[test]
    fn a_pod_is_limited_by_the_machines_own_cgroups() {
        let mount = Path::new("/sys/fs/cgroup");
        let root = format!("/skep-cgroup-test-{}", std::process::id());
        let cgroups = Hierarchy::detect(mount, Path::new(&root));
        let path = cgroups.pod_path(QosClass::Burstable, "u1");
        cgroups.apply(&path, LIMITS).expect("apply, as root");
        let relative = path.strip_prefix("/").expect("absolute");
        let file = match cgroups.version() {
            Version::V1 => mount.join("memory").join(relative).join("memory.limit_in_bytes"),
            Version::V2 => mount.join(relative).join("memory.max"),
        };
        let limit = fs::read_to_string(file).expect("limit");
        cgroups.remove_all(Path::new(&root)).expect("remove");
        assert!(!mount.join(root.trim_start_matches('/')).exists());
        cgroups.remove_all(Path::new(&root)).expect("what is not there is no error");
        assert_eq!(limit.trim(), (64 << 20).to_string());
    }
}
