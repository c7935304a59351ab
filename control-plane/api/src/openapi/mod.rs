//! OpenAPI documents, made from the table of kinds and the schema graph: v3 (an index and a document a group-version) and v2 (JSON, and the protobuf form that
//! client-go reads). Pure; made once, kept as bytes with their hash.

mod custom;
mod paths;
mod schemas;
mod v2;

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};

use crate::gvk::GroupVersion;
use crate::kinds::Kind;

/// A document and the hash of its bytes.
#[derive(Clone, Debug)]
pub struct Document {
    /// The document.
    pub bytes: Bytes,
    /// SHA-512 in upper-case hexadecimal, as upstream makes it.
    pub etag: String,
}

impl Document {
    fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let etag = Sha512::digest(&bytes).iter().map(|byte| format!("{byte:02X}")).collect();
        Self { bytes, etag }
    }

    fn json(value: &Value) -> Self {
        Self::new(serde_json::to_vec(value).expect("a tree of values always encodes"))
    }
}

/// The documents of a table of kinds.
#[derive(Clone, Debug)]
pub struct OpenApi {
    index: Document,
    groups: BTreeMap<GroupVersion, Group>,
    v2_json: Document,
    v2_protobuf: Document,
}

/// The document of a group version, and what it was made of: a document is made anew only when that is another.
#[derive(Clone, Debug)]
struct Group {
    document: Document,
    kinds: Vec<String>,
}

/// What tells a kind from another, or from what it was.
fn identity(kind: &Kind) -> String {
    let custom = kind.custom.as_ref().map_or("", |custom| custom.fingerprint.as_str());
    format!("{} {:?} {:?} {custom}", kind.kind, kind.verbs, kind.subresources)
}

/// What the documents say of themselves.
const TITLE: &str = "Kubernetes";
const VERSION: &str = "v1.37.2";

impl OpenApi {
    /// Makes the documents of kinds.
    #[must_use]
    pub fn new(kinds: &[Kind]) -> Self {
        Self::after(None, kinds)
    }

    /// Makes the documents of kinds; those of group versions that are as they were before are taken over.
    #[must_use]
    pub fn after(before: Option<&Self>, kinds: &[Kind]) -> Self {
        let mut by_version: BTreeMap<GroupVersion, Vec<&Kind>> = BTreeMap::new();
        for kind in kinds {
            by_version.entry(kind.group_version.clone()).or_default().push(kind);
        }
        let made = |gv: &GroupVersion, kinds: &[&Kind]| {
            let identities: Vec<String> = kinds.iter().map(|kind| identity(kind)).collect();
            match before.and_then(|before| before.groups.get(gv)).filter(|group| group.kinds == identities) {
                Some(group) => group.clone(),
                None => Group { document: Document::json(&v3_document(kinds)), kinds: identities },
            }
        };
        let groups: BTreeMap<GroupVersion, Group> =
            by_version.iter().map(|(gv, kinds)| (gv.clone(), made(gv, kinds))).collect();
        let paths: BTreeMap<String, Value> = groups
            .iter()
            .map(|(gv, Group { document, .. })| {
                let path = group_path(gv);
                let url = format!("/openapi/v3/{path}?hash={}", document.etag);
                (path, json!({ "serverRelativeURL": url }))
            })
            .collect();
        let v2 = v2::document(kinds);
        Self {
            index: Document::json(&json!({ "paths": paths })),
            groups,
            v2_protobuf: Document::new(v2::protobuf(&v2)),
            v2_json: Document::json(&v2),
        }
    }

    /// `/openapi/v3`
    #[must_use]
    pub fn v3_index(&self) -> &Document {
        &self.index
    }

    /// `/openapi/v3/apis/GROUP/VERSION`
    #[must_use]
    pub fn v3(&self, group_version: &GroupVersion) -> Option<&Document> {
        self.groups.get(group_version).map(|group| &group.document)
    }

    /// `/openapi/v2` as JSON.
    #[must_use]
    pub fn v2_json(&self) -> &Document {
        &self.v2_json
    }

    /// `/openapi/v2` as `openapi.v2.Document` of gnostic's protocol.
    #[must_use]
    pub fn v2_protobuf(&self) -> &Document {
        &self.v2_protobuf
    }
}

/// `api/v1` or `apis/apps/v1`.
fn group_path(gv: &GroupVersion) -> String {
    if gv.group.is_empty() { format!("api/{}", gv.version) } else { format!("apis/{}/{}", gv.group, gv.version) }
}

fn v3_document(kinds: &[&Kind]) -> Value {
    let mut all = serde_json::Map::new();
    for kind in kinds {
        all.extend(paths::of(kind, paths::Form::V3));
    }
    let schemas = schemas::of(kinds, "#/components/schemas/");
    json!({
        "openapi": "3.0.0", "info": { "title": TITLE, "version": VERSION },
        "paths": all, "components": { "schemas": schemas },
    })
}

#[cfg(test)]
mod tests;
