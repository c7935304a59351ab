//! The maps, pinned by name. What is written by the agent: services, externals, slots, backends, inside, config. By programs:
//! affinities, reverses and flows.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap};
use skep_ebpf_common::{
    Address, Affinity, AffinityKey, Backend, Config, Endpoint, Flow, FlowKey, ReverseKey, Service, SlotKey,
};

/// Memory is taken as entries come, not for the largest cluster at once (`BPF_F_NO_PREALLOC`).
const NO_PREALLOC: u32 = 1;

#[map]
pub static SERVICES: HashMap<Endpoint, Service> = HashMap::pinned(262_144, NO_PREALLOC);

/// Services as they are reached from outside of the cluster: node ports, external and load balancers' addresses.
#[map]
pub static EXTERNALS: HashMap<Endpoint, Service> = HashMap::pinned(262_144, NO_PREALLOC);

#[map]
pub static SLOTS: HashMap<SlotKey, u32> = HashMap::pinned(2_097_152, NO_PREALLOC);

#[map]
pub static BACKENDS: HashMap<u32, Backend> = HashMap::pinned(524_288, NO_PREALLOC);

#[map]
pub static AFFINITIES: LruHashMap<AffinityKey, Affinity> = LruHashMap::pinned(65_536, 0);

#[map]
pub static REVERSES: LruHashMap<ReverseKey, Endpoint> = LruHashMap::pinned(131_072, 0);

/// Both halves of each translated flow.
#[map]
pub static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::pinned(131_072, 0);

/// The networks of pods and the addresses of nodes: what is not masqueraded.
#[map]
pub static INSIDE: LpmTrie<Address, u32> = LpmTrie::pinned(65_536, NO_PREALLOC);

#[map]
pub static CONFIG: Array<Config> = Array::pinned(1, 0);
