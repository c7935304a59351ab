//! What the system puts into `metadata`, and what it keeps from one write to the next.

use serde_json::{Map, Value};
use skep_api::Status;
use skep_api::kinds::{Kind, Scope, Subresource};

use super::{Call, rfc3339};

/// The metadata of an object, made if it is missing.
pub(crate) fn of(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let metadata = &mut object["metadata"];
    if !metadata.is_object() {
        *metadata = Value::Object(Map::new());
    }
    metadata.as_object_mut().expect("just made an object")
}

/// A metadata string; empty when it is not there.
#[must_use]
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Sets the namespace of the request on an object that names none; refuses one that names another.
///
/// # Errors
/// 400 in upstream's words.
pub(crate) fn match_namespace(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    if call.kind.scope == Scope::Cluster {
        of(object).remove("namespace");
        return Ok(());
    }
    let named = text(object, "namespace");
    if named.is_empty() {
        of(object).insert("namespace".to_owned(), call.namespace.into());
    } else if named != call.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

/// Refuses an object whose name is not that of the URL.
///
/// # Errors
/// 400 in upstream's words.
pub(crate) fn match_name(call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
    let named = text(object, "name");
    if named.is_empty() {
        of(object).insert("name".to_owned(), call.name.into());
    } else if named != call.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({named}) does not match the name on the URL ({})",
            call.name
        )));
    }
    Ok(())
}

/// Sets what only the system sets on a new object.
pub(crate) fn fill_system_fields(kind: &Kind, object: &mut Value, call: &Call<'_>) {
    let metadata = of(object);
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "selfLink"] {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    metadata.insert("creationTimestamp".to_owned(), rfc3339(call.now).into());
    if kind.has_generation {
        metadata.insert("generation".to_owned(), 1.into());
    } else {
        metadata.remove("generation");
    }
}

/// Keeps what only the system sets from the object before; a client may leave these out, and validation refuses other values.
pub(crate) fn carry_system_fields(object: &mut Value, old: &Value) {
    let metadata = of(object);
    metadata.remove("selfLink");
    for field in ["uid", "creationTimestamp"] {
        if metadata.get(field).is_none_or(Value::is_null) {
            copy(metadata, old, field);
        }
    }
    for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion"] {
        copy(metadata, old, field);
    }
}

fn copy(metadata: &mut Map<String, Value>, old: &Value, field: &str) {
    match old["metadata"].get(field) {
        Some(value) => metadata.insert(field.to_owned(), value.clone()),
        None => metadata.remove(field),
    };
}

/// Moves `metadata.generation` when anything but metadata and status has changed.
pub(crate) fn bump_generation(kind: &Kind, object: &mut Value, old: &Value) {
    if kind.has_generation && differs_in_spec(kind, object, old) {
        next_generation(object);
    }
}

/// `metadata.generation` + 1, where the object has one.
pub(crate) fn next_generation(object: &mut Value) {
    if let Some(generation) = object["metadata"]["generation"].as_i64().filter(|generation| *generation > 0) {
        object["metadata"]["generation"] = (generation + 1).into();
    }
}

fn differs_in_spec(kind: &Kind, object: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (object.as_object(), old.as_object()) else { return true };
    // A custom object's status is a field like others when it has no path of its own.
    let status = kind.custom.is_none() || kind.has(Subresource::Status);
    let part = |key: &str| key != "metadata" && (key != "status" || !status);
    !new.iter().filter(|(key, _)| part(key)).eq(old.iter().filter(|(key, _)| part(key)))
}
