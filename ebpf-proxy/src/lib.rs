//! The network agent of a node: Services by eBPF programs, with no rule of iptables, nftables or IPVS.
//!
//! ```text
//! watch ──▶ ServiceState ──compile (pure)──▶ Entries ──diff──▶ map updates ──▶ eBPF programs
//! ```
//!
//! Invariant: what the kernel's maps hold is decided by `compile` alone; nothing else writes services, slots or backends.

pub mod agent;
pub mod cni;
pub mod compile;
pub mod dns;
pub mod kernel;
pub mod nodes;
pub mod object;
pub mod pods;
