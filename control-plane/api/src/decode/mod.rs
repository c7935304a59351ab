//! Bytes of a request → a tree that the kind's schema has accepted: every known field has the right JSON type, unknown fields are gone (and named), nulls are
//! gone, quantities and times are in canonical form. One pass, with the schema in hand.
//!
//! Upstream: k8s.io/apimachinery/pkg/runtime/serializer/json and sigs.k8s.io/json, whose words the errors have.

mod header;
mod protobuf;
pub(crate) mod raw;
mod typed;
mod yaml;

use serde_json::Value;

use self::header::Header;
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
    if let Some(custom) = &kind.custom {
        return crate::custom::decode(body, media, kind, custom, validation);
    }
    let schemas = Schemas::builtin();
    let id = schemas.id(&kind.schema).ok_or_else(|| Status::internal(format!("kind {} has no schema", kind.kind)))?;
    let read = match media {
        Media::Json => read_json(schemas, id, kind, body, body)?,
        Media::Yaml => {
            let yaml = yaml::to_json(body).map_err(|why| unrecognized(kind, body, &why))?;
            let mut read = read_json(schemas, id, kind, &yaml.json, body)?;
            read.strict.splice(0..0, yaml.duplicates);
            read
        }
        Media::Protobuf => read_protobuf(schemas, id, kind, body)?,
    };
    let mut object = read.object;
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    check_type(kind, &Header { api_version: text("apiVersion"), kind: text("kind") }, body)?;
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

/// Reads JSON; what can't be read is told of in upstream's order: no JSON, another kind, a wrong field.
fn read_json(schemas: &Schemas, id: StructId, kind: &Kind, json: &[u8], body: &[u8]) -> Result<typed::Read, Status> {
    typed::read(schemas, id, json).map_err(|failure| {
        let given = header::read(json)
            .map_err(|why| unrecognized(kind, body, &format!("couldn't get version/kind; json parse error: {why}")));
        let given = match given.and_then(|given| check_type(kind, &given, body).map(|()| given)) {
            Ok(given) => given,
            Err(status) => return status,
        };
        let given = if given.kind.is_empty() { &kind.kind } else { given.kind.as_str() };
        match failure {
            Failure::Syntax(why) | Failure::Type(why) => handled_as(kind, given, &why),
        }
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
            let yaml = yaml::to_json(body).map_err(Status::bad_request)?;
            typed::read(schemas, id, &yaml.json).map(|read| read.object)
        }
        Media::Protobuf => protobuf::open(body).and_then(|envelope| protobuf::read(schemas, id, envelope.raw)),
    };
    match read {
        Ok(object) => Ok(Value::Object(object)),
        Err(Failure::Syntax(why) | Failure::Type(why)) => Err(Status::bad_request(why)),
    }
}

/// Reads a body of which no schema is known yet, in YAML or JSON: an applied object. Beside it comes what is wrong with it strictly, keys that stand twice.
///
/// # Errors
/// What can't be read, in the parser's words.
pub fn decode_untyped(body: &[u8]) -> Result<(Value, Option<String>), String> {
    yaml::read_untyped(body)
}

/// The name of the scheme that upstream's server looks kinds up in.
const SCHEME: &str = "pkg/api/legacyscheme/scheme.go:30";

/// Whether a body that names its type names this one. Kinds that are not known, kinds of another type and other versions each have upstream's words.
fn check_type(kind: &Kind, given: &Header, body: &[u8]) -> Result<(), Status> {
    let Some(mut version) =
        GroupVersion::parse(&given.api_version).or(given.api_version.is_empty().then(|| kind.group_version.clone()))
    else {
        return Err(unrecognized(kind, body, &format!("unexpected GroupVersion string: {}", given.api_version)));
    };
    if version.version.is_empty() {
        version = kind.group_version.clone();
    }
    let name = if given.kind.is_empty() { &kind.kind } else { given.kind.as_str() };
    if version == kind.group_version && name == kind.kind {
        return Ok(());
    }
    let told = |why: &str| {
        Err(Status::bad_request(format!(
            "{name} in version {:?} cannot be handled as a {}: {why}",
            version.version, kind.kind
        )))
    };
    if !is_known(&version, name) {
        return told(&format!("no kind {name:?} is registered for version \"{version}\" in scheme \"{SCHEME}\""));
    }
    if name != kind.kind {
        let package = kind.schema.split('.').nth(3).unwrap_or_default();
        return told(&format!(
            "converting ({}.{name}) to ({package}.{}): unknown conversion",
            version.version, kind.kind
        ));
    }
    Err(Status::bad_request(format!(
        "the API version in the data ({version}) does not match the expected API version ({})",
        kind.group_version
    )))
}

/// Whether a kind has a schema: types that have metadata of their own.
fn is_known(version: &GroupVersion, name: &str) -> bool {
    let package = if version.group.is_empty() { "core" } else { version.group.split('.').next().unwrap_or_default() };
    // Every group with a dot is upstream's own; another's name may still begin like one of them.
    if version.group.contains('.') && !version.group.ends_with(".k8s.io") {
        return false;
    }
    let found = Schemas::builtin().get(&format!("io.k8s.api.{package}.{}.{name}", version.version));
    found.is_some_and(|found| found.field("kind").is_some() && found.field("metadata").is_some())
}

pub(crate) fn handled_as(kind: &Kind, given: &str, why: &str) -> Status {
    Status::bad_request(format!(
        "{given} in version \"{}\" cannot be handled as a {}: {why}",
        kind.group_version.version, kind.kind
    ))
}

pub(crate) fn unrecognized(kind: &Kind, body: &[u8], why: &str) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({})",
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
