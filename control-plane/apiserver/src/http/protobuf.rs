//! Answers in Kubernetes' protobuf: objects from the form that is kept beside their JSON, everything else by way of its JSON.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use skep_api::Status;
use skep_api::encode::{self, Unencodable};
use skep_api::kinds::Kind;
use skep_api::schema::{Schemas, StructId};

use super::negotiate::{Accepted, Shape};
use crate::cache::Seen;
use crate::object::Object;
use crate::rest::{ListPage, served};

/// Whether objects of a kind can be answered so: those of CustomResourceDefinitions can't.
#[must_use]
pub(super) fn is_offered(kind: &Kind) -> bool {
    Schemas::builtin().id(&kind.schema).is_some_and(encode::has_protobuf)
}

/// A tree in its envelope.
///
/// # Errors
/// 406 for a type that has no protobuf form.
pub(crate) fn value(value: &Value) -> Result<Vec<u8>, Status> {
    let api_version = value["apiVersion"].as_str().unwrap_or("v1");
    let kind = value["kind"].as_str().unwrap_or_default();
    let id = encode::schema_of(api_version, kind).ok_or_else(|| {
        Status::new(
            406,
            skep_api::Reason::NotAcceptable,
            format!("object {api_version} {kind} does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"),
        )
    })?;
    let mut raw = Vec::new();
    let json = json(value);
    encode::message(Schemas::builtin(), id, &json, None, &mut raw).map_err(failed)?;
    Ok(encode::envelope(api_version, kind, &raw))
}

/// A tree of a kind in the shape that was agreed on.
///
/// # Errors
/// 500 for a tree that is not of its type.
pub(super) fn shaped_value(tree: &Value, accepted: Accepted) -> Result<Vec<u8>, Status> {
    match accepted.shape {
        Shape::Whole | Shape::Table => value(tree),
        Shape::Metadata | Shape::MetadataList => {
            let mut raw = Vec::new();
            encode::metadata_message(&json(tree), None, &mut raw).map_err(failed)?;
            Ok(encode::envelope(accepted.meta_version, "PartialObjectMetadata", &raw))
        }
    }
}

/// A stored object in the shape that was agreed on.
///
/// # Errors
/// 500 for an object that is not of its type.
pub(super) fn object(kind: &Kind, object: &Object, accepted: Accepted) -> Result<Vec<u8>, Status> {
    let raw = message(kind, object, accepted.shape)?;
    let (api_version, kind) = type_of(kind, accepted);
    Ok(encode::envelope(&api_version, &kind, &raw))
}

/// A list: its size is known before it is sent, so all its items are encoded, and kept, first.
///
/// # Errors
/// 500 for objects that are not of their type.
pub(super) fn list(kind: &Arc<Kind>, page: &ListPage, metadata: &Value, accepted: Accepted) -> Result<List, Status> {
    let messages = page.objects.iter().map(|object| message(kind, object, accepted.shape));
    let messages: Vec<Bytes> = messages.collect::<Result<_, _>>()?;
    let head = encode::list_head(&json(metadata)).map_err(failed)?;
    let size = head.len() + messages.iter().map(|item| encode::list_item_size(item.len())).sum::<usize>();
    let mut out = Vec::with_capacity(128 + head.len());
    let list_kind = &*kind.list_kind;
    match accepted.shape {
        Shape::Whole | Shape::Table => {
            encode::put_envelope_head(&mut out, &kind.group_version.to_string(), list_kind, size);
        }
        Shape::Metadata | Shape::MetadataList => {
            encode::put_envelope_head(&mut out, accepted.meta_version, "PartialObjectMetadataList", size);
        }
    }
    out.extend_from_slice(&head);
    Ok(List { head: out, items: messages, size: size + 128 })
}

/// A list, ready to be written piece by piece.
pub(super) struct List {
    head: Vec<u8>,
    items: Vec<Bytes>,
    /// How large it is, within a few bytes.
    pub(super) size: usize,
}

impl List {
    /// Pieces of about `size` bytes.
    pub(super) fn pieces(self, size: usize) -> impl Iterator<Item = Bytes> + Send {
        let Self { head, items, .. } = self;
        let mut items = items.into_iter();
        let mut out = head;
        let mut ended = false;
        std::iter::from_fn(move || {
            if ended {
                return None;
            }
            while out.len() < size {
                match items.next() {
                    Some(item) => encode::put_list_item(&mut out, &item),
                    None => {
                        encode::put_envelope_tail(&mut out);
                        ended = true;
                        break;
                    }
                }
            }
            Some(Bytes::from(std::mem::take(&mut out)))
        })
    }
}

/// A change as a frame of a watch.
///
/// # Errors
/// 500 for an object that is not of its type.
pub(super) fn frame(kind: &Kind, seen: &Seen, accepted: Accepted) -> Result<Bytes, Status> {
    let make = |seen: &Seen| {
        let (change, changed) = seen.parts();
        Ok(Bytes::from(encode::watch_frame(change.as_str(), &object(kind, changed, accepted)?)))
    };
    match seen {
        Seen::Whole(change) if accepted.shape == Shape::Whole && kind.conversion.is_none() => {
            change.frame(|| make(seen))
        }
        seen => make(seen),
    }
}

/// A bookmark, given as a tree, as a frame of a watch.
///
/// # Errors
/// 500 for a tree that is not of its type.
pub(super) fn bookmark(tree: &Value, accepted: Accepted) -> Result<Bytes, Status> {
    Ok(encode::watch_frame("BOOKMARK", &shaped_value(tree, accepted)?).into())
}

/// Frames beside each other, as one piece.
#[must_use]
pub(super) fn joined(frames: &[Bytes]) -> Bytes {
    match frames {
        [one] => one.clone(),
        many => {
            let mut out = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
            many.iter().for_each(|frame| out.extend_from_slice(frame));
            out.freeze()
        }
    }
}

fn type_of(kind: &Kind, accepted: Accepted) -> (String, String) {
    match accepted.shape {
        Shape::Whole | Shape::Table => (kind.group_version.to_string(), kind.kind.to_string()),
        Shape::Metadata | Shape::MetadataList => (accepted.meta_version.to_owned(), "PartialObjectMetadata".to_owned()),
    }
}

/// The bare message of a stored object.
fn message(kind: &Kind, object: &Object, shape: Shape) -> Result<Bytes, Status> {
    match shape {
        Shape::Metadata | Shape::MetadataList => object.metadata_protobuf().map(Bytes::from).map_err(failed),
        Shape::Whole | Shape::Table if kind.conversion.is_none() => object.protobuf(schema(kind)?).map_err(failed),
        Shape::Whole | Shape::Table => {
            let mut raw = Vec::new();
            encode::message(Schemas::builtin(), schema(kind)?, &json(&served(kind, object)), None, &mut raw)
                .map_err(failed)?;
            Ok(raw.into())
        }
    }
}

fn schema(kind: &Kind) -> Result<StructId, Status> {
    let schemas = Schemas::builtin();
    schemas.id(&kind.schema).ok_or_else(|| Status::internal(format!("kind {} has no protobuf form", kind.kind)))
}

fn json(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("a tree of values always encodes")
}

fn failed(error: Unencodable) -> Status {
    Status::internal(error)
}
