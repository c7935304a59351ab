//! What a machine has that a cluster could leave behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Mounts, links, namespaces, cgroups, containers and eBPF, each by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// What there is now.
    ///
    /// # Panics
    /// When the kernel does not say.
    #[must_use]
    pub fn now() -> Self {
        let mut all = BTreeSet::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        all.extend(mounts.lines().filter_map(|line| Some(format!("mount {}", line.split(' ').nth(4)?))));
        for folder in ["/sys/class/net", "/run/netns", "/run/containerd/s"] {
            all.extend(names(Path::new(folder)).into_iter().map(|path| path.display().to_string()));
        }
        for space in names(Path::new("/run/containerd/runc")) {
            all.extend(names(&space).into_iter().map(|path| path.display().to_string()));
        }
        let mut cgroups = vec![PathBuf::from("/sys/fs/cgroup")];
        while let Some(cgroup) = cgroups.pop() {
            cgroups.extend(names(&cgroup).into_iter().filter(|path| path.is_dir() && !path.is_symlink()));
            all.insert(format!("cgroup {}", cgroup.display()));
        }
        all.extend(aya::programs::loaded_programs().flatten().map(|program| {
            let name = program.name_as_str().unwrap_or_default().to_owned();
            format!("eBPF program {} {name}", program.id())
        }));
        all.extend(aya::maps::loaded_maps().flatten().map(|map| {
            let name = map.name_as_str().unwrap_or_default().to_owned();
            format!("eBPF map {} {name}", map.id())
        }));
        Self(all)
    }

    /// What is here and was not there.
    #[must_use]
    pub fn since(&self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

/// The processes, named by their command lines, in which some words occur.
#[must_use]
pub fn processes_with(words: &str) -> Vec<String> {
    let numbered = names(Path::new("/proc")).into_iter().filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
    });
    numbered
        .filter_map(|path| {
            let line = fs::read(path.join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(words).then(|| format!("{}: {line}", path.display()))
        })
        .collect()
}

/// The pids of processes of a name in a cgroup whose path has some words in it, as a pod's uid.
#[must_use]
pub fn pids_in_cgroup(name: &str, words: &str) -> Vec<String> {
    let of = |path: &Path, file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
    let found = names(Path::new("/proc")).into_iter().filter(|path| of(path, "comm").trim() == name);
    let found = found.filter(|path| of(path, "cgroup").contains(words));
    found.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect()
}

fn names(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
