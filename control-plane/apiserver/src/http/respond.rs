//! Answers as bytes: JSON (the shared bytes as they are), YAML, tables and metadata-only forms here; protobuf in [`super::protobuf`].

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::Status;
use skep_api::kinds::Kind;
use tracing::error;

use super::body::{Body, full, streamed};
use super::compress;
use super::negotiate::{Accepted, Form, Shape};
use super::protobuf;
use crate::cache::{ChangeKind, Seen};
use crate::object::Object;
use crate::rest::{Answer, ListPage, Payload, Query, WatchBody, WatchItem, is_as_stored, served};

/// Lists above this are sent in pieces of about this size, so that no list is ever in memory twice.
const CHUNK: usize = 256 * 1024;
/// Changes of a watch that wait are sent together up to this.
const TOGETHER: usize = 64 * 1024;

/// How an answer is to be made.
pub(crate) struct Wanted<'a> {
    /// Encoding and shape.
    pub accepted: Accepted,
    /// Whether the client takes gzip.
    pub gzip: bool,
    /// The request's parameters.
    pub query: &'a Query,
    /// When the request came.
    pub now: Timestamp,
}

/// An encoded answer.
enum Encoded {
    /// It is there whole.
    Whole(Bytes),
    /// It comes in pieces, and is large.
    Pieces(Box<dyn Iterator<Item = Bytes> + Send>),
    /// It has no end, or none that is known.
    Stream(Body),
}

/// The response to a successful request.
///
/// # Errors
/// 406 for a shape that the answer does not have, 500 for an object that can't be encoded.
pub(crate) fn answer(kind: &Arc<Kind>, answer: Answer, wanted: &Wanted<'_>) -> Result<Response<Body>, Status> {
    let Wanted { accepted, gzip, query, now } = *wanted;
    let (form, shape) = (accepted.form, accepted.shape);
    let mut media_type = form.media_type();
    let encoded = match answer.payload {
        Payload::Object(_) | Payload::Value(_) if shape == Shape::MetadataList => {
            return Err(not_acceptable(format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
                kind.kind
            )));
        }
        Payload::List(_) if shape == Shape::Metadata => {
            return Err(not_acceptable(format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({})",
                kind.list_kind
            )));
        }
        Payload::Object(object) if form == Form::Protobuf => {
            Encoded::Whole(protobuf::object(kind, &object, accepted)?.into())
        }
        Payload::Object(object) if form == Form::Json && shape == Shape::Whole && is_as_stored(kind, &object) => {
            Encoded::Whole(object.to_json())
        }
        Payload::Object(object) => tree(&shaped(kind, &served(kind, &object), accepted, query, now), form)?,
        // A Status, a Scale or a review has no table; upstream answers those as they are.
        Payload::Value(value) if value["kind"] != *kind.kind => tree(&value, form)?,
        Payload::Value(value) if form == Form::Protobuf => {
            Encoded::Whole(protobuf::shaped_value(&value, accepted)?.into())
        }
        Payload::Value(value) => tree(&shaped(kind, &value, accepted, query, now), form)?,
        Payload::List(page) => list(kind, page, accepted, query, now)?,
        Payload::Watch(watch) => {
            if form == Form::Protobuf {
                media_type = "application/vnd.kubernetes.protobuf;stream=watch";
            }
            Encoded::Stream(watched(*watch, accepted, query.clone()))
        }
    };
    let mut response = respond(answer.code, media_type, encoded, gzip);
    for warning in answer.warnings.iter().take(100) {
        // RFC 7234 5.5 as upstream writes it: code 299, agent "-", quoted text.
        let text: String = warning.chars().filter(|c| !c.is_control()).collect();
        let text = format!("299 - \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = header::HeaderValue::from_str(&text) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    Ok(response)
}

fn respond(code: u16, media_type: &'static str, encoded: Encoded, gzip: bool) -> Response<Body> {
    let (body, packed) = match encoded {
        Encoded::Whole(bytes) if gzip && bytes.len() > compress::THRESHOLD => {
            (streamed(futures::stream::iter(compress::gzip(std::iter::once(bytes)))), true)
        }
        Encoded::Whole(bytes) => (full(bytes), false),
        Encoded::Pieces(pieces) if gzip => (streamed(futures::stream::iter(compress::gzip(pieces))), true),
        Encoded::Pieces(pieces) => (streamed(futures::stream::iter(pieces)), false),
        Encoded::Stream(body) => (body, false),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, private"));
    if packed {
        headers.insert(header::CONTENT_ENCODING, header::HeaderValue::from_static("gzip"));
        headers.append(header::VARY, header::HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

/// The response to a failed request.
#[must_use]
pub(crate) fn failure(status: &Status, form: Form) -> Response<Body> {
    let mut response = document(status.code, &status.to_value(), form)
        .unwrap_or_else(|_| json_response(status.code, &status.to_value()));
    if let Some(seconds) = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// A tree in the form that was agreed on.
///
/// # Errors
/// 406 for a type that has no protobuf form.
pub(crate) fn document(code: u16, value: &Value, form: Form) -> Result<Response<Body>, Status> {
    Ok(respond(code, form.media_type(), tree(value, form)?, false))
}

/// A JSON response.
#[must_use]
pub(crate) fn json_response(code: u16, value: &Value) -> Response<Body> {
    respond(code, Form::Json.media_type(), Encoded::Whole(json_line(value)), false)
}

fn not_acceptable(message: String) -> Status {
    Status::new(406, skep_api::Reason::NotAcceptable, message)
}

fn tree(value: &Value, form: Form) -> Result<Encoded, Status> {
    Ok(Encoded::Whole(match form {
        Form::Json => json_line(value),
        Form::Yaml => serde_yaml::to_string(value).map_err(Status::internal)?.into(),
        Form::Protobuf => protobuf::value(value)?.into(),
    }))
}

fn json_line(value: &Value) -> Bytes {
    let mut bytes = serde_json::to_vec(value).expect("a tree of values always encodes");
    bytes.push(b'\n');
    bytes.into()
}

/// An object in another shape.
fn shaped(kind: &Kind, value: &Value, accepted: Accepted, query: &Query, now: Timestamp) -> Value {
    match accepted.shape {
        Shape::Whole => value.clone(),
        Shape::Metadata | Shape::MetadataList => metadata_only(value, accepted),
        Shape::Table => {
            let mut table = table(kind, accepted);
            table["metadata"]["resourceVersion"] = value["metadata"]["resourceVersion"].clone();
            table["rows"] = json!([row(kind, value, accepted, query, now)]);
            table
        }
    }
}

fn metadata_only(value: &Value, accepted: Accepted) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": accepted.meta_version, "metadata": value["metadata"] })
}

/// A table without rows.
fn table(kind: &Kind, accepted: Accepted) -> Value {
    let columns: Vec<Value> = kind
        .columns
        .iter()
        .map(|column| {
            json!({
                "name": column.name, "type": column.type_, "format": column.format,
                "description": column.description, "priority": column.priority,
            })
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": accepted.meta_version, "metadata": {},
        "columnDefinitions": columns, "rows": [],
    })
}

fn row(kind: &Kind, value: &Value, accepted: Accepted, query: &Query, now: Timestamp) -> Value {
    let mut row = json!({ "cells": kind.strategy.row(value, now.as_second()) });
    match query.include_object.as_str() {
        "None" => {}
        "Object" => row["object"] = value.clone(),
        _ => row["object"] = metadata_only(value, accepted),
    }
    row
}

fn list(
    kind: &Arc<Kind>,
    page: ListPage,
    accepted: Accepted,
    query: &Query,
    now: Timestamp,
) -> Result<Encoded, Status> {
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if !page.continue_token.is_empty() {
        metadata["continue"] = page.continue_token.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    if accepted.form == Form::Protobuf {
        let list = protobuf::list(kind, &page, &metadata, accepted)?;
        let small = list.size <= CHUNK;
        let mut pieces = list.pieces(CHUNK);
        return Ok(if small {
            Encoded::Whole(pieces.next().unwrap_or_default())
        } else {
            Encoded::Pieces(Box::new(pieces))
        });
    }
    let trees = |page: &ListPage| page.objects.iter().map(|object| served(kind, object)).collect::<Vec<_>>();
    let value = match accepted.shape {
        Shape::Whole if accepted.form == Form::Json => return Ok(whole_list(kind, page, &metadata)),
        Shape::Whole => json!({
            "kind": kind.list_kind, "apiVersion": kind.group_version.to_string(), "metadata": metadata,
            "items": page.objects.iter().map(|object| item(kind, object)).collect::<Vec<_>>(),
        }),
        Shape::Metadata | Shape::MetadataList => {
            let items: Vec<Value> = trees(&page).iter().map(|value| metadata_only(value, accepted)).collect();
            json!({
                "kind": "PartialObjectMetadataList", "apiVersion": accepted.meta_version, "metadata": metadata,
                "items": items,
            })
        }
        Shape::Table => {
            let mut table = table(kind, accepted);
            table["metadata"] = metadata;
            table["rows"] = trees(&page).iter().map(|value| row(kind, value, accepted, query, now)).collect();
            table
        }
    };
    tree(&value, accepted.form)
}

/// A list as JSON: the objects' own bytes between a head and a tail.
fn whole_list(kind: &Arc<Kind>, page: ListPage, metadata: &Value) -> Encoded {
    let mut out = BytesMut::new();
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        kind.list_kind, kind.group_version
    );
    out.extend_from_slice(head.as_bytes());
    let size: usize = page.objects.iter().map(|object| object.size()).sum();
    if size <= CHUNK {
        out.reserve(size);
        for (at, object) in page.objects.iter().enumerate() {
            put_item(kind, &mut out, object, at == 0);
        }
        out.extend_from_slice(b"]}\n");
        return Encoded::Whole(out.freeze());
    }
    let (kind, objects) = (kind.clone(), page.objects);
    let (mut at, mut done) = (0, false);
    Encoded::Pieces(Box::new(std::iter::from_fn(move || {
        if done {
            return None;
        }
        while at < objects.len() && out.len() < CHUNK {
            put_item(&kind, &mut out, &objects[at], at == 0);
            at += 1;
        }
        done = at == objects.len();
        if done {
            out.extend_from_slice(b"]}\n");
        }
        Some(out.split().freeze())
    })))
}

/// As upstream, items of typed lists do not repeat their type, and those of custom resources do.
fn put_item(kind: &Kind, out: &mut BytesMut, object: &Object, first: bool) {
    if !first {
        out.extend_from_slice(b",");
    }
    match is_as_stored(kind, object) {
        true if protobuf::is_offered(kind) => object.write_json_untyped(out),
        true => object.write_json(out),
        false => {
            let value = serde_json::to_vec(&item(kind, object)).expect("a tree of values always encodes");
            out.extend_from_slice(&value);
        }
    }
}

/// An item of a list as a tree.
fn item(kind: &Kind, object: &Object) -> Value {
    let mut value = served(kind, object);
    if protobuf::is_offered(kind)
        && let Some(fields) = value.as_object_mut()
    {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    value
}

/// A watch as a stream of JSON lines or protobuf frames. Changes that wait together are sent together.
fn watched(watch: WatchBody, accepted: Accepted, query: Query) -> Body {
    let kind = watch.kind.clone();
    streamed(futures::stream::unfold((watch, true), move |(mut watch, first)| {
        let kind = kind.clone();
        let query = query.clone();
        async move {
            let item = watch.next().await?;
            let item = watch.converted(item).await?;
            let mut events = vec![event(&kind, item, accepted, &query, first)?];
            let mut size = events[0].len();
            while size < TOGETHER
                && let Some(next) = watch.try_next()
            {
                let next = watch.converted(next).await?;
                let next = event(&kind, next, accepted, &query, false)?;
                size += next.len();
                events.push(next);
            }
            Some((protobuf::joined(&events), (watch, false)))
        }
    }))
}

/// An event of a watch; `None` ends the watch, when an object can't be encoded.
fn event(kind: &Kind, item: WatchItem, accepted: Accepted, query: &Query, first: bool) -> Option<Bytes> {
    let made = match (item, accepted.form) {
        (WatchItem::Change(seen), Form::Protobuf) => protobuf::frame(kind, &seen, accepted),
        (WatchItem::Change(seen), _) if accepted.shape == Shape::Whole && is_as_stored(kind, seen.parts().1) => {
            Ok(seen.line())
        }
        (WatchItem::Change(seen), _) => {
            let (type_, value) = changed(kind, &seen, accepted, query, first);
            Ok(json_line(&json!({ "type": type_, "object": value })))
        }
        (WatchItem::Bookmark(revision, initial), form) => {
            let mut object = match accepted.shape {
                Shape::Whole => json!({ "kind": kind.kind, "apiVersion": kind.group_version.to_string() }),
                Shape::Metadata | Shape::MetadataList => {
                    json!({ "kind": "PartialObjectMetadata", "apiVersion": accepted.meta_version })
                }
                Shape::Table => table(kind, accepted),
            };
            object["metadata"] = json!({ "resourceVersion": revision.to_string() });
            if initial {
                object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
            }
            match form {
                Form::Protobuf => protobuf::bookmark(&object, accepted),
                Form::Json | Form::Yaml => Ok(json_line(&json!({ "type": "BOOKMARK", "object": object }))),
            }
        }
    };
    made.inspect_err(
        |status| error!(kind = %kind.kind, error = %status.message, "a watch ends, since an object can't be encoded"),
    )
    .ok()
}

fn changed(kind: &Kind, seen: &Seen, accepted: Accepted, query: &Query, first: bool) -> (&'static str, Value) {
    let (change, object): (ChangeKind, _) = seen.parts();
    let value = served(kind, object);
    let mut shown = shaped(kind, &value, accepted, query, Timestamp::now());
    // Only the first table of a watch has column definitions.
    if accepted.shape == Shape::Table && !first {
        shown["columnDefinitions"] = Value::Null;
    }
    (change.as_str(), shown)
}
