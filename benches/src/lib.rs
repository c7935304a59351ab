//! What Skep is measured with: loads and surroundings that several benches and comparisons share.
//!
//! Invariant: a load is bounded in count or time, and says how it was made. On a small machine absolute times wobble: compare two things in one run.
//! What a bench needs of the kernel (network namespaces, a bpffs, a cgroup) is its own and goes with its process.

pub mod netns;
pub mod node;
pub mod sample;
pub mod services;
pub mod store_load;
mod unshare;
