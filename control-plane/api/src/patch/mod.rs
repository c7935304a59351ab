//! Patches: JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch. Pure: a tree and a patch in, a tree out.
//!
//! What comes out may hold `null` and unknown fields; the caller decodes it as it does a body, which drops or names them.

mod go;
mod json;
mod strategic;

use serde_json::Value;

use crate::status::{Cause, Details, Reason, Status};

pub(crate) use go::kind_of as json_kind;
pub(crate) use go::{type_of as go_type_of, value as go_value};
pub use json::json;
pub use strategic::strategic;

/// Applies a merge patch.
///
/// # Errors
/// 400 when the patch is no object.
pub fn merge(object: &Value, patch: &Value) -> Result<Value, Status> {
    if !patch.is_object() {
        let given = go::kind_of(patch);
        return Err(Status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {given} into Go value of type map[string]interface {{}}"
        )));
    }
    let mut patched = object.clone();
    json_patch::merge(&mut patched, patch);
    Ok(patched)
}

/// 422 for a patch that can be read but not applied. Upstream's answer does not say why; here a cause does, where clients print it.
fn refused(why: String) -> Status {
    let mut status =
        Status::new(422, Reason::Invalid, "the server rejected our request due to an error in our request");
    let cause = Cause { reason: "UnexpectedServerResponse".to_owned(), message: why, field: "patch".to_owned() };
    status.details = Some(Box::new(Details { causes: vec![cause], ..Details::default() }));
    status
}

#[cfg(test)]
mod tests;
