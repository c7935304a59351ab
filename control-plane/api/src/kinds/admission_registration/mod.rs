//! The group `admissionregistration.k8s.io`: which webhooks and which policies have a say in writes.
//!
//! Upstream: pkg/apis/admissionregistration (defaults, validation) and pkg/registry/admissionregistration (strategies).

mod bindings;
mod client_config;
mod policies;
mod rules;
mod webhooks;

use serde_json::Value;

pub use bindings::{mutating_admission_policy_binding, validating_admission_policy_binding};
pub use client_config::{validate_webhook_service, validate_webhook_url};
pub use policies::{mutating_admission_policy, validating_admission_policy};
pub use webhooks::{mutating_webhook_configuration, validating_webhook_configuration};

use crate::gvk::GroupVersion;
use crate::kinds::declaration::{Kind, Scope, Strategy};
use crate::kinds::names;
use crate::kinds::tree::text;

const GROUP_VERSION: GroupVersion = GroupVersion::new("admissionregistration.k8s.io", "v1");

/// What all kinds of the group have in common: cluster scope, a generation, and no update that names no version.
fn declaration(kind: &'static str, plural: &'static str, schema: &'static str, strategy: impl Strategy) -> Kind {
    Kind {
        scope: Scope::Cluster,
        categories: names(&["api-extensions"]),
        has_generation: true,
        unconditional_update: false,
        ..Kind::new(GROUP_VERSION, kind, plural, schema, strategy)
    }
}

/// Upstream's `WarningsForStaticSuffix`: such names are meant for configuration that is read from files.
fn warnings_of_name(object: &Value) -> Vec<String> {
    const SUFFIX: &str = ".static.k8s.io";
    if text(&object["metadata"]["name"]).ends_with(SUFFIX) {
        return vec![format!(
            "metadata.name: names ending with \"{SUFFIX}\" are reserved for static manifest-based configurations and cannot be managed via the API"
        )];
    }
    Vec::new()
}
