//! The scheduler: chooses a node for each pod that has none, by upstream's default profile.
//!
//! [`core`] decides and is pure: a [`core::Snapshot`] of nodes and placed pods, and a pod, give a [`core::Decision`]; the same
//! inputs and seed give the same answer. [`run`] is the driver around it: it watches pods and nodes, keeps the queue of
//! waiting pods, assumes a decision at once and binds it in the background. Leadership is the caller's.
//!
//! Invariant: `core` has no I/O, no clock and no thread; only the driver knows the API.

pub mod core;
mod driver;

pub use driver::{Options, run};
