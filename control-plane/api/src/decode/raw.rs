//! Reading by a graph that is not the built-in one: custom objects, of which only the metadata is known.

use super::{Failure, Media, typed, yaml};
use crate::kinds::Kind;
use crate::schema::Schemas;
use crate::status::Status;

pub(crate) use super::typed::Read;
pub(crate) use super::{handled_as, unrecognized};

/// Reads a body as the struct `root` of a graph.
///
/// # Errors
/// 400 for what is no JSON or YAML, and for metadata of the wrong type.
pub(crate) fn read(schemas: &Schemas, root: &str, body: &[u8], media: Media, kind: &Kind) -> Result<Read, Status> {
    let id = schemas.id(root).ok_or_else(|| Status::internal(format!("no schema {root}")))?;
    let told = |failure| match failure {
        Failure::Syntax(why) => unrecognized(kind, body, &why),
        Failure::Type(why) => handled_as(kind, &kind.kind, &why),
    };
    if media != Media::Yaml {
        return typed::read(schemas, id, body).map_err(told);
    }
    let yaml = yaml::to_json(body).map_err(|why| unrecognized(kind, body, &why))?;
    let mut read = typed::read(schemas, id, &yaml.json).map_err(told)?;
    read.strict.splice(0..0, yaml.duplicates);
    Ok(read)
}

/// Reads JSON as the struct `root` of a graph; `None` when it does not fit.
pub(crate) fn tree(schemas: &Schemas, root: &str, json: &[u8]) -> Option<Read> {
    typed::read(schemas, schemas.id(root)?, json).ok()
}
