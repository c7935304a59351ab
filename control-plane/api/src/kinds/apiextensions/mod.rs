//! The group `apiextensions.k8s.io`: CustomResourceDefinition, by which clients add kinds.
//!
//! Upstream: k8s.io/apiextensions-apiserver/pkg/registry/customresourcedefinition and pkg/apis/apiextensions.

mod conditions;
mod formats;
mod properties;
mod structural;
mod validate;

pub use conditions::{CLEANUP_FINALIZER, deletion_done, deletion_in_progress, deletion_pending, is_true, next_status};

use serde_json::{Value, json};

use crate::field::ErrorList;
use crate::gvk::GroupVersion;
use crate::kinds::declaration::{Column, Kind, Scope, Strategy, Subresource, WriteContext};
use crate::kinds::names;
use crate::kinds::tree::{carry_over, fill, fill_text, items, items_mut, map_mut, text};

/// `apiextensions.k8s.io/v1 CustomResourceDefinition`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        scope: Scope::Cluster,
        short_names: names(&["crd", "crds"]),
        categories: names(&["api-extensions"]),
        subresources: vec![Subresource::Status],
        unconditional_update: false,
        has_generation: true,
        columns: vec![Column::name(), Column::created_at()],
        ..Kind::new(
            GroupVersion::new("apiextensions.k8s.io", "v1"),
            "CustomResourceDefinition",
            "customresourcedefinitions",
            "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
            Definition,
        )
    }
}

struct Definition;

impl Strategy for Definition {
    fn default(&self, object: &mut Value) {
        let spec = &mut object["spec"];
        let kind = text(&spec["names"]["kind"]).to_owned();
        if !kind.is_empty() {
            fill_text(&mut spec["names"], "singular", &kind.to_lowercase());
            fill_text(&mut spec["names"], "listKind", &format!("{kind}List"));
        }
        fill(spec, "conversion", json!({ "strategy": "None" }));
        if spec["conversion"]["webhook"]["clientConfig"]["service"].is_object() {
            fill(&mut spec["conversion"]["webhook"]["clientConfig"]["service"], "port", 443);
        }
        for version in items_mut(spec, "versions") {
            // Go writes both, set or not.
            fill(version, "served", false);
            fill(version, "storage", false);
        }
        if items(&object["status"]["storedVersions"]).is_empty() {
            store_version(object);
        }
    }

    fn prepare_create(&self, object: &mut Value, _context: &WriteContext<'_>) {
        map_mut(object).insert("status".to_owned(), json!({}));
        store_version(object);
        complete_status(object);
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _context: &WriteContext<'_>) {
        carry_over(object, old, "status");
        store_version(object);
    }

    fn prepare_status_update(&self, object: &mut Value, _old: &Value, _context: &WriteContext<'_>) {
        complete_status(object);
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        validate::create(object)
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        validate::update(object, old)
    }

    fn validate_status_update(&self, object: &Value, _old: &Value) -> ErrorList {
        validate::status(object)
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        formats::warnings(object, old)
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        crate::names::name_is_dns_subdomain(name, prefix)
    }
}

/// The storage version is one that objects may be stored in.
fn store_version(object: &mut Value) {
    let Some(storage) = items(&object["spec"]["versions"]).iter().find(|version| version["storage"] == true) else {
        return;
    };
    let name = storage["name"].clone();
    let stored = &mut object["status"]["storedVersions"];
    if !stored.is_array() {
        *stored = json!([]);
    }
    if let Some(stored) = stored.as_array_mut()
        && !stored.contains(&name)
    {
        stored.push(name);
    }
}

/// What Go writes even when nothing is in it.
fn complete_status(object: &mut Value) {
    let status = &mut object["status"];
    fill(status, "conditions", json!([]));
    fill(status, "acceptedNames", json!({ "plural": "", "kind": "" }));
}

#[cfg(test)]
mod tests;
