//! `/openapi/v2` and `/openapi/v3`: documents made from the table of kinds on first demand, then kept until the table is another.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode, header};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use skep_api::openapi::{self, OpenApi};
use skep_api::{GroupVersion, Status};

use crate::http::body::{Body, full};
use crate::registry::{Registry, Table};

/// The documents of this server.
pub struct Documents {
    registry: Arc<Registry>,
    /// The last documents, and the table that they are of.
    made: Mutex<Option<(Arc<Table>, Arc<OpenApi>)>>,
}

impl Documents {
    /// Documents of the kinds in a registry.
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, made: Mutex::default() }
    }

    /// The documents of the table as it is now. Who comes while they are made waits for them.
    fn of_now(&self) -> Arc<OpenApi> {
        let mut made = self.made.lock();
        let table = self.registry.table();
        if let Some((of, documents)) = &*made
            && Arc::ptr_eq(of, &table)
        {
            return documents.clone();
        }
        let kinds: Vec<_> = table.kinds().map(|kind| (**kind).clone()).collect();
        let before = made.as_ref().map(|(_, documents)| &**documents);
        let documents = Arc::new(OpenApi::after(before, &kinds));
        *made = Some((table, documents.clone()));
        documents
    }

    /// Answers a path below `/openapi/`.
    ///
    /// # Errors
    /// 404 for documents that do not exist, 406 for forms that are not made.
    pub fn answer(&self, parts: &Parts) -> Result<Response<Body>, Status> {
        let made = self.of_now();
        let accept = parts.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let path = parts.uri.path().trim_end_matches('/');
        let (type_, document) = match path {
            "/openapi/v2" if accept.contains("com.github.proto-openapi.spec.v2") => {
                ("application/com.github.proto-openapi.spec.v2.v1.0+protobuf", made.v2_protobuf())
            }
            "/openapi/v2" => ("application/json", made.v2_json()),
            "/openapi/v3" => ("application/json", made.v3_index()),
            _ => {
                let gv = path.strip_prefix("/openapi/v3/").and_then(group_version).ok_or_else(Status::no_such_path)?;
                // Clients that prefer the protobuf form take JSON as well.
                ("application/json", made.v3(&gv).ok_or_else(Status::no_such_path)?)
            }
        };
        Ok(respond(parts, type_, document))
    }
}

fn group_version(path: &str) -> Option<GroupVersion> {
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["api", version] => GroupVersion::parse(version),
        ["apis", group, version] => GroupVersion::parse(&format!("{group}/{version}")),
        _ => None,
    }
}

fn respond(parts: &Parts, type_: &'static str, document: &openapi::Document) -> Response<Body> {
    let etag = format!("\"{}\"", document.etag);
    let known = parts.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()) == Some(&etag);
    let mut response = Response::new(full(if known { Bytes::new() } else { document.bytes.clone() }));
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(type_));
    headers.insert(header::VARY, header::HeaderValue::from_static("Accept-Encoding, Accept"));
    if let Ok(etag) = header::HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    // A client asks for a document by its hash; one that does may keep it for good.
    if parts.uri.query().is_some_and(|query| query.contains(&format!("hash={}", document.etag))) {
        headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("public, immutable"));
    }
    response
}

/// The hash that ETags are made of.
#[must_use]
pub(crate) fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02X}")).collect()
}
