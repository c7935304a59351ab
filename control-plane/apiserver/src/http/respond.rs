//! Answers as bytes: JSON (the shared bytes as they are), YAML, tables and metadata-only forms.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::Status;
use skep_api::kinds::Kind;

use super::body::{Body, full, streamed};
use super::negotiate::{Accepted, Shape};
use crate::cache::{ChangeKind, Seen};
use crate::object::Object;
use crate::rest::{Answer, ListPage, Payload, Query, WatchBody, served};

/// Lists above this are sent in pieces of about this size, so that no list is ever in memory twice.
const CHUNK: usize = 256 * 1024;

/// The response to a successful request.
#[must_use]
pub(crate) fn answer(
    kind: &Arc<Kind>,
    answer: Answer,
    accepted: Accepted,
    query: &Query,
    now: Timestamp,
) -> Response<Body> {
    let body = match answer.payload {
        Payload::Object(object) => match accepted.shape {
            Shape::Whole if !accepted.yaml && kind.conversion.is_none() => full(object.to_json()),
            shape => encoded(&shaped(kind, &served(kind, &object), shape, query, now), accepted.yaml),
        },
        // A Status, a Scale or a review has no table; upstream answers those as they are.
        Payload::Value(value) if value["kind"] != *kind.kind => encoded(&value, accepted.yaml),
        Payload::Value(value) => encoded(&shaped(kind, &value, accepted.shape, query, now), accepted.yaml),
        Payload::List(page) => list(kind, page, accepted, query, now),
        Payload::Watch(watch) => watched(*watch, accepted, query.clone()),
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::OK);
    let type_ = if accepted.yaml { "application/yaml" } else { "application/json" };
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(type_));
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, private"));
    for warning in answer.warnings.iter().take(100) {
        // RFC 7234 5.5 as upstream writes it: code 299, agent "-", quoted text.
        let text: String = warning.chars().filter(|c| !c.is_control()).collect();
        let text = format!("299 - \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(value) = header::HeaderValue::from_str(&text) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// The response to a failed request.
#[must_use]
pub(crate) fn failure(status: &Status) -> Response<Body> {
    let mut response = json_response(status.code, &status.to_value());
    if let Some(seconds) = status.details.as_ref().map(|details| details.retry_after_seconds).filter(|s| *s > 0) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

/// A JSON response.
#[must_use]
pub(crate) fn json_response(code: u16, value: &Value) -> Response<Body> {
    let mut response = Response::new(encoded(value, false));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, private"));
    response
}

fn encoded(value: &Value, yaml: bool) -> Body {
    if yaml {
        return full(serde_yaml::to_string(value).unwrap_or_default());
    }
    let mut bytes = serde_json::to_vec(value).expect("a tree of values always encodes");
    bytes.push(b'\n');
    full(bytes)
}

/// An object in another shape.
fn shaped(kind: &Kind, value: &Value, shape: Shape, query: &Query, now: Timestamp) -> Value {
    match shape {
        Shape::Whole => value.clone(),
        Shape::Metadata => metadata_only(value, "PartialObjectMetadata"),
        Shape::Table => {
            let mut table = table(kind);
            table["metadata"]["resourceVersion"] = value["metadata"]["resourceVersion"].clone();
            table["rows"] = json!([row(kind, value, query, now)]);
            table
        }
    }
}

fn metadata_only(value: &Value, as_kind: &str) -> Value {
    json!({ "kind": as_kind, "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"] })
}

/// A table without rows.
fn table(kind: &Kind) -> Value {
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
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": columns, "rows": [],
    })
}

fn row(kind: &Kind, value: &Value, query: &Query, now: Timestamp) -> Value {
    let mut row = json!({ "cells": kind.strategy.row(value, now.as_second()) });
    match query.include_object.as_str() {
        "None" => {}
        "Object" => row["object"] = value.clone(),
        _ => row["object"] = metadata_only(value, "PartialObjectMetadata"),
    }
    row
}

fn list(kind: &Arc<Kind>, page: ListPage, accepted: Accepted, query: &Query, now: Timestamp) -> Body {
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if !page.continue_token.is_empty() {
        metadata["continue"] = page.continue_token.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    let trees = |page: &ListPage| page.objects.iter().map(|object| served(kind, object)).collect::<Vec<_>>();
    let value = match accepted.shape {
        Shape::Whole if !accepted.yaml => return whole_list(kind, page, &metadata),
        Shape::Whole => json!({
            "kind": kind.list_kind, "apiVersion": kind.group_version.to_string(), "metadata": metadata, "items": trees(&page),
        }),
        Shape::Metadata => {
            let items: Vec<Value> =
                trees(&page).iter().map(|value| metadata_only(value, "PartialObjectMetadata")).collect();
            json!({ "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items })
        }
        Shape::Table => {
            let mut table = table(kind);
            table["metadata"] = metadata;
            table["rows"] = trees(&page).iter().map(|value| row(kind, value, query, now)).collect();
            table
        }
    };
    encoded(&value, accepted.yaml)
}

/// A list as JSON: the objects' own bytes between a head and a tail.
fn whole_list(kind: &Arc<Kind>, page: ListPage, metadata: &Value) -> Body {
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
        return full(out.freeze());
    }
    let kind = kind.clone();
    let chunks = futures::stream::unfold((page.objects, 0, out, false), move |(objects, mut at, mut out, done)| {
        let kind = kind.clone();
        async move {
            if done {
                return None;
            }
            while at < objects.len() && out.len() < CHUNK {
                put_item(&kind, &mut out, &objects[at], at == 0);
                at += 1;
            }
            let done = at == objects.len();
            if done {
                out.extend_from_slice(b"]}\n");
            }
            let chunk = out.split().freeze();
            Some((chunk, (objects, at, out, done)))
        }
    });
    streamed(chunks)
}

fn put_item(kind: &Kind, out: &mut BytesMut, object: &Object, first: bool) {
    if !first {
        out.extend_from_slice(b",");
    }
    if kind.conversion.is_none() {
        object.write_json(out);
    } else {
        let value = serde_json::to_vec(&served(kind, object)).expect("a tree of values always encodes");
        out.extend_from_slice(&value);
    }
}

/// A watch as a stream of JSON lines. Changes that wait together are sent together.
fn watched(watch: WatchBody, accepted: Accepted, query: Query) -> Body {
    const TOGETHER: usize = 64 * 1024;
    let kind = watch.kind.clone();
    streamed(futures::stream::unfold((watch, true), move |(mut watch, first)| {
        let kind = kind.clone();
        let query = query.clone();
        async move {
            let item = watch.next().await?;
            let mut out = line(&kind, item, accepted, &query, first);
            if let Some(second) = watch.try_next() {
                let mut many = BytesMut::from(&out[..]);
                many.extend_from_slice(&line(&kind, second, accepted, &query, false));
                while many.len() < TOGETHER
                    && let Some(next) = watch.try_next()
                {
                    many.extend_from_slice(&line(&kind, next, accepted, &query, false));
                }
                out = many.freeze();
            }
            Some((out, (watch, false)))
        }
    }))
}

fn line(kind: &Kind, item: crate::rest::WatchItem, accepted: Accepted, query: &Query, first: bool) -> Bytes {
    use crate::rest::WatchItem;
    let (type_, value) = match item {
        WatchItem::Change(seen) if accepted.shape == Shape::Whole && kind.conversion.is_none() => return seen.line(),
        WatchItem::Change(seen) => changed(kind, &seen, accepted.shape, query, first),
        WatchItem::Bookmark(revision, initial) => {
            let mut object = match accepted.shape {
                Shape::Whole => json!({ "kind": kind.kind, "apiVersion": kind.group_version.to_string() }),
                Shape::Metadata => json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1" }),
                Shape::Table => table(kind),
            };
            object["metadata"] = json!({ "resourceVersion": revision.to_string() });
            if initial {
                object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
            }
            ("BOOKMARK", object)
        }
    };
    let mut bytes =
        serde_json::to_vec(&json!({ "type": type_, "object": value })).expect("a tree of values always encodes");
    bytes.push(b'\n');
    bytes.into()
}

fn changed(kind: &Kind, seen: &Seen, shape: Shape, query: &Query, first: bool) -> (&'static str, Value) {
    let (change, object): (ChangeKind, _) = seen.parts();
    let value = served(kind, object);
    let mut shown = shaped(kind, &value, shape, query, Timestamp::now());
    // Only the first table of a watch has column definitions.
    if shape == Shape::Table && !first {
        shown["columnDefinitions"] = Value::Null;
    }
    (change.as_str(), shown)
}
