//! Event: what happened to an object, kept for an hour.

use jiff::Timestamp;
use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::kinds::age::age;
use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::names;
use crate::kinds::tree::{IMMUTABLE, immutable, integer, semantically_equal, text};
use crate::names::{is_path_segment, is_qualified_name};

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

impl Strategy for Event {
    fn validate_create(&self, object: &Value) -> ErrorList {
        validate(object, "reportingComponent")
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        row(object, now)
    }

    fn selectable(&self, object: &Value) -> Vec<String> {
        selectable(object)
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        // Upstream checks no more than what a path can hold.
        is_path_segment(name, prefix)
    }
}

/// The limits of an Event that has an `eventTime`, in bytes.
const MAX_SHORT: usize = 128;
const MAX_MESSAGE: usize = 1024;

/// What every Event keeps to, whichever group it comes by (`legacyValidateEvent`): stricter when it has an `eventTime`.
fn validate(event: &Value, controller_field: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let namespace = text(&event["metadata"]["namespace"]);
    let involved = text(&event["involvedObject"]["namespace"]);
    let is_new = !is_zero_time(&event["eventTime"]);
    let matches = match (involved.is_empty(), is_new) {
        (true, false) => matches!(namespace, "" | "default"),
        (false, false) => namespace == involved,
        (true, true) => matches!(namespace, "default" | "kube-system"),
        (false, true) => true,
    };
    if !matches {
        let path = Path::new("involvedObject").child("namespace");
        errors.push(Error::invalid(&path, involved, "does not match event.namespace"));
    }
    if !is_new {
        return errors;
    }
    let path = Path::new(controller_field);
    let controller = text(&event["reportingComponent"]);
    if controller.is_empty() {
        errors.push(Error::required(&path, ""));
    }
    errors.extend(is_qualified_name(controller).into_iter().map(|message| Error::invalid(&path, controller, message)));
    for (field, limit, required) in [
        ("reportingInstance", MAX_SHORT, true),
        ("action", MAX_SHORT, true),
        ("reason", MAX_SHORT, true),
        ("message", MAX_MESSAGE, false),
    ] {
        let value = text(&event[field]);
        if required && value.is_empty() {
            errors.push(Error::required(&Path::new(field), ""));
        }
        if value.len() > limit {
            errors.push(Error::invalid(&Path::new(field), "", format!("can have at most {limit} characters")));
        }
    }
    errors
}

/// What is wrong with a new Event of events.k8s.io, given as core/v1 has it.
pub(in crate::kinds) fn validate_strictly(event: &Value) -> ErrorList {
    let mut errors = validate(event, "reportingController");
    errors.extend(validate_series(&event["series"]));
    if is_zero_time(&event["eventTime"]) {
        errors.push(Error::required(&Path::new("eventTime"), ""));
    }
    let type_ = text(&event["type"]);
    if !matches!(type_, "Normal" | "Warning") {
        errors.push(Error::invalid(&Path::new("type"), "", format!("has invalid value: {type_}")));
    }
    let source = &event["source"];
    for (field, set) in [
        ("firstTimestamp", !is_zero_time(&event["firstTimestamp"])),
        ("lastTimestamp", !is_zero_time(&event["lastTimestamp"])),
        ("count", integer(&event["count"]) != 0),
        ("source", !text(&source["component"]).is_empty() || !text(&source["host"]).is_empty()),
    ] {
        if set {
            errors.push(Error::invalid(&Path::new(field), "", "needs to be unset"));
        }
    }
    errors
}

/// What is wrong with an update of an Event of events.k8s.io: only the series may change.
pub(in crate::kinds) fn validate_strict_update(event: &Value, old: &Value) -> ErrorList {
    let mut errors = validate(event, "reportingController");
    if !semantically_equal(&event["series"], &old["series"]) {
        errors.extend(validate_series(&event["series"]));
    }
    for field in
        ["involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "reason", "type"]
    {
        errors.extend(immutable(&event[field], &old[field], &Path::new(field)));
    }
    // Some clients truncate what is finer than a microsecond.
    let microseconds = |event: &Value| time(&event["eventTime"]).map(Timestamp::as_microsecond);
    if microseconds(event) != microseconds(old) {
        errors.push(Error::invalid(&Path::new("eventTime"), event["eventTime"].clone(), IMMUTABLE));
    }
    for (field, shown) in [
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        errors.extend(immutable(&event[field], &old[field], &Path::new(shown)));
    }
    errors
}

fn validate_series(series: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if series.is_null() {
        return errors;
    }
    if integer(&series["count"]) < 2 {
        errors.push(Error::invalid(&Path::new("series.count"), "", "should be at least 2"));
    }
    if is_zero_time(&series["lastObservedTime"]) {
        errors.push(Error::required(&Path::new("series.lastObservedTime"), ""));
    }
    errors
}

/// The cells of an Event, given as core/v1 has it.
pub(in crate::kinds) fn row(event: &Value, now: i64) -> Vec<Value> {
    let series = &event["series"];
    let first = first_of(&event["firstTimestamp"], &event["eventTime"]);
    let (last, count) = if series.is_null() {
        (first_of(&event["lastTimestamp"], first), integer(&event["count"]).max(1))
    } else {
        (&series["lastObservedTime"], integer(&series["count"]))
    };
    let involved = &event["involvedObject"];
    let mut object = text(&involved["kind"]).to_lowercase();
    if !text(&involved["name"]).is_empty() {
        object = format!("{object}/{}", text(&involved["name"]));
    }
    vec![
        age(last.as_str(), now).into(),
        text(&event["type"]).into(),
        text(&event["reason"]).into(),
        object.into(),
        text(&involved["fieldPath"]).into(),
        source(event).into(),
        text(&event["message"]).trim().into(),
        age(first.as_str(), now).into(),
        count.into(),
        text(&event["metadata"]["name"]).into(),
    ]
}

fn source(event: &Value) -> String {
    let component = text(first_of(&event["source"]["component"], &event["reportingComponent"]));
    let instance = text(first_of(&event["source"]["host"], &event["reportingInstance"]));
    if instance.is_empty() { component.to_owned() } else { format!("{component}, {instance}") }
}

/// The values of [`SELECTABLE`], of an Event given as core/v1 has it.
pub(in crate::kinds) fn selectable(event: &Value) -> Vec<String> {
    let involved = &event["involvedObject"];
    let source = first_of(&event["source"]["component"], &event["reportingComponent"]);
    let of_involved = ["kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"];
    let values = of_involved.iter().map(|field| &involved[*field]);
    let own = [&event["reason"], &event["reportingComponent"], &event["type"], source];
    values.chain(own).map(|value| text(value).to_owned()).collect()
}

fn first_of<'a>(value: &'a Value, other: &'a Value) -> &'a Value {
    if text(value).is_empty() { other } else { value }
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str().and_then(|time| time.parse().ok())
}

/// Go's zero time is the year 1, which is what an absent one may come in as.
fn is_zero_time(value: &Value) -> bool {
    time(value).is_none_or(|time| time.as_second() == -62_135_596_800)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};
    use serde_json::json;

    fn base() -> Value {
        json!({
            "metadata": {"name": "web.1", "namespace": "default"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "web", "uid": "u", "apiVersion": "v1",
                "resourceVersion": "7", "fieldPath": "spec.containers{a}"},
            "reason": "Started", "message": " Started it \n", "type": "Normal",
            "source": {"component": "kubelet", "host": "node-1"},
            "firstTimestamp": "2026-11-24T08:00:00Z", "lastTimestamp": "2026-11-24T08:59:00Z", "count": 3,
        })
    }

    #[test]
    fn an_old_style_event_is_in_the_namespace_of_its_object() {
        let mismatch = "does not match event.namespace";
        for (mutation, expected) in [
            (json!({}), vec![]),
            (json!({"involvedObject": {"namespace": null}}), vec![]),
            (
                json!({"involvedObject": {"namespace": "b"}}),
                vec![format!("involvedObject.namespace: Invalid value: \"b\": {mismatch}")],
            ),
            (
                json!({"metadata": {"namespace": "b"}, "involvedObject": {"namespace": null}}),
                vec![format!("involvedObject.namespace: Invalid value: \"\": {mismatch}")],
            ),
        ] {
            assert_eq!(messages(&kind().strategy.validate_create(&mutated(&base(), &mutation))), expected);
        }
    }

    #[test]
    fn an_event_with_a_time_says_who_did_what() {
        let event = mutated(&base(), &json!({"eventTime": "2026-11-24T08:00:00.000000Z", "message": "x".repeat(1025)}));
        let found = messages(&kind().strategy.validate_create(&event));
        assert_eq!(found[0], "reportingComponent: Required value");
        assert!(found.contains(&"reportingInstance: Required value".to_owned()), "{found:?}");
        assert!(found.contains(&"action: Required value".to_owned()));
        assert!(found.contains(&"message: Invalid value: \"\": can have at most 1024 characters".to_owned()));
    }

    #[test]
    fn a_row_tells_when_what_and_to_whom() {
        assert_eq!(
            kind().strategy.row(&base(), NOW),
            [
                json!("60s"),
                json!("Normal"),
                json!("Started"),
                json!("pod/web"),
                json!("spec.containers{a}"),
                json!("kubelet, node-1"),
                json!("Started it"),
                json!("60m"),
                json!(3),
                json!("web.1"),
            ]
        );
    }

    #[test]
    fn selectors_see_the_object_and_the_source() {
        assert_eq!(
            kind().strategy.selectable(&base()),
            ["Pod", "default", "web", "u", "v1", "7", "spec.containers{a}", "Started", "", "Normal", "kubelet"]
        );
        assert_eq!(kind().selectable.len(), kind().strategy.selectable(&base()).len());
    }
}
