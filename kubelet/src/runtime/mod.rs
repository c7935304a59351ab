//! containerd through its native API, and the OCI specifications that it runs.
//!
//! Invariant: [`spec`], [`seccomp`] and [`user`] are pure; [`containerd`] holds no state of its own, so that a restarted
//! kubelet sees what the one before it made. [`tasks`] and [`process`] are the same connection's calls for a container's
//! first process and for the ones that are run beside it, [`views`] its snapshots for volumes; [`events`] says what happened
//! to them.

pub mod attach;
pub mod containerd;
pub mod events;
pub(crate) mod fifo;
pub mod host;
pub mod process;
pub mod rootfs;
pub mod seccomp;
pub mod spec;
pub mod tasks;
pub mod user;
pub mod views;
