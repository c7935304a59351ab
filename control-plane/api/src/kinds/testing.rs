//! What the tables of this module's tests are written with.

use serde_json::Value;

use crate::field::ErrorList;

/// An object changed by a JSON merge patch, in which `null` removes.
pub(in crate::kinds) fn mutated(base: &Value, mutation: &Value) -> Value {
    let mut object = base.clone();
    json_patch::merge(&mut object, mutation);
    object
}

/// The messages of a list of errors.
pub(in crate::kinds) fn messages(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// 2026-11-24T09:00:00Z, the present of the tests.
pub(in crate::kinds) const NOW: i64 = 1_795_510_800;
