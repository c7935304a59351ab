//! Who owns which field of an object, and server-side apply: a merge that knows owners (sigs.k8s.io/structured-merge-diff v6;
//! k8s.io/apimachinery/pkg/util/managedfields).
//!
//! Data flow of a write that is no apply: [`Managers::of_request`] → [`update`] → [`Managers::into_value`], with the objects before and after it. Of an apply:
//! [`apply`], which makes the object as well. Both know a kind by its [`Versions`]. Invariant: pure; the time comes in with the [`Writer`].
//!
//! Objects come without `metadata.managedFields`, so that owners are never owned, and nothing is copied that a write does not touch: sets of fields are kept in
//! the form in which they are stored ([`Fields`]).

mod compare;
mod conflict;
mod conform;
mod element;
mod fields;
mod last_applied;
mod managers;
mod merge;
mod owned;
mod reconcile;
mod remove;
mod reset;
mod scale;
mod server_side;
mod shape;
mod update;
mod user_agent;

use std::sync::LazyLock;

use serde_json::{Map, Value};

pub use conflict::Conflict;
pub use fields::Fields;
pub use managers::{Entry, Managers, Operation, differ_in_times_only, equal_but_owners, validate};
pub use merge::merge;
pub use reset::reset_fields;
pub use scale::{parent_managers, scale_managers};
pub use server_side::{Applied, apply};
pub use shape::Node;
pub use update::update;
pub use user_agent::manager_of;

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager's name; empty is written as `unknown`.
    pub manager: &'a str,
    /// The subresource that is written; empty for the object itself.
    pub subresource: &'a str,
    /// The version of the request, such as `apps/v1`.
    pub api_version: &'a str,
    /// The time of the request, RFC 3339 in seconds; `None` leaves entries without one.
    pub now: Option<&'a str>,
    /// What the server sets back in such a write ([`reset_fields`]).
    pub reset: &'a Fields,
}

impl<'a> Writer<'a> {
    fn name(&self) -> &'a str {
        if self.manager.is_empty() { "unknown" } else { self.manager }
    }
}

/// The versions of a kind.
pub trait Versions {
    /// The schema in the version of the request.
    fn node(&self) -> Node<'_>;

    /// The schema in another version; `None` if it is not served.
    fn node_of(&self, api_version: &str) -> Option<Node<'_>>;

    /// An object in another version, by its `apiVersion`; `None` if there is no such version.
    fn convert(&self, object: &Value, api_version: &str) -> Option<Value>;

    /// Whether a schema may change while the server runs, so that every write fits the sets of fields to it. Applies always do.
    fn may_change(&self) -> bool;
}

/// What stands for an object that is not there yet.
static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

fn or_empty(object: &Value) -> &Value {
    if object.is_null() { &EMPTY } else { object }
}

#[cfg(test)]
mod tests;
