//! The group `rbac.authorization.k8s.io`: who may do what.

pub mod binding;
pub mod role;

use crate::gvk::GroupVersion;

/// The group's name, which role references and subjects repeat.
const GROUP: &str = "rbac.authorization.k8s.io";
/// `rbac.authorization.k8s.io/v1`
const V1: GroupVersion = GroupVersion::new(GROUP, "v1");
