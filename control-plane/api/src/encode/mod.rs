//! Objects as JSON → `application/vnd.kubernetes.protobuf`, with the schema graph in hand: the other direction of [`crate::decode`].
//!
//! Data flow: JSON bytes as they are stored → one walk over them (`json`) → wire format (`wire`), without a tree in between. What a schema does not know is left
//! out. Invariant: what is written here is read back by [`crate::decode`], and by upstream's clients, as the object that the JSON is.

mod envelope;
mod json;
mod message;
mod wire;

pub use envelope::{
    envelope, list_head, list_item_size, put_envelope_head, put_envelope_tail, put_list_item, watch_frame,
};
pub use message::{Unencodable, message, metadata_message};

use crate::schema::{Schemas, StructId};

/// The schema of a type by its `apiVersion` and `kind`: a built-in kind, a subresource's type, a Status, or a discovery document. `None` when there is no protobuf form.
#[must_use]
pub fn schema_of(api_version: &str, kind: &str) -> Option<StructId> {
    let schemas = Schemas::builtin();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let package = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or_default() };
    let own = || schemas.id(&format!("io.k8s.api.{package}.{version}.{kind}"));
    let meta = || schemas.id(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}"));
    let found = if api_version == "v1" { own().or_else(meta) } else { own() };
    found.filter(|id| has_protobuf(*id))
}

/// Whether a type can be written: whether any of its fields has a number.
#[must_use]
pub fn has_protobuf(id: StructId) -> bool {
    Schemas::builtin()[id].fields.iter().any(|field| !field.protobuf.is_empty())
}

#[cfg(test)]
mod tests;
