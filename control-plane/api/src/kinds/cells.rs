//! The cells that many tables share.

use serde_json::Value;

use crate::kinds::age::age;
use crate::kinds::tree::{entries, items, text};
use crate::selector::LabelSelector;

/// The object's name.
pub(in crate::kinds) fn name_cell(object: &Value) -> Value {
    text(&object["metadata"]["name"]).into()
}

/// How long ago the object was created.
pub(in crate::kinds) fn age_cell(object: &Value, now: i64) -> Value {
    age(object["metadata"]["creationTimestamp"].as_str(), now).into()
}

/// One field of each container of a pod template, with commas between.
pub(in crate::kinds) fn containers_cell(template: &Value, field: &str) -> Value {
    items(&template["spec"]["containers"]).iter().map(|c| text(&c[field])).collect::<Vec<_>>().join(",").into()
}

/// A label selector in the syntax of queries (`metav1.FormatLabelSelector`).
pub(in crate::kinds) fn selector_cell(selector: &Value) -> Value {
    match LabelSelector::from_object(selector) {
        Ok(selector) => or_none(selector.to_string()),
        Err(_) => "<error>".into(),
    }
}

/// A set of labels (`labels.FormatLabels`).
pub(in crate::kinds) fn labels_cell(labels: &Value) -> Value {
    or_none(entries(labels).map(|(key, value)| format!("{key}={}", text(value))).collect::<Vec<_>>().join(","))
}

/// At most three of a list, and how many more there are; `<unset>` where the list is empty (`listWithMoreString`).
pub(in crate::kinds) fn first_three(all: &[String]) -> String {
    match all {
        [] => "<unset>".to_owned(),
        [a, b, c, _, ..] => format!("{a},{b},{c} + {} more...", all.len() - 3),
        _ => all.join(","),
    }
}

/// A text, or `<none>`.
pub(in crate::kinds) fn or_none(text: String) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}
