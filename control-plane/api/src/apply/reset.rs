//! Fields that a write of an object or subresource can't change, because the server sets them back: nobody comes to own them by such a write.
//! Upstream: `GetResetFields` of the strategies in pkg/registry.

use super::fields::Fields;
use crate::kinds::{Kind, Subresource};

/// The fields that a write sets back.
#[must_use]
pub fn reset_fields(kind: &Kind, subresource: Option<Subresource>) -> Fields {
    let group = &*kind.group_version.group;
    match subresource {
        None if !kind.has(Subresource::Status) => Fields::default(),
        None if group == "certificates.k8s.io" && kind.plural == "certificatesigningrequests" => {
            Fields::named(&[&["spec"], &["status"]])
        }
        None => Fields::named(&[&["status"]]),
        Some(Subresource::Status) => status(kind, group),
        Some(Subresource::Finalize) => Fields::named(&[&["status"]]),
        Some(_) => Fields::default(),
    }
}

fn status(kind: &Kind, group: &str) -> Fields {
    match (group, &*kind.plural) {
        ("", "pods") => {
            Fields::named(&[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]])
        }
        ("apps", "deployments") => Fields::named(&[&["spec"], &["metadata", "labels"]]),
        ("certificates.k8s.io", "certificatesigningrequests") => Fields::named(&[&["spec"], &["status", "conditions"]]),
        ("" | "apps" | "batch" | "autoscaling" | "policy" | "apiextensions.k8s.io", _)
        | ("networking.k8s.io", "ingresses") => Fields::named(&[&["spec"]]),
        // Younger kinds, and custom resources.
        _ => Fields::named(&[&["spec"], &["metadata"]]),
    }
}
