//! What a Kubernetes object is: the table of kinds, metadata, selectors, quantities, patches, defaults, validation and printing.
//!
//! Invariant: pure. No I/O, no task, no clock (time comes in as an argument), no knowledge of HTTP or of the store.
//! Objects are trees of JSON values here ([`serde_json::Value`]); bytes come in by [`decode`] and leave by the API server.
//!
//! How the write path calls it: [`decode::decode`] makes a tree of a body; [`patch::json`], [`patch::merge`] and [`patch::strategic`] make a tree of a
//! stored one, which is then decoded as a body is; [`selector::LabelSelector`] and [`selector::FieldSelector`] read what a query selects;
//! [`openapi::OpenApi::new`] describes a table of kinds, once. What all of these know of fields is [`schema::Schemas::builtin`].

pub mod apply;
pub mod cel;
pub mod cron;
pub mod custom;
pub mod decode;
pub mod encode;
pub mod field;
pub mod gvk;
pub mod kinds;
pub mod meta;
pub mod names;
pub mod openapi;
pub mod patch;
pub mod quantity;
pub mod quota;
pub mod schema;
pub mod selector;
pub mod status;

pub use gvk::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, NamespacedName};
/// The working form of an object on the write path.
pub use serde_json::Value;
pub use status::{Reason, Status};
/// A JSON object: keys in order, so that equal objects encode to equal bytes.
pub type Object = serde_json::Map<String, Value>;
