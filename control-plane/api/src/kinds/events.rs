//! The group `events.k8s.io`: Event as it has been written since 1.19. Stored as a core/v1 Event, so that both groups show the same objects.

use serde_json::{Value, json};

use crate::gvk::GroupVersion;
use crate::kinds::core::event::{self, TTL_SECONDS};
use crate::kinds::declaration::{Conversion, Kind, Strategy};
use crate::kinds::names;
use crate::kinds::tree::{fill, map_mut};

/// `events.k8s.io/v1 Event`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["ev"]),
        selectable: names(SELECTABLE),
        create_on_update: true,
        ttl_seconds: Some(TTL_SECONDS),
        columns: event::columns(),
        conversion: Some(Conversion {
            stored_as: ("", "events"),
            stored_type: ("v1", "Event"),
            to_storage,
            from_storage,
        }),
        ..Kind::new(GroupVersion::new("events.k8s.io", "v1"), "Event", "events", "io.k8s.api.events.v1.Event", Event)
    }
}

/// The names that this group gives to the fields of [`event::SELECTABLE`], place by place; it has none for the last one, `source`.
const SELECTABLE: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

/// The fields whose names differ: here and in core/v1.
const RENAMED: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn to_storage(event: &mut Value) {
    let map = map_mut(event);
    for (here, stored) in RENAMED {
        if let Some(value) = map.remove(*here) {
            map.insert((*stored).to_owned(), value);
        }
    }
    fill(event, "involvedObject", json!({}));
}

fn from_storage(event: &mut Value) {
    let map = map_mut(event);
    for (here, stored) in RENAMED {
        if let Some(value) = map.remove(*stored) {
            map.insert((*here).to_owned(), value);
        }
    }
}

struct Event;

impl Strategy for Event {}
