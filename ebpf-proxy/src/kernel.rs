//! The kernel's side: programs loaded and attached, maps filled by differences.
//!
//! Everything is pinned, so that traffic flows on without the agent: maps under `v<layout>/`, links beside them. A new agent
//! reads the maps back, changes only what differs, and puts its programs in the place of the old ones by renaming the new link's
//! pin over the old one's: both are attached for a moment, which the programs allow.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::{HashMap, Map, MapData, MapError};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use aya::{Ebpf, EbpfLoader, Pod};
use skep_ebpf_common::{Affinity, AffinityKey, Endpoint, LAYOUT_VERSION, ReverseKey, Service, SlotKey, UDP};

use crate::compile::Entries;

/// The programs, by the name they have in the object.
pub const PROGRAMS: [&str; 4] = ["skep_connect4", "skep_sendmsg4", "skep_recvmsg4", "skep_getpeername4"];

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
    /// A map could not be read or written.
    #[error("can't use the map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// Why.
        source: MapError,
    },
}

/// The pinned maps of one node.
#[derive(Debug)]
pub struct Maps {
    services: HashMap<MapData, Endpoint, Service>,
    slots: HashMap<MapData, SlotKey, u32>,
    backends: HashMap<MapData, u32, Endpoint>,
    affinities: HashMap<MapData, AffinityKey, Affinity>,
    reverses: HashMap<MapData, ReverseKey, Endpoint>,
}

/// How many entries an update wrote and removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Written.
    pub written: usize,
    /// Removed.
    pub removed: usize,
}

/// Where the maps of this layout are pinned.
#[must_use]
pub fn map_folder(bpf_dir: &Path) -> PathBuf {
    bpf_dir.join(format!("v{LAYOUT_VERSION}"))
}

/// Loads the programs over the pinned maps (made when they are missing) and attaches them to the cgroup, in the place of those
/// that an earlier agent attached.
///
/// # Errors
/// When the folder is no bpffs, the verifier refuses a program or the cgroup is none.
pub fn attach(object: &[u8], bpf_dir: &Path, cgroup: &Path) -> Result<Maps, KernelError> {
    let folder = map_folder(bpf_dir);
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let mut ebpf: Ebpf = EbpfLoader::new().default_map_pin_directory(&folder).load(object)?;
    let target = File::open(cgroup).map_err(at(cgroup))?;
    for name in PROGRAMS {
        attach_one(&mut ebpf, name, &target, bpf_dir)?;
    }
    Maps::open(bpf_dir)
}

/// Detaches the programs and removes all that was pinned.
///
/// # Errors
/// When a pin can't be removed.
pub fn detach(bpf_dir: &Path) -> Result<(), KernelError> {
    match fs::remove_dir_all(bpf_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(bpf_dir)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl Maps {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// When a map is not there or is another.
    pub fn open(bpf_dir: &Path) -> Result<Self, KernelError> {
        let folder = map_folder(bpf_dir);
        Ok(Self {
            services: open(&folder, "SERVICES", Map::HashMap)?,
            slots: open(&folder, "SLOTS", Map::HashMap)?,
            backends: open(&folder, "BACKENDS", Map::HashMap)?,
            affinities: open(&folder, "AFFINITIES", Map::LruHashMap)?,
            reverses: open(&folder, "REVERSES", Map::LruHashMap)?,
        })
    }

    /// What the maps hold now.
    ///
    /// # Errors
    /// When a map can't be read.
    pub fn entries(&self) -> Result<Entries, KernelError> {
        Ok(Entries {
            services: read("SERVICES", &self.services)?,
            slots: read("SLOTS", &self.slots)?,
            backends: read("BACKENDS", &self.backends)?,
        })
    }

    /// The sockets that talk to backends, and the service that each of them addressed.
    ///
    /// # Errors
    /// When the map can't be read.
    pub fn connections(&self) -> Result<Vec<(ReverseKey, Endpoint)>, KernelError> {
        self.reverses.iter().collect::<Result<_, _>>().map_err(of("REVERSES"))
    }

    /// Brings the maps from what they hold to what is wanted. The order keeps each step usable: backends and slots come before
    /// the services that count on them and leave after; a service that shrinks does so before its slots go.
    ///
    /// # Errors
    /// When a map can't be written; the next call takes up what is left, from what the maps hold then.
    pub fn update(&mut self, now: &Entries, wanted: &Entries) -> Result<Changes, KernelError> {
        let mut changes = Changes::default();
        changes.written += write("BACKENDS", &mut self.backends, &now.backends, &wanted.backends)?;
        changes.written += write("SLOTS", &mut self.slots, &now.slots, &wanted.slots)?;
        changes.written += write("SERVICES", &mut self.services, &now.services, &wanted.services)?;
        changes.removed += remove("SERVICES", &mut self.services, &now.services, &wanted.services)?;
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
        let kept: BTreeSet<&Endpoint> = wanted.backends.values().collect();
        for (key, _) in read_unsorted("REVERSES", &self.reverses)? {
            if key.backend.protocol == UDP && !kept.contains(&key.backend) {
                absent_is_fine("REVERSES", self.reverses.remove(&key))?;
            }
        }
        Ok(())
    }
}

fn attach_one(ebpf: &mut Ebpf, name: &'static str, cgroup: &File, bpf_dir: &Path) -> Result<(), KernelError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| KernelError::Program { name, source };
    let program = ebpf.program_mut(name).ok_or_else(|| failed("the object lacks it".into()))?;
    let program: &mut CgroupSockAddr = program.try_into().map_err(|error| failed(Box::new(error)))?;
    program.load().map_err(|error| failed(Box::new(error)))?;
    // `Single` is no flag at all: a link is always beside others (cgroup_bpf_link_attach).
    let id = program.attach(cgroup, CgroupAttachMode::Single).map_err(|error| failed(Box::new(error)))?;
    let link = program.take_link(id).map_err(|error| failed(Box::new(error)))?;
    let link: FdLink = link.try_into().map_err(|error| failed(Box::new(error)))?;
    let (pin, next) = (bpf_dir.join(name), bpf_dir.join(format!("{name}_next")));
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&next)(error)),
        Ok(()) | Err(_) => {}
    }
    link.pin(&next).map_err(|error| failed(Box::new(error)))?;
    fs::rename(&next, &pin).map_err(at(&pin))
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
    map.iter().collect::<Result<_, _>>().map_err(of(name))
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
