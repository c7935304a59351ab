//! The node agent: runs the pods bound to its node on containerd.
//!
//! Invariant: what decides ([`pod::plan`]) does no I/O and reads no clock. What acts ([`cgroups`], [`cni`], [`logs`])
//! decides nothing. A container never depends on the kubelet's life: its log lives in a process of its own.

pub mod agent;
pub mod cgroups;
pub mod cni;
pub mod images;
pub mod logs;
pub mod node;
pub mod objects;
pub mod pod;
pub mod probes;
pub mod runtime;
pub mod sandbox;
pub mod server;
mod streaming;
pub mod volumes;
