//! Type and metadata of objects in objects (`x-kubernetes-embedded-resource`): read as those of an object itself
//! (k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta).

use serde_json::Value;

use super::schema::Schema;
use crate::field::{Error, ErrorList, Path};
use crate::gvk::GroupVersion;
use crate::kinds::Scope;
use crate::names;

/// Reads the metadata of embedded objects by their type; answers with the paths of unknown fields, and drops what does not fit.
pub(super) fn coerce(object: &mut Value, schema: &Schema) -> Vec<String> {
    let mut unknown = Vec::new();
    visit(object, schema, &Path::default(), &mut |embedded, path| {
        let Some(metadata) = embedded.get_mut("metadata") else { return };
        let (read, fields) = super::decode::metadata(metadata);
        *metadata = read;
        unknown.extend(fields.into_iter().map(|field| path.child(&field).to_string()));
    });
    unknown
}

fn visit(value: &mut Value, schema: &Schema, path: &Path, then: &mut impl FnMut(&mut Value, &Path)) {
    if schema.embedded && value.is_object() {
        then(value, path);
    }
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                if let Some(property) = schema.property(key) {
                    visit(value, property, &path.child(key), then);
                }
            }
        }
        Value::Array(items) => {
            if let Some(of) = &schema.items {
                for (at, item) in items.iter_mut().enumerate() {
                    visit(item, of, &path.index(at), then);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What is wrong with type and metadata of embedded objects.
pub(super) fn validate_embedded(object: &Value, schema: &Schema) -> ErrorList {
    let mut errors = ErrorList::new();
    judge(object, schema, &Path::default(), &mut errors);
    errors
}

fn judge(value: &Value, schema: &Schema, path: &Path, errors: &mut ErrorList) {
    match value {
        Value::Object(map) => {
            if schema.embedded {
                errors.extend(embedded(value, path));
            }
            for (key, value) in map {
                if let Some(property) = schema.properties.get(key) {
                    judge(value, property, &path.child(key), errors);
                } else if let Some(values) = schema.values() {
                    judge(value, values, &path.key(key), errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(of) = &schema.items {
                for (at, item) in items.iter().enumerate() {
                    judge(item, of, &path.index(at), errors);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn embedded(object: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let api_version = path.child("apiVersion");
    match &object["apiVersion"] {
        Value::Null => errors.push(Error::required(&api_version, "")),
        Value::String(text) if text.is_empty() => {
            errors.push(Error::invalid(&api_version, "", "must not be empty"));
        }
        Value::String(text) if GroupVersion::parse(text).is_none() => {
            errors.push(Error::invalid(&api_version, text.as_str(), format!("unexpected GroupVersion string: {text}")));
        }
        Value::String(_) => {}
        other => errors.push(Error::invalid(&api_version, other.clone(), "must be a string")),
    }
    let kind = path.child("kind");
    match &object["kind"] {
        Value::Null => errors.push(Error::required(&kind, "")),
        Value::String(text) if text.is_empty() => errors.push(Error::invalid(&kind, "", "must not be empty")),
        Value::String(text) => {
            let wrong = names::is_dns1035_label(&text.to_lowercase());
            if !wrong.is_empty() {
                let why = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
                errors.push(Error::invalid(&kind, text.as_str(), why));
            }
        }
        other => errors.push(Error::invalid(&kind, other.clone(), "must be a string")),
    }
    if object["metadata"].is_object() {
        let mut named = serde_json::json!({ "metadata": object["metadata"] });
        // An embedded object may have no name yet.
        if crate::meta::name(&named).is_empty() {
            named["metadata"]["name"] = "fakename".into();
        }
        let scope = if crate::meta::namespace(&named).is_empty() { Scope::Cluster } else { Scope::Namespaced };
        for error in crate::meta::validate_create(&named, scope, &|name, prefix| names::is_path_segment(name, prefix)) {
            errors.push(Error { field: path.child(&error.field.to_string()), ..error });
        }
    }
    errors
}
