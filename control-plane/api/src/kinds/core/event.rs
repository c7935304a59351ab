//! Event: what happened to an object, kept for an hour.

use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::names;

/// How long an Event is kept after its last write.
pub const TTL_SECONDS: u64 = 3600;

/// The fields that selectors match, in the order of the values.
pub(in crate::kinds) const SELECTABLE: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "type",
    "source",
];

/// `v1 Event`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["ev"]),
        selectable: names(SELECTABLE),
        create_on_update: true,
        ttl_seconds: Some(TTL_SECONDS),
        columns: columns(),
        ..Kind::new(V1, "Event", "events", "io.k8s.api.core.v1.Event", Event)
    }
}

/// The columns of both groups' tables.
pub(in crate::kinds) fn columns() -> Vec<Column> {
    vec![
        Column::new("Last Seen", "string", "When it was last observed."),
        Column::new("Type", "string", "Normal or Warning."),
        Column::new("Reason", "string", "Why, in one word for machines."),
        Column::new("Object", "string", "What it happened to."),
        Column::new("Subobject", "string", "The part of the object.").wide(),
        Column::new("Source", "string", "Who reports it.").wide(),
        Column::new("Message", "string", "What happened, for people."),
        Column::new("First Seen", "string", "When it was first observed.").wide(),
        Column::new("Count", "string", "How often it was observed.").wide(),
        Column::name().wide(),
    ]
}

struct Event;

impl Strategy for Event {}
