//! Kinds that a CustomResourceDefinition declares: a definition in, declarations for the one generic engine out ([`kinds`]).
//!
//! Everything that a served version's schema says is read once, when the definition changes, and shared by an `Arc`: what is to be pruned, filled in and
//! judged, the columns of tables, where a Scale is, which fields select. Invariant: pure, and nothing here outlives the kind.

mod decode;
mod defaults;
mod formats;
mod graph;
mod json_path;
mod kind;
mod metadata;
pub mod pattern;
mod prune;
pub mod rules;
pub mod schema;
mod strategy;
mod values;

use std::sync::Arc;

use serde_json::Value;

pub use formats::is_known as is_known_format;
pub use json_path::JsonPath;
pub use kind::kinds;
pub use schema::{Rule, Schema};

pub(crate) use decode::decode;
pub(crate) use defaults::fill as fill_defaults;
pub(crate) use prune::prune;
pub(crate) use values::validate as validate_values;

use crate::gvk::GroupVersion;
use crate::schema::Schemas;

/// What a kind of a CustomResourceDefinition has besides the declaration of every kind.
#[derive(Debug)]
pub struct Custom {
    /// The definition's name, such as `webs.example.com`.
    pub definition: String,
    /// The definition's uid: a definition made anew is another.
    pub uid: String,
    /// The schema of this version.
    pub schema: Schema,
    /// The schema as it was written, for OpenAPI.
    pub published: Value,
    /// The schema as a graph of types; its root has the name [`crate::kinds::Kind::schema`].
    pub graph: Schemas,
    /// The version that objects are stored in.
    pub stored_as: GroupVersion,
    /// The `conversion.webhook` of the definition, where its strategy is `Webhook`.
    pub webhook: Option<Arc<Value>>,
    /// What identifies the version and its schema: an object that was stored with the same needs nothing done to it when it is read.
    pub fingerprint: String,
    /// Whether the definition is being deleted: nothing more is created.
    pub terminating: bool,
    /// What clients of this version are told with every answer: that it is deprecated.
    pub deprecation: Option<String>,
}

impl Custom {
    /// A stored object as this version has it, when no webhook converts: typed as this version, without what the schema does not know, with its defaults.
    pub fn conform(&self, object: &mut Value, version: &GroupVersion) {
        if let Some(object) = object.as_object_mut() {
            object.insert("apiVersion".to_owned(), version.to_string().into());
        }
        prune(object, &self.schema);
        fill_defaults(object, &self.schema);
    }

    /// Whether objects are converted by a webhook on their way between the stored version and this one.
    #[must_use]
    pub fn converts(&self, version: &GroupVersion) -> bool {
        self.webhook.is_some() && *version != self.stored_as
    }
}
