//! The group `events.k8s.io`: Event as it has been written since 1.19. Stored as a core/v1 Event, so that both groups show the same objects.

use serde_json::{Value, json};

use crate::field::ErrorList;
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

/// The object as core/v1 has it, on which both groups' rules are written.
fn stored(object: &Value) -> Value {
    let mut stored = object.clone();
    to_storage(&mut stored);
    stored
}

struct Event;

impl Strategy for Event {
    fn validate_create(&self, object: &Value) -> ErrorList {
        event::validate_strictly(&stored(object))
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        event::validate_strict_update(&stored(object), &stored(old))
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        event::row(&stored(object), now)
    }

    fn selectable(&self, object: &Value) -> Vec<String> {
        let mut values = event::selectable(&stored(object));
        values.truncate(SELECTABLE.len());
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};

    fn base() -> Value {
        json!({
            "metadata": {"name": "web.1", "namespace": "default"}, "eventTime": "2026-11-24T08:59:00.000000Z",
            "regarding": {"kind": "Pod", "namespace": "default", "name": "web"}, "reason": "Scheduled", "action": "Binding",
            "note": "on node-1", "type": "Normal", "reportingController": "default-scheduler", "reportingInstance": "a",
        })
    }

    #[test]
    fn what_is_stored_comes_back() {
        let mut event = mutated(
            &base(),
            &json!({"deprecatedSource": {"component": "c"}, "deprecatedFirstTimestamp": "2026-11-24T08:59:00Z",
                "deprecatedLastTimestamp": "2026-11-24T08:59:00Z", "deprecatedCount": 1}),
        );
        let before = event.clone();
        to_storage(&mut event);
        assert_eq!(event["involvedObject"], before["regarding"]);
        assert_eq!(event["message"], "on node-1");
        assert_eq!(event["reportingComponent"], "default-scheduler");
        assert_eq!(event["count"], 1);
        assert!(event["regarding"].is_null());
        from_storage(&mut event);
        assert_eq!(event, before);
    }

    #[test]
    fn a_new_event_is_complete_and_without_deprecated_fields() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (json!({"eventTime": null}), vec!["eventTime: Required value"]),
            (json!({"type": "Odd"}), vec!["type: Invalid value: \"\": has invalid value: Odd"]),
            (json!({"deprecatedCount": 2}), vec!["count: Invalid value: \"\": needs to be unset"]),
            (json!({"action": ""}), vec!["action: Required value"]),
            (
                json!({"series": {"count": 1, "lastObservedTime": "2026-11-24T08:59:00Z"}}),
                vec!["series.count: Invalid value: \"\": should be at least 2"],
            ),
        ] {
            assert_eq!(messages(&kind().strategy.validate_create(&mutated(&base(), &mutation))), expected);
        }
    }

    #[test]
    fn only_the_series_changes() {
        for (mutation, expected) in [
            (json!({"series": {"count": 2, "lastObservedTime": "2026-11-24T08:59:30Z"}}), vec![]),
            (json!({"eventTime": "2026-11-24T08:59:00.000000900Z"}), vec![]),
            (json!({"note": "else"}), vec!["message: Invalid value: \"else\": field is immutable"]),
            (json!({"reportingInstance": "b"}), vec!["reportingInstance: Invalid value: \"b\": field is immutable"]),
        ] {
            assert_eq!(messages(&kind().strategy.validate_update(&mutated(&base(), &mutation), &base())), expected);
        }
    }

    #[test]
    fn both_groups_show_the_same_row_and_select_alike() {
        let row = kind().strategy.row(&base(), NOW);
        assert_eq!(
            (&row[0], &row[3], &row[5], &row[8]),
            (&json!("60s"), &json!("pod/web"), &json!("default-scheduler, a"), &json!(1))
        );
        let stored = event::kind();
        for (name, at) in kind().selectable.iter().zip(0..) {
            let expected =
                name.replace("regarding", "involvedObject").replace("reportingController", "reportingComponent");
            assert_eq!(stored.selectable[at], expected);
        }
    }
}
