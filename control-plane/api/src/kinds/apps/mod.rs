//! The group `apps`: what keeps sets of pods.

pub mod controller_revision;
pub mod daemon_set;
pub mod deployment;
pub mod replica_set;
pub mod stateful_set;
pub(in crate::kinds) mod workload;

use crate::gvk::GroupVersion;

/// `apps/v1`
const V1: GroupVersion = GroupVersion::new("apps", "v1");
