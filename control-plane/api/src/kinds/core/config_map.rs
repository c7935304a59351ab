//! ConfigMap: configuration that pods read.

use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::core::V1;
use crate::kinds::declaration::{Column, Kind, Strategy};
use crate::kinds::names;
use crate::kinds::tree::{entries, flag, length, semantically_equal, text};
use crate::names::is_config_map_key;

/// `v1 ConfigMap`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        short_names: names(&["cm"]),
        columns: vec![Column::name(), Column::new("Data", "string", "The number of entries."), Column::age()],
        ..Kind::new(V1, "ConfigMap", "configmaps", "io.k8s.api.core.v1.ConfigMap", ConfigMap)
    }
}

/// The most bytes that the data of a ConfigMap or a Secret may have.
pub const MAX_DATA_BYTES: usize = 1024 * 1024;

struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let mut size = 0;
        for (key, value) in entries(&object["data"]) {
            let path = Path::new("data").key(key);
            errors.extend(is_config_map_key(key).into_iter().map(|message| Error::invalid(&path, key, message)));
            if !object["binaryData"][key].is_null() {
                errors.push(Error::invalid(&path, key, "duplicate of key present in binaryData"));
            }
            size += text(value).len();
        }
        for (key, value) in entries(&object["binaryData"]) {
            let path = Path::new("binaryData").key(key);
            errors.extend(is_config_map_key(key).into_iter().map(|message| Error::invalid(&path, key, message)));
            size += decoded_length(text(value));
        }
        if size > MAX_DATA_BYTES {
            errors.push(Error::too_long(&Path::default(), MAX_DATA_BYTES));
        }
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = validate_immutable(object, old, &["data", "binaryData"]);
        errors.extend(self.validate_create(object));
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        let count = length(&object["data"]) + length(&object["binaryData"]);
        vec![name_cell(object), count.into(), age_cell(object, now)]
    }
}

/// The bytes that a base64 text stands for.
pub(in crate::kinds) fn decoded_length(base64: &str) -> usize {
    let padding = base64.bytes().rev().take_while(|byte| *byte == b'=').count();
    (base64.len() / 4 * 3).saturating_sub(padding)
}

/// What is wrong with a change to an object whose `immutable` was set: it stays set, and the data stays what it is.
pub(in crate::kinds) fn validate_immutable(object: &Value, old: &Value, fields: &[&str]) -> ErrorList {
    const MESSAGE: &str = "field is immutable when `immutable` is set";
    let mut errors = ErrorList::new();
    if flag(&old["immutable"]) {
        if !flag(&object["immutable"]) {
            errors.push(Error::forbidden(&Path::new("immutable"), MESSAGE));
        }
        for field in fields {
            if !semantically_equal(&object[*field], &old[*field]) {
                errors.push(Error::forbidden(&Path::new(field), MESSAGE));
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};
    use serde_json::json;

    fn base() -> Value {
        json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-11-24T08:00:00Z"},
            "data": {"a": "1"}, "binaryData": {"b": "AAE="},
        })
    }

    #[test]
    fn keys_are_names_of_files() {
        for (mutation, expected) in [
            (json!({}), vec![]),
            (
                json!({"binaryData": {"a": "AA=="}}),
                vec!["data[a]: Invalid value: \"a\": duplicate of key present in binaryData"],
            ),
            (
                json!({"data": {"a/b": "x"}}),
                vec![
                    "data[a/b]: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
                ],
            ),
            (
                json!({"data": {"c": "x".repeat(MAX_DATA_BYTES)}}),
                vec!["<nil>: Too long: may not be more than 1048576 bytes"],
            ),
        ] {
            assert_eq!(messages(&kind().strategy.validate_create(&mutated(&base(), &mutation))), expected);
        }
    }

    #[test]
    fn an_immutable_one_keeps_its_data() {
        let old = mutated(&base(), &json!({"immutable": true}));
        for (mutation, expected) in [
            (json!({"metadata": {"labels": {"a": "b"}}}), vec![]),
            (json!({"immutable": null}), vec!["immutable: Forbidden: field is immutable when `immutable` is set"]),
            (json!({"data": {"a": "2"}}), vec!["data: Forbidden: field is immutable when `immutable` is set"]),
            (json!({"binaryData": null}), vec!["binaryData: Forbidden: field is immutable when `immutable` is set"]),
        ] {
            assert_eq!(messages(&kind().strategy.validate_update(&mutated(&old, &mutation), &old)), expected);
        }
        assert!(kind().strategy.validate_update(&json!({"data": {"z": "1"}}), &base()).is_empty());
    }

    #[test]
    fn a_row_counts_the_entries() {
        assert_eq!(kind().strategy.row(&base(), NOW), [json!("a"), json!(2), json!("60m")]);
    }

    #[test]
    fn base64_says_how_long_its_data_is() {
        assert_eq!(["", "AA==", "AAA=", "AAAA"].map(decoded_length), [0, 1, 2, 3]);
    }
}
