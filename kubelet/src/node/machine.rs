//! What this machine has and how much of it is left, read from its own files.
//!
//! Invariant: only reads; parsing is apart from reading and pure.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// The pool of huge pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HugePages {
    /// Bytes of one page.
    pub page_bytes: u64,
    /// How many the kernel set aside.
    pub pages: u64,
}

/// What does not change while the machine runs, or seldom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Logical processors.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of swap.
    pub swap_bytes: u64,
    /// Bytes of the file system of the kubelet's root directory.
    pub storage_bytes: u64,
    /// By page size.
    pub huge_pages: Vec<HugePages>,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's identity of the machine, or the machine id where there is none.
    pub system_uuid: String,
    /// New at each boot.
    pub boot_id: String,
    /// As `6.12.0-amd64`.
    pub kernel_version: String,
    /// As `Debian GNU/Linux 12 (bookworm)`.
    pub os_image: String,
}

impl Machine {
    /// Reads the machine; `root_dir` names the file system that counts as its storage.
    ///
    /// # Errors
    /// When `/proc` or `root_dir` can't be read. Identities that are missing are empty.
    pub fn read(root_dir: &Path) -> io::Result<Self> {
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let memory = parse_meminfo(&meminfo);
        let optional = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let machine_id = optional("/etc/machine-id");
        let uuid = Some(optional("/sys/class/dmi/id/product_uuid")).filter(|uuid| !uuid.is_empty());
        let storage = rustix::fs::statvfs(root_dir)?;
        Ok(Self {
            cpus: count_cpus(&fs::read_to_string("/proc/cpuinfo")?),
            memory_bytes: amount(&memory, "MemTotal"),
            swap_bytes: amount(&memory, "SwapTotal"),
            storage_bytes: storage.f_blocks.saturating_mul(storage.f_frsize),
            huge_pages: read_huge_pages(Path::new("/sys/kernel/mm/hugepages")),
            system_uuid: uuid.unwrap_or_else(|| machine_id.clone()),
            machine_id,
            boot_id: optional("/proc/sys/kernel/random/boot_id"),
            kernel_version: rustix::system::uname().release().to_string_lossy().into_owned(),
            os_image: os_image(&optional("/etc/os-release")),
        })
    }
}

/// An amount of which some is left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// What is left.
    pub available: u64,
    /// Of this much.
    pub capacity: u64,
}

/// What is left, by the names that eviction thresholds have for it (upstream: `evictionapi.Signal`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    /// `memory.available`, bytes: all that is not in use or in recently used file cache.
    pub memory: Left,
    /// `nodefs.available`, bytes.
    pub node_fs: Left,
    /// `nodefs.inodesFree`.
    pub node_inodes: Left,
    /// `imagefs.available`, bytes.
    pub image_fs: Left,
    /// `imagefs.inodesFree`.
    pub image_inodes: Left,
    /// `pid.available`.
    pub pids: Left,
}

impl Signals {
    /// Reads what is left; `root_dir` is on `nodefs`, `image_dir` on `imagefs`.
    ///
    /// # Errors
    /// When `/proc` or one of the directories can't be read.
    pub fn read(root_dir: &Path, image_dir: &Path) -> io::Result<Self> {
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let memory = parse_meminfo(&meminfo);
        let node = rustix::fs::statvfs(root_dir)?;
        // containerd makes its directory when it first starts.
        let image = rustix::fs::statvfs(image_dir).or_else(|_| rustix::fs::statvfs(root_dir))?;
        let bytes = |fs: &rustix::fs::StatVfs| Left {
            available: fs.f_bavail.saturating_mul(fs.f_frsize),
            capacity: fs.f_blocks.saturating_mul(fs.f_frsize),
        };
        let inodes = |fs: &rustix::fs::StatVfs| Left { available: fs.f_ffree, capacity: fs.f_files };
        let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let pid_max = number("/proc/sys/kernel/pid_max").unwrap_or(u64::MAX);
        let most = pid_max.min(number("/proc/sys/kernel/threads-max").unwrap_or(u64::MAX));
        let threads = count_threads(&fs::read_to_string("/proc/loadavg")?);
        Ok(Self {
            memory: Left {
                available: amount(&memory, "MemFree") + amount(&memory, "Inactive(file)"),
                capacity: amount(&memory, "MemTotal"),
            },
            node_fs: bytes(&node),
            node_inodes: inodes(&node),
            image_fs: bytes(&image),
            image_inodes: inodes(&image),
            pids: Left { available: most.saturating_sub(threads), capacity: most },
        })
    }
}

/// Bytes by name.
fn parse_meminfo(text: &str) -> BTreeMap<&str, u64> {
    let line = |line: &'_ str| -> Option<(usize, u64)> {
        let colon = line.find(':')?;
        let kib: u64 = line[colon + 1..].split_whitespace().next()?.parse().ok()?;
        Some((colon, kib.saturating_mul(1024)))
    };
    text.lines().filter_map(|text| line(text).map(|(colon, bytes)| (&text[..colon], bytes))).collect()
}

fn amount(memory: &BTreeMap<&str, u64>, name: &str) -> u64 {
    memory.get(name).copied().unwrap_or_default()
}

fn count_cpus(cpuinfo: &str) -> u32 {
    let count =
        cpuinfo.lines().filter(|line| line.split(':').next().is_some_and(|key| key.trim() == "processor")).count();
    u32::try_from(count.max(1)).unwrap_or(u32::MAX)
}

/// The number after the slash of `0.20 0.18 0.12 1/80 11206`.
fn count_threads(loadavg: &str) -> u64 {
    let field = loadavg.split_whitespace().nth(3).and_then(|field| field.split('/').nth(1));
    field.and_then(|count| count.parse().ok()).unwrap_or_default()
}

fn os_image(os_release: &str) -> String {
    let value = |key: &str| {
        let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches(['"', '\'']).to_owned())
    };
    value("PRETTY_NAME").or_else(|| value("NAME")).unwrap_or_else(|| "Linux".to_owned())
}

fn read_huge_pages(folder: &Path) -> Vec<HugePages> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let pool = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let kib: u64 = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let pages = fs::read_to_string(entry.path().join("nr_hugepages")).ok()?.trim().parse().ok()?;
        Some(HugePages { page_bytes: kib.saturating_mul(1024), pages })
    };
    let mut pools: Vec<_> = entries.filter_map(pool).collect();
    pools.sort_by_key(|pool| pool.page_bytes);
    pools
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        let memory = parse_meminfo("MemTotal:       24684096 kB\nInactive(file):  2 kB\nHugePages_Total:       0\n");
        assert_eq!(amount(&memory, "MemTotal"), 24_684_096 * 1024);
        assert_eq!(amount(&memory, "Inactive(file)"), 2048);
        assert_eq!(amount(&memory, "SwapTotal"), 0);
    }

    #[test]
    fn processors_threads_and_the_systems_name_are_found() {
        assert_eq!(count_cpus("processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\n"), 2);
        assert_eq!(count_threads("0.20 0.18 0.12 1/80 11206\n"), 80);
        assert_eq!(os_image("NAME=\"Debian\"\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read(Path::new("/")).expect("machine");
        let signals = Signals::read(Path::new("/"), Path::new("/nonexistent")).expect("signals");
        assert!(machine.cpus > 0 && machine.memory_bytes > 0 && machine.storage_bytes > 0);
        assert!(!machine.kernel_version.is_empty() && !machine.boot_id.is_empty());
        assert!(signals.memory.available > 0 && signals.memory.available <= signals.memory.capacity);
        assert!(signals.pids.available > 0);
    }

    proptest::proptest! {
        #[test]
        fn any_text_of_the_kernel_is_survived(text: String) {
            let _ = (parse_meminfo(&text), count_cpus(&text), count_threads(&text), os_image(&text));
        }
    }
}
