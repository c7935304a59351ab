//! The kernel's side: programs loaded and attached, maps filled by differences.
//!
//! Everything is pinned, so that traffic flows on without the agent: maps under `v<layout>/`, links beside them. A new agent
//! reads the maps back, changes only what differs, and puts its programs in the place of the old ones ([`Programs`]).

mod attach;
mod flows;
mod netns_cookie;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use skep_ebpf_common::{
    Address, Affinity, AffinityKey, Backend, Config, Endpoint, Flow, FlowKey, LAYOUT_VERSION, ReverseKey, Service,
    SlotKey, UDP,
};

pub use self::attach::{CGROUP_PROGRAMS, Programs, UPLINK_PROGRAMS, Uplink, attach, detach, load};
pub use self::flows::expired;
use crate::compile::Entries;

/// Why the kernel's side failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A file or folder on the way could not be used.
    #[error("{path}: {source}")]
    Path {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The object could not be loaded.
    #[error("can't load the eBPF object: {0}")]
    Load(#[from] aya::EbpfError),
    /// A program could not be loaded or attached.
    #[error("can't run the program {name}: {source}")]
    Program {
        /// The program.
        name: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The network namespace could not be told from others.
    #[error("can't read the cookie of the network namespace: {source}")]
    Namespace {
        /// Why.
        source: io::Error,
    },
    /// A map could not be read or written.
    #[error("can't use the map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// Why.
        source: MapError,
    },
}

/// The most entries that are read at once of a map that programs write to: twice what the largest holds.
const MOST_READ: usize = 262_144;

/// The pinned maps of one node.
pub struct Maps {
    services: HashMap<MapData, Endpoint, Service>,
    externals: HashMap<MapData, Endpoint, Service>,
    slots: HashMap<MapData, SlotKey, u32>,
    backends: HashMap<MapData, u32, Backend>,
    inside: LpmTrie<MapData, Address, u32>,
    config: Array<MapData, Config>,
    affinities: HashMap<MapData, AffinityKey, Affinity>,
    reverses: HashMap<MapData, ReverseKey, Endpoint>,
    flows: HashMap<MapData, FlowKey, Flow>,
}

/// How many entries an update wrote and removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Written.
    pub written: usize,
    /// Removed.
    pub removed: usize,
}

/// The clock that the programs read (`bpf_ktime_get_ns`), in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let nanoseconds = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanoseconds).unwrap_or(0)
}

/// Where the maps of this layout are pinned.
#[must_use]
pub fn map_folder(bpf_dir: &Path) -> PathBuf {
    bpf_dir.join(format!("v{LAYOUT_VERSION}"))
}

impl Maps {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// When a map is not there or is another.
    pub fn open(bpf_dir: &Path) -> Result<Self, KernelError> {
        let folder = map_folder(bpf_dir);
        let data = |name| MapData::from_pin(folder.join(name)).map_err(of(name));
        Ok(Self {
            services: open(&folder, "SERVICES", Map::HashMap)?,
            externals: open(&folder, "EXTERNALS", Map::HashMap)?,
            slots: open(&folder, "SLOTS", Map::HashMap)?,
            backends: open(&folder, "BACKENDS", Map::HashMap)?,
            inside: LpmTrie::try_from(Map::LpmTrie(data("INSIDE")?)).map_err(of("INSIDE"))?,
            config: Array::try_from(Map::Array(data("CONFIG")?)).map_err(of("CONFIG"))?,
            affinities: open(&folder, "AFFINITIES", Map::LruHashMap)?,
            reverses: open(&folder, "REVERSES", Map::LruHashMap)?,
            flows: open(&folder, "FLOWS", Map::LruHashMap)?,
        })
    }

    /// What the maps hold now.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn entries(&self) -> Result<Entries, KernelError> {
        let inside = self.inside.iter().map(|entry| entry.map(|(key, value)| ((key.data(), key.prefix_len()), value)));
        Ok(Entries {
            services: read("SERVICES", &self.services)?,
            externals: read("EXTERNALS", &self.externals)?,
            slots: read("SLOTS", &self.slots)?,
            backends: read("BACKENDS", &self.backends)?,
            inside: inside.collect::<Result<_, _>>().map_err(of("INSIDE"))?,
        })
    }

    /// The sockets that talk to backends, and the service that each of them addressed.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn connections(&self) -> Result<Vec<(ReverseKey, Endpoint)>, KernelError> {
        read_unsorted("REVERSES", &self.reverses)
    }

    /// The halves of the flows that are translated at the uplink.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn flows(&self) -> Result<Vec<(FlowKey, Flow)>, KernelError> {
        read_unsorted("FLOWS", &self.flows)
    }

    /// Removes the flows that are over at `now_ns` of the kernel's monotonic clock: how many halves.
    ///
    /// # Errors
    /// When the map can't be read or written.
    pub fn collect(&mut self, now_ns: u64) -> Result<usize, KernelError> {
        let over = expired(&self.flows()?, now_ns);
        for key in &over {
            absent_is_fine("FLOWS", self.flows.remove(key))?;
        }
        Ok(over.len())
    }

    /// Sets the address that translated packets are sent from.
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn set_address(&mut self, address: Ipv4Addr) -> Result<(), KernelError> {
        self.configure(|config| config.address = address.octets())
    }

    /// Tells the programs which network namespace is the node's own, by the kernel's cookie (`SO_NETNS_COOKIE`).
    ///
    /// # Errors
    /// When the map can't be written.
    pub fn set_netns(&mut self, cookie: u64) -> Result<(), KernelError> {
        self.configure(|config| config.netns = cookie)
    }

    fn configure(&mut self, change: impl FnOnce(&mut Config)) -> Result<(), KernelError> {
        let mut config = self.config.get(&0, 0).map_err(of("CONFIG"))?;
        change(&mut config);
        self.config.set(0, config, 0).map_err(of("CONFIG"))
    }

    /// Brings the maps from what they hold to what is wanted. The order keeps each step usable: backends and slots come before
    /// the services that count on them and leave after; a service that shrinks does so before its slots go.
    ///
    /// # Errors
    /// When a map can't be written; the next call takes up what is left, from what the maps hold then.
    pub fn update(&mut self, now: &Entries, wanted: &Entries) -> Result<Changes, KernelError> {
        let mut changes = Changes::default();
        for ((address, length), value) in wanted.inside.iter().filter(|(key, value)| now.inside.get(key) != Some(value))
        {
            self.inside.insert(&Key::new(*length, *address), value, 0).map_err(of("INSIDE"))?;
            changes.written += 1;
        }
        for (address, length) in now.inside.keys().filter(|key| !wanted.inside.contains_key(key)) {
            absent_is_fine("INSIDE", self.inside.remove(&Key::new(*length, *address)))?;
            changes.removed += 1;
        }
        changes.written += write("BACKENDS", &mut self.backends, &now.backends, &wanted.backends)?;
        changes.written += write("SLOTS", &mut self.slots, &now.slots, &wanted.slots)?;
        changes.written += write("SERVICES", &mut self.services, &now.services, &wanted.services)?;
        changes.written += write("EXTERNALS", &mut self.externals, &now.externals, &wanted.externals)?;
        changes.removed += remove("SERVICES", &mut self.services, &now.services, &wanted.services)?;
        changes.removed += remove("EXTERNALS", &mut self.externals, &now.externals, &wanted.externals)?;
        changes.removed += remove("SLOTS", &mut self.slots, &now.slots, &wanted.slots)?;
        if changes != Changes::default() {
            self.forget(now, wanted)?;
        }
        changes.removed += remove("BACKENDS", &mut self.backends, &now.backends, &wanted.backends)?;
        Ok(changes)
    }

    /// Removes affinities to backends that left their service, and datagram flows of backends that went.
    fn forget(&mut self, now: &Entries, wanted: &Entries) -> Result<(), KernelError> {
        let pairs = |entries: &Entries| -> BTreeSet<(u32, u32)> {
            entries.slots.iter().map(|(key, backend)| (key.service, *backend)).collect()
        };
        let gone: BTreeSet<_> = pairs(now).difference(&pairs(wanted)).copied().collect();
        if gone.is_empty() {
            return Ok(());
        }
        for (key, affinity) in read_unsorted("AFFINITIES", &self.affinities)? {
            if gone.contains(&(key.service, affinity.backend)) {
                absent_is_fine("AFFINITIES", self.affinities.remove(&key))?;
            }
        }
        let kept: BTreeSet<&Endpoint> = wanted.backends.values().map(|backend| &backend.endpoint).collect();
        for (key, _) in read_unsorted("REVERSES", &self.reverses)? {
            if key.backend.protocol == UDP && !kept.contains(&key.backend) {
                absent_is_fine("REVERSES", self.reverses.remove(&key))?;
            }
        }
        for (key, flow) in self.flows()? {
            if key.protocol == UDP && flow.backend != 0 && !wanted.backends.contains_key(&flow.backend) {
                absent_is_fine("FLOWS", self.flows.remove(&key))?;
            }
        }
        Ok(())
    }
}

fn open<K: Pod, V: Pod>(
    folder: &Path,
    name: &'static str,
    kind: fn(MapData) -> Map,
) -> Result<HashMap<MapData, K, V>, KernelError> {
    let data = MapData::from_pin(folder.join(name)).map_err(of(name))?;
    HashMap::try_from(kind(data)).map_err(of(name))
}

fn read<K: Pod + Ord, V: Pod>(name: &'static str, map: &HashMap<MapData, K, V>) -> Result<BTreeMap<K, V>, KernelError> {
    map.iter().collect::<Result<_, _>>().map_err(of(name))
}

fn read_unsorted<K: Pod, V: Pod>(name: &'static str, map: &HashMap<MapData, K, V>) -> Result<Vec<(K, V)>, KernelError> {
    // The kernel begins anew when the entry went that it stands at: a map that programs write to might never end.
    map.iter().take(MOST_READ).collect::<Result<_, _>>().map_err(of(name))
}

fn write<K: Pod + Ord, V: Pod + PartialEq>(
    name: &'static str,
    map: &mut HashMap<MapData, K, V>,
    now: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
) -> Result<usize, KernelError> {
    let mut count = 0;
    for (key, value) in wanted.iter().filter(|(key, value)| now.get(key) != Some(value)) {
        map.insert(key, value, 0).map_err(of(name))?;
        count += 1;
    }
    Ok(count)
}

fn remove<K: Pod + Ord, V: Pod>(
    name: &'static str,
    map: &mut HashMap<MapData, K, V>,
    now: &BTreeMap<K, V>,
    wanted: &BTreeMap<K, V>,
) -> Result<usize, KernelError> {
    let mut count = 0;
    for key in now.keys().filter(|key| !wanted.contains_key(key)) {
        absent_is_fine(name, map.remove(key))?;
        count += 1;
    }
    Ok(count)
}

fn absent_is_fine(name: &'static str, result: Result<(), MapError>) -> Result<(), KernelError> {
    match result {
        Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(of(name)(error)),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> KernelError {
    let path = path.to_owned();
    move |source| KernelError::Path { path, source }
}

fn of(name: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { name, source }
}
