//! Secret: small data that only some may read.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{age_cell, name_cell};
use crate::kinds::core::V1;
use crate::kinds::core::config_map::{MAX_DATA_BYTES, decoded_length, validate_immutable};
use crate::kinds::declaration::{Column, Kind, Strategy, WriteContext};
use crate::kinds::names;
use crate::kinds::tree::{entries, fill_text, immutable, length, map_mut, text};
use crate::names::is_config_map_key;

/// `v1 Secret`
#[must_use]
pub fn kind() -> Kind {
    Kind {
        selectable: names(&["type"]),
        columns: vec![
            Column::name(),
            Column::new("Type", "string", "What the data is for."),
            Column::new("Data", "string", "The number of entries."),
            Column::age(),
        ],
        ..Kind::new(V1, "Secret", "secrets", "io.k8s.api.core.v1.Secret", Secret)
    }
}

struct Secret;

impl Strategy for Secret {
    /// `stringData` is for writing only: it is folded into `data` and never stored (`Convert_v1_Secret_To_core_Secret`).
    fn default(&self, object: &mut Value) {
        fill_text(object, "type", "Opaque");
        let Some(Value::Object(strings)) = map_mut(object).remove("stringData") else { return };
        if strings.is_empty() {
            return;
        }
        let data = map_mut(&mut object["data"]);
        for (key, value) in strings {
            data.insert(key, STANDARD.encode(text(&value)).into());
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, _: &WriteContext<'_>) {
        fill_text(object, "type", text(&old["type"]));
    }

    fn validate_create(&self, object: &Value) -> ErrorList {
        let path = Path::new("data");
        let mut errors = ErrorList::new();
        let mut size = 0;
        for (key, value) in entries(&object["data"]) {
            let path = path.key(key);
            errors.extend(is_config_map_key(key).into_iter().map(|message| Error::invalid(&path, key, message)));
            size += decoded_length(text(value));
        }
        if size > MAX_DATA_BYTES {
            errors.push(Error::too_long(&path, MAX_DATA_BYTES));
        }
        errors.extend(validate_type(object));
        errors
    }

    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let mut errors = immutable(&object["type"], &old["type"], &Path::new("type"));
        errors.extend(validate_immutable(object, old, &["data"]));
        errors.extend(self.validate_create(object));
        errors
    }

    fn row(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![name_cell(object), text(&object["type"]).into(), length(&object["data"]).into(), age_cell(object, now)]
    }

    fn selectable(&self, object: &Value) -> Vec<String> {
        vec![text(&object["type"]).to_owned()]
    }
}

/// What a Secret of its type must hold.
fn validate_type(object: &Value) -> ErrorList {
    let data = &object["data"];
    let path = Path::new("data");
    let absent = |key: &str| data[key].is_null();
    let required = |key: &str| Error::required(&path.key(key), "");
    match text(&object["type"]) {
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            if text(&object["metadata"]["annotations"][NAME]).is_empty() {
                return vec![Error::required(&Path::new("metadata").child("annotations").key(NAME), "")];
            }
        }
        "kubernetes.io/dockercfg" => return validate_docker_config(data, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => return validate_docker_config(data, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if absent("username") && absent("password") => {
            return vec![required("username"), required("password")];
        }
        "kubernetes.io/ssh-auth" if text(&data["ssh-privatekey"]).is_empty() => {
            return vec![required("ssh-privatekey")];
        }
        "kubernetes.io/tls" => {
            return ["tls.crt", "tls.key"].into_iter().filter(|key| absent(key)).map(required).collect();
        }
        _ => {}
    }
    ErrorList::new()
}

/// The contents are a secret, so the message does not show them.
fn validate_docker_config(data: &Value, key: &str) -> ErrorList {
    let path = Path::new("data").key(key);
    if data[key].is_null() {
        return vec![Error::required(&path, "")];
    }
    let bytes = STANDARD.decode(text(&data[key])).unwrap_or_default();
    match serde_json::from_slice::<Option<serde_json::Map<String, Value>>>(&bytes) {
        Ok(_) => ErrorList::new(),
        Err(error) => vec![Error::invalid(&path, "<secret contents redacted>", error.to_string())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};
    use serde_json::json;

    #[test]
    fn string_data_is_folded_into_data() {
        let mut object = json!({"data": {"a": "MQ==", "b": "Mg=="}, "stringData": {"b": "three", "c": ""}});
        kind().strategy.default(&mut object);
        assert_eq!(object, json!({"type": "Opaque", "data": {"a": "MQ==", "b": "dGhyZWU=", "c": ""}}));
    }

    #[test]
    fn a_type_demands_its_keys() {
        for (object, expected) in [
            (json!({"type": "Opaque"}), vec![]),
            (json!({"type": "example.com/mine"}), vec![]),
            (
                json!({"type": "kubernetes.io/service-account-token"}),
                vec!["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
            (json!({"type": "kubernetes.io/dockercfg"}), vec!["data[.dockercfg]: Required value"]),
            (json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "e30="}}), vec![]),
            (
                json!({"type": "kubernetes.io/basic-auth"}),
                vec!["data[username]: Required value", "data[password]: Required value"],
            ),
            (json!({"type": "kubernetes.io/basic-auth", "data": {"password": ""}}), vec![]),
            (
                json!({"type": "kubernetes.io/ssh-auth", "data": {"ssh-privatekey": ""}}),
                vec!["data[ssh-privatekey]: Required value"],
            ),
            (json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}), vec!["data[tls.key]: Required value"]),
        ] {
            assert_eq!(messages(&kind().strategy.validate_create(&object)), expected, "{object}");
        }
    }

    #[test]
    fn a_broken_docker_config_is_not_shown() {
        let object = json!({"type": "kubernetes.io/dockercfg", "data": {".dockercfg": "bm90IGpzb24="}});
        let found = messages(&kind().strategy.validate_create(&object));
        assert!(found[0].starts_with("data[.dockercfg]: Invalid value: \"<secret contents redacted>\": "), "{found:?}");
    }

    #[test]
    fn type_and_immutable_data_stay() {
        let old = json!({"type": "Opaque", "immutable": true, "data": {"a": "MQ=="}});
        for (mutation, expected) in [
            (json!({"type": "x/y"}), vec!["type: Invalid value: \"x/y\": field is immutable"]),
            (json!({"data": {"a": "Mg=="}}), vec!["data: Forbidden: field is immutable when `immutable` is set"]),
            (json!({"immutable": false}), vec!["immutable: Forbidden: field is immutable when `immutable` is set"]),
        ] {
            assert_eq!(messages(&kind().strategy.validate_update(&mutated(&old, &mutation), &old)), expected);
        }
    }

    #[test]
    fn an_update_without_a_type_keeps_it() {
        let mut object = json!({"data": {}});
        let context = WriteContext { now: "", user: "" };
        kind().strategy.prepare_update(&mut object, &json!({"type": "kubernetes.io/tls"}), &context);
        assert_eq!(object["type"], "kubernetes.io/tls");
    }

    #[test]
    fn a_row_shows_type_and_number_of_entries() {
        let object = json!({
            "metadata": {"name": "s", "creationTimestamp": "2026-11-24T08:59:30Z"}, "type": "Opaque", "data": {"a": ""},
        });
        assert_eq!(kind().strategy.row(&object, NOW), [json!("s"), json!("Opaque"), json!(1), json!("30s")]);
        assert_eq!(kind().strategy.selectable(&object), ["Opaque"]);
    }
}
