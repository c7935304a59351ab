//! The bytes of a custom object → a tree that its schema has pruned. Upstream: `schemaCoercingDecoder` in customresource_handler.go.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::{Custom, graph, metadata, prune};
use crate::decode::{Decoded, FieldValidation, Media, raw};
use crate::field::{Error, Path};
use crate::kinds::Kind;
use crate::schema::Schemas;
use crate::status::Status;

/// Metadata by its type; everything else as it comes.
static ENVELOPE: LazyLock<Schemas> = LazyLock::new(graph::envelope);

/// Reads a custom object: type and metadata strictly, the rest as its schema says. Values of the wrong type are left for validation.
///
/// # Errors
/// 400 for what can't be read, another version, or in strict mode unknown and duplicate fields; 415 for protobuf, which custom objects don't have; 422 for
/// another kind.
pub(crate) fn decode(
    body: &[u8],
    media: Media,
    kind: &Kind,
    custom: &Custom,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    if media == Media::Protobuf {
        return Err(Status::unsupported_media_type(&["application/json", "application/yaml"]));
    }
    let read = raw::read(&ENVELOPE, graph::ENVELOPE, body, media, kind)?;
    let mut object = Value::Object(read.object);
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (api_version, named) = (text("apiVersion"), text("kind"));
    if named.is_empty() {
        return Err(raw::unrecognized(kind, body, "Object 'Kind' is missing in the object"));
    }
    if api_version != kind.group_version.to_string() {
        return Err(Status::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            kind.group_version
        )));
    }
    if named != kind.kind {
        let wrong = Error::invalid(&Path::new("kind"), named, format!("must be {}", kind.kind));
        return Err(Status::invalid(&kind.group_kind(), crate::meta::name(&object), &vec![wrong]));
    }
    let mut strict = read.strict;
    let unknown = prune(&mut object, &custom.schema);
    strict.extend(unknown.iter().map(|field| format!("unknown field {field:?}")));
    let unknown = metadata::coerce(&mut object, &custom.schema);
    strict.extend(unknown.iter().map(|field| format!("unknown field {field:?}")));
    let warnings = match validation {
        FieldValidation::Strict if !strict.is_empty() => {
            return Err(raw::handled_as(kind, &kind.kind, &format!("strict decoding error: {}", strict.join(", "))));
        }
        FieldValidation::Strict | FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn => strict,
    };
    Ok(Decoded { object, warnings })
}

/// Metadata of an embedded object as its type has it, and the paths of what it does not know.
pub(super) fn metadata(given: &Value) -> (Value, Vec<String>) {
    let wrapped = serde_json::json!({ "metadata": given }).to_string();
    match raw::tree(&ENVELOPE, graph::ENVELOPE, wrapped.as_bytes()) {
        Some(read) => {
            let fields = read.strict.iter().filter_map(|error| error.split('"').nth(1)).map(str::to_owned).collect();
            (read.object.get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new())), fields)
        }
        // What does not fit is what validation refuses.
        None => (given.clone(), Vec::new()),
    }
}
