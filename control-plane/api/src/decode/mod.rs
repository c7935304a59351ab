//! Bytes of a request → a tree that the kind's schema has accepted: every known field has the right JSON type, unknown fields are gone (and named), nulls are
//! gone, quantities and times are in canonical form. One pass, with the schema in hand.
//!
//! Upstream: k8s.io/apimachinery/pkg/runtime/serializer/json and sigs.k8s.io/json, whose words the errors have.

mod protobuf;
mod typed;

use serde_json::{Map, Value};

use crate::gvk::GroupVersion;
use crate::kinds::Kind;
use crate::schema::{Schemas, StructId};
use crate::status::Status;

/// The encoding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// RFC 8259.
    Json,
    /// One YAML document.
    Yaml,
    /// Kubernetes' protobuf envelope.
    Protobuf,
}

/// What unknown and duplicate fields do: `fieldValidation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// They fail the request.
    Strict,
    /// They become warnings.
    Warn,
    /// They are dropped silently.
    Ignore,
}

/// A decoded object.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The tree, with `apiVersion` and `kind` set.
    pub object: Value,
    /// What the client should hear about it.
    pub warnings: Vec<String>,
}

/// What decoding by a schema found, before it is put into words for the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The text is no JSON at all.
    Syntax(String),
    /// A value has the wrong type, or can't be what the schema says.
    Type(String),
}

/// Reads an object of a kind.
///
/// # Errors
/// 400 in upstream's words: for text that is no JSON or YAML, for another kind or version, for values of the wrong type, and in strict mode for unknown and
/// duplicate fields.
pub fn decode(body: &[u8], media: Media, kind: &Kind, validation: FieldValidation) -> Result<Decoded, Status> {
    let schemas = Schemas::builtin();
    let id = schemas.id(&kind.schema).ok_or_else(|| Status::internal(format!("kind {} has no schema", kind.kind)))?;
    let read = match media {
        Media::Json => read_json(schemas, id, kind, body)?,
        Media::Yaml => read_json(schemas, id, kind, &yaml_to_json(body, kind)?)?,
        Media::Protobuf => read_protobuf(schemas, id, kind, body)?,
    };
    let mut object = read.object;
    check_type(kind, &object)?;
    let strict = read.strict;
    let mut warnings = Vec::new();
    match validation {
        FieldValidation::Strict if !strict.is_empty() => {
            return Err(handled_as(kind, &kind.kind, &format!("strict decoding error: {}", strict.join(", "))));
        }
        FieldValidation::Strict | FieldValidation::Ignore => {}
        FieldValidation::Warn => warnings = strict,
    }
    object.insert("apiVersion".to_owned(), kind.group_version.to_string().into());
    object.insert("kind".to_owned(), kind.kind.to_string().into());
    Ok(Decoded { object: Value::Object(object), warnings })
}

fn read_json(schemas: &Schemas, id: StructId, kind: &Kind, body: &[u8]) -> Result<typed::Read, Status> {
    typed::read(schemas, id, body).map_err(|failure| match failure {
        Failure::Syntax(why) => unrecognized(kind, body, &why),
        Failure::Type(why) => unhandled(body, kind, &why),
    })
}

fn read_protobuf(schemas: &Schemas, id: StructId, kind: &Kind, body: &[u8]) -> Result<typed::Read, Status> {
    let read = |body| {
        let envelope = protobuf::open(body)?;
        let mut object = protobuf::read(schemas, id, envelope.raw)?;
        for (field, value) in [("apiVersion", envelope.api_version), ("kind", envelope.kind)] {
            if !value.is_empty() {
                object.insert(field.to_owned(), value.into());
            }
        }
        Ok(typed::Read { object, strict: Vec::new() })
    };
    read(body).map_err(|failure| match failure {
        Failure::Syntax(why) => unrecognized(kind, body, &why),
        Failure::Type(why) => handled_as(kind, &kind.kind, &why),
    })
}

/// Reads an object of a known type that is no kind of the table: an option, or the body of a subresource.
///
/// # Errors
/// 400 naming the value that does not fit.
pub fn decode_type(body: &[u8], media: Media, schema: &str) -> Result<Value, Status> {
    let schemas = Schemas::builtin();
    let id = schemas.id(schema).ok_or_else(|| Status::internal(format!("no schema {schema}")))?;
    let read = match media {
        Media::Json => typed::read(schemas, id, body).map(|read| read.object),
        Media::Yaml => {
            let value: Value = serde_yaml::from_slice(body).map_err(|error| Status::bad_request(error.to_string()))?;
            let json = serde_json::to_vec(&value).map_err(Status::internal)?;
            typed::read(schemas, id, &json).map(|read| read.object)
        }
        Media::Protobuf => protobuf::open(body).and_then(|envelope| protobuf::read(schemas, id, envelope.raw)),
    };
    match read {
        Ok(object) => Ok(Value::Object(object)),
        Err(Failure::Syntax(why) | Failure::Type(why)) => Err(Status::bad_request(why)),
    }
}

fn yaml_to_json(body: &[u8], kind: &Kind) -> Result<Vec<u8>, Status> {
    let value: Value =
        serde_yaml::from_slice(body).map_err(|error| unrecognized(kind, body, &format!("yaml: {error}")))?;
    serde_json::to_vec(&value).map_err(Status::internal)
}

/// Another version is named by the version check; another kind of the same version can't be converted.
fn check_type(kind: &Kind, object: &Map<String, Value>) -> Result<(), Status> {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let version = text("apiVersion");
    if !version.is_empty() && version != kind.group_version.to_string() {
        return Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            kind.group_version
        )));
    }
    let given = text("kind");
    if !given.is_empty() && given != kind.kind {
        let version = GroupVersion::parse(version).unwrap_or_else(|| kind.group_version.clone());
        return Err(Status::bad_request(format!(
            "{given} in version \"{}\" cannot be handled as a {}: converting (v1.{given}) to (core.{}): unknown conversion",
            version.version, kind.kind, kind.kind
        )));
    }
    Ok(())
}

fn unhandled(body: &[u8], kind: &Kind, why: &str) -> Status {
    // Upstream reads the type fields on their own first, so that the error can name what the client sent.
    #[derive(serde::Deserialize)]
    struct TypeMeta {
        kind: Option<String>,
    }
    let given = serde_json::from_slice::<TypeMeta>(body).ok().and_then(|meta| meta.kind);
    handled_as(kind, given.as_deref().filter(|given| !given.is_empty()).unwrap_or(&kind.kind), why)
}

fn handled_as(kind: &Kind, given: &str, why: &str) -> Status {
    Status::bad_request(format!(
        "{given} in version \"{}\" cannot be handled as a {}: {why}",
        kind.group_version.version, kind.kind
    ))
}

fn unrecognized(kind: &Kind, body: &[u8], why: &str) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {why} ({})",
        kind.kind,
        summary(body)
    ))
}

/// Upstream's summarizeData: the beginning of a body, as text when it looks like JSON, else in hexadecimal.
fn summary(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    let looks_like_json = body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte == b'{');
    let head = &body[..body.len().min(SHOWN)];
    let more = if body.len() > SHOWN { " ..." } else { "" };
    if body.is_empty() {
        "<empty>".to_owned()
    } else if looks_like_json {
        format!("{}{more}", String::from_utf8_lossy(head))
    } else {
        let hex: String = head.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hex}{more}")
    }
}

#[cfg(test)]
mod tests;
