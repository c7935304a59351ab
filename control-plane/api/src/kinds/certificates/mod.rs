//! The group `certificates.k8s.io`: wishes for a certificate (CertificateSigningRequest), which somebody approves and somebody signs, and the
//! trust anchors of signers (ClusterTrustBundle).

pub mod pem_blocks;
pub mod signing_request;
pub mod trust_bundle;

use crate::gvk::GroupVersion;

const V1: GroupVersion = GroupVersion::new("certificates.k8s.io", "v1");
