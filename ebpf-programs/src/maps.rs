//! The maps, pinned by name. What is written by the agent: services, slots, backends. By programs: affinities and reverses.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap};
use skep_ebpf_common::{Affinity, AffinityKey, Endpoint, ReverseKey, Service, SlotKey};

/// Memory is taken as entries come, not for the largest cluster at once (`BPF_F_NO_PREALLOC`).
const NO_PREALLOC: u32 = 1;

#[map]
pub static SERVICES: HashMap<Endpoint, Service> = HashMap::pinned(262_144, NO_PREALLOC);

#[map]
pub static SLOTS: HashMap<SlotKey, u32> = HashMap::pinned(2_097_152, NO_PREALLOC);

#[map]
pub static BACKENDS: HashMap<u32, Endpoint> = HashMap::pinned(524_288, NO_PREALLOC);

#[map]
pub static AFFINITIES: LruHashMap<AffinityKey, Affinity> = LruHashMap::pinned(65_536, 0);

#[map]
pub static REVERSES: LruHashMap<ReverseKey, Endpoint> = LruHashMap::pinned(131_072, 0);
