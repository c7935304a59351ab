//! The group `certificates.k8s.io`: wishes for a certificate (CertificateSigningRequest, and PodCertificateRequest for a pod), which somebody
//! signs, and the trust anchors of signers (ClusterTrustBundle).

mod chain;
pub mod pem_blocks;
pub mod pod_request;
pub mod signing_request;
pub mod trust_bundle;

use crate::gvk::GroupVersion;

const V1: GroupVersion = GroupVersion::new("certificates.k8s.io", "v1");
