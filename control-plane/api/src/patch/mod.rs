//! Patches: JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch. Pure: a tree and a patch in, a tree out.

mod strategic;

use serde_json::Value;

use crate::status::{Reason, Status};

pub use strategic::strategic;

/// More operations than this are refused, as upstream does (`maxJSONPatchOperations`).
const OPERATIONS: usize = 10_000;

/// Applies a JSON patch.
///
/// # Errors
/// 400 for a patch that can't be read, 413 for one that is too long, 422 for one that does not apply.
pub fn json(object: &Value, patch: &Value) -> Result<Value, Status> {
    if let Some(operations) = patch.as_array().filter(|operations| operations.len() > OPERATIONS) {
        return Err(Status::too_large(format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let patch: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
    let mut patched = object.clone();
    json_patch::patch(&mut patched, &patch).map_err(|error| {
        Status::new(
            422,
            Reason::Invalid,
            format!("the server rejected our request due to an error in our request: {error}"),
        )
    })?;
    Ok(patched)
}

/// Applies a merge patch.
///
/// # Errors
/// 400 when the patch is no object.
pub fn merge(object: &Value, patch: &Value) -> Result<Value, Status> {
    if !patch.is_object() {
        return Err(Status::bad_request("error decoding patch: a merge patch is an object"));
    }
    let mut patched = object.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}

#[cfg(test)]
mod tests;
