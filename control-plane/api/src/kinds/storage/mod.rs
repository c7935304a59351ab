//! The group `storage.k8s.io`: classes of storage, and what drivers tell of themselves.

pub mod attachment;
pub mod class;
pub mod driver;

use crate::gvk::GroupVersion;

/// `storage.k8s.io/v1`
const V1: GroupVersion = GroupVersion::new("storage.k8s.io", "v1");
