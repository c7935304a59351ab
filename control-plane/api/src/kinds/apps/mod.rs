//! The group `apps`: what keeps sets of pods.

pub mod deployment;
pub mod replica_set;
mod workload;

use crate::gvk::GroupVersion;

/// `apps/v1`
const V1: GroupVersion = GroupVersion::new("apps", "v1");
