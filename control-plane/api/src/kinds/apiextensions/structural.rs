//! Whether a schema is structural: every field that is judged anywhere is declared outside of `allOf`, `anyOf`, `oneOf` and `not`
//! (k8s.io/apiextensions-apiserver/pkg/apiserver/schema/validation.go). Only then can objects be pruned and defaulted by it.

use serde_json::{Value, json};

use crate::custom::pattern;
use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::{entries, items, text};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What keeps a schema from being structural, sorted by message.
pub(super) fn validate(schema: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    invariants(schema, Level::Root, path, &mut errors);
    completeness(schema, schema, path, path, &mut errors);
    errors.sort_by_key(ToString::to_string);
    errors
}

fn invariants(schema: &Value, level: Level, path: &Path, errors: &mut ErrorList) {
    let type_ = text(&schema["type"]);
    let on = |extension: &str| schema[extension] == true;
    let embedded = on("x-kubernetes-embedded-resource");
    let int_or_string = on("x-kubernetes-int-or-string");
    let preserves = on("x-kubernetes-preserve-unknown-fields");
    if type_ == "array" && schema["items"].is_null() {
        errors.push(Error::required(&path.child("items"), "must be specified"));
    }
    if schema["items"].is_object() {
        invariants(&schema["items"], Level::Item, &path.child("items"), errors);
    }
    for (name, property) in entries(&schema["properties"]) {
        invariants(property, Level::Field, &path.child("properties").key(name), errors);
    }
    let additional = &schema["additionalProperties"];
    if !additional.is_null() {
        if level == Level::Root {
            errors.push(Error::forbidden(&path.child("additionalProperties"), "must not be used at the root"));
        }
        if additional.is_object() {
            invariants(additional, Level::Field, &path.child("additionalProperties"), errors);
        }
        if embedded {
            let why = "must not be used if x-kubernetes-embedded-resource is set";
            errors.push(Error::forbidden(&path.child("additionalProperties"), why));
        }
    }
    if int_or_string && preserves {
        let why = "must be false if x-kubernetes-int-or-string is true";
        errors.push(Error::invalid(&path.child("x-kubernetes-preserve-unknown-fields"), true, why));
    }
    if int_or_string && embedded {
        let why = "must be false if x-kubernetes-int-or-string is true";
        errors.push(Error::invalid(&path.child("x-kubernetes-embedded-resource"), true, why));
    }
    let either = json!([{ "type": "integer" }, { "type": "string" }]);
    let skip_any = schema["anyOf"] == either;
    let skip_first_all = schema["allOf"][0]["anyOf"] == either;
    values(schema, skip_any, skip_first_all, path, errors);
    let type_path = path.child("type");
    if embedded && type_ != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if type_.is_empty() {
            Error::required(&type_path, why)
        } else {
            Error::invalid(&type_path, type_, why)
        });
    } else if type_.is_empty() && !int_or_string && !preserves {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(Error::required(&type_path, why));
    }
    if level == Level::Root && !type_.is_empty() && type_ != "object" {
        errors.push(Error::invalid(&type_path, type_, "must be object at the root"));
    }
    metadata(schema, level == Level::Root || embedded, level, path, errors);
    if embedded && !preserves && entries(&schema["properties"]).next().is_none() {
        let why =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(Error::required(&path.child("properties"), why));
    }
}

fn metadata(schema: &Value, checked: bool, level: Level, path: &Path, errors: &mut ErrorList) {
    let properties = &schema["properties"];
    for name in ["kind", "apiVersion"] {
        let property = &properties[name];
        if checked && property.is_object() && property["type"] != "string" {
            let path = path.child("properties").key(name).child("type");
            errors.push(Error::invalid(&path, text(&property["type"]), "must be string"));
        }
    }
    let metadata = &properties["metadata"];
    if !metadata.is_object() {
        return;
    }
    let path = path.child("properties").key("metadata");
    if checked && metadata["type"] != "object" {
        errors.push(Error::invalid(&path.child("type"), text(&metadata["type"]), "must be object"));
    }
    if level == Level::Root {
        let plain = metadata.as_object().into_iter().flatten().all(|(key, value)| match key.as_str() {
            "type" | "default" => true,
            "properties" => entries(value).all(|(name, _)| matches!(name, "name" | "generateName")),
            _ => crate::kinds::tree::is_empty(value),
        });
        if !plain {
            let why =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(Error::forbidden(&path, why));
        }
    }
}

/// What stands in `allOf`, `anyOf`, `oneOf` and `not`.
fn values(schema: &Value, skip_any: bool, skip_first_all: bool, path: &Path, errors: &mut ErrorList) {
    if !skip_any {
        for (at, one) in items(&schema["anyOf"]).iter().enumerate() {
            nested(one, false, &path.child("anyOf").index(at), errors);
        }
    }
    for (at, one) in items(&schema["allOf"]).iter().enumerate() {
        nested(one, skip_first_all && at == 0, &path.child("allOf").index(at), errors);
    }
    for (at, one) in items(&schema["oneOf"]).iter().enumerate() {
        nested(one, false, &path.child("oneOf").index(at), errors);
    }
    if schema["not"].is_object() {
        nested(&schema["not"], false, &path.child("not"), errors);
    }
    let given = text(&schema["pattern"]);
    if let Err(error) = pattern::compile(given) {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        errors.push(Error::invalid(&path.child("pattern"), given, why));
    }
}

fn nested(schema: &Value, skip_any: bool, path: &Path, errors: &mut ErrorList) {
    values(schema, skip_any, false, path, errors);
    if schema["items"].is_object() {
        nested(&schema["items"], false, &path.child("items"), errors);
    }
    for (name, property) in entries(&schema["properties"]) {
        nested(property, false, &path.child("properties").key(name), errors);
    }
    let mut forbid = |field: &str, why: &str| {
        if !crate::kinds::tree::is_empty(&schema[field]) {
            errors.push(Error::forbidden(&path.child(field), why));
        }
    };
    forbid("type", "must be empty to be structural");
    if !schema["additionalProperties"].is_null() {
        errors.push(Error::forbidden(&path.child("additionalProperties"), "must be undefined to be structural"));
    }
    let mut forbid = |field: &str, why: &str| {
        if !crate::kinds::tree::is_empty(&schema[field]) {
            errors.push(Error::forbidden(&path.child(field), why));
        }
    };
    forbid("default", "must be undefined to be structural");
    forbid("title", "must be empty to be structural");
    forbid("description", "must be empty to be structural");
    forbid("nullable", "must be false to be structural");
    forbid("x-kubernetes-preserve-unknown-fields", "must be false to be structural");
    forbid("x-kubernetes-embedded-resource", "must be false to be structural");
    forbid("x-kubernetes-int-or-string", "must be false to be structural");
    forbid("x-kubernetes-list-map-keys", "must be empty to be structural");
    forbid("x-kubernetes-list-type", "must be undefined to be structural");
    forbid("x-kubernetes-map-type", "must be undefined to be structural");
    forbid("x-kubernetes-validations", "must be empty to be structural");
    if schema["properties"]["metadata"].is_object() {
        let path = path.child("properties").key("metadata");
        errors.push(Error::forbidden(&path, "must not be specified in a nested context"));
    }
}

/// Whether all that is judged has a counterpart outside of the logic.
fn completeness(judged: &Value, declared: &Value, at: &Path, path: &Path, errors: &mut ErrorList) {
    if judged["not"].is_object() {
        counterpart(&judged["not"], declared, at, &path.child("not"), errors);
    }
    for logic in ["allOf", "anyOf", "oneOf"] {
        for (index, one) in items(&judged[logic]).iter().enumerate() {
            counterpart(one, declared, at, &path.child(logic).index(index), errors);
        }
    }
}

fn counterpart(judged: &Value, declared: &Value, at: &Path, path: &Path, errors: &mut ErrorList) {
    completeness(judged, declared, at, path, errors);
    if judged["items"].is_object() {
        let (at, path) = (at.child("items"), path.child("items"));
        if declared["items"].is_object() {
            counterpart(&judged["items"], &declared["items"], &at, &path, errors);
        } else {
            errors.push(Error::required(&at, format!("because it is defined in {path}")));
        }
    }
    for (name, property) in entries(&judged["properties"]) {
        let (at, path) = (at.child("properties").key(name), path.child("properties").key(name));
        let other = &declared["properties"][name];
        if other.is_object() {
            counterpart(property, other, &at, &path, errors);
        } else {
            errors.push(Error::required(&at, format!("because it is defined in {path}")));
        }
    }
}
