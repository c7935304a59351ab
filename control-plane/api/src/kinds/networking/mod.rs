//! The group `networking.k8s.io`: who may reach pods, and by which addresses.

pub mod ingress;
pub mod network_policy;
pub mod service_addresses;

use crate::gvk::GroupVersion;

/// `networking.k8s.io/v1`
const V1: GroupVersion = GroupVersion::new("networking.k8s.io", "v1");
