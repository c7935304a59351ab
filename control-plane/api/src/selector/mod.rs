//! Which objects a request is about: label selectors and field selectors.

mod field;
mod label;
mod label_text;

pub use field::{FieldRequirement, FieldSelector};
pub use label::{LabelSelector, Requirement};

/// A selector that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub(crate) String);
