//! containerd through its native API, and the OCI specifications that it runs.
//!
//! Invariant: [`spec`] is pure; [`containerd`] holds no state of its own, so that a restarted kubelet sees what the one
//! before it made.

pub mod containerd;
pub mod spec;
