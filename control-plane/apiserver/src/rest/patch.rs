//! `patch`: JSON patch, merge patch and strategic merge patch, on the newest object, tried again when another writer came first. Server-side apply, which is a
//! PATCH as well, is in `apply`.

use serde_json::Value;
use skep_api::decode::Media;
use skep_api::{Status, patch};

use super::{Answer, Call, Engine, owners};

/// How a patch that is about owners names them.
const FIELDS: &[u8] = b"managedFields";

/// The forms of a patch, by its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own, by the schema's merge keys.
    Strategic,
    /// Server-side apply: the fields that its manager wants.
    Apply,
}

/// What a PATCH may be sent as.
const ACCEPTED: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

impl PatchType {
    /// The form that a `Content-Type` names.
    ///
    /// # Errors
    /// 415 listing what is understood.
    pub fn of(content_type: &str) -> Result<Self, Status> {
        match content_type {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => Err(Status::unsupported_media_type(ACCEPTED)),
        }
    }
}

impl Engine {
    /// `patch` of an object or of one of its subresources that have its shape.
    ///
    /// # Errors
    /// 400 for a patch that can't be read, 404, 409, 415, 422.
    pub async fn patch(&self, call: &Call<'_>, body: &[u8], type_: PatchType) -> Result<Answer, Status> {
        if type_ == PatchType::Apply {
            return self.apply(call, body).await;
        }
        if type_ == PatchType::Strategic && call.kind.custom.is_some() {
            let accepted: Vec<&str> = ACCEPTED.iter().filter(|type_| !type_.contains("strategic")).copied().collect();
            return Err(Status::unsupported_media_type(&accepted));
        }
        let patch: Value = serde_json::from_slice(body)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        // Most patches say nothing of owners, and then those need not be copied, printed and read.
        let of_owners = body.windows(FIELDS.len()).any(|window| window == FIELDS);
        self.change(call, false, |old| {
            let patched = if of_owners {
                Self::patched(call, old, &patch, type_)?
            } else {
                Self::patched(call, &owners::without(old), &patch, type_)?
            };
            let bytes = serde_json::to_vec(&patched).map_err(Status::internal)?;
            let (object, warnings) = self.decode(call, &bytes, Media::Json)?;
            let mut object = object;
            super::metadata::match_namespace(call, &mut object)?;
            super::metadata::match_name(call, &mut object)?;
            // A patch that leaves the version alone is about whatever is there.
            if object["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"] && !names_version(&patch) {
                super::metadata::of(&mut object).remove("resourceVersion");
            }
            Ok((object, warnings))
        })
        .await
    }

    /// A patch applied to a tree.
    pub(super) fn patched(call: &Call<'_>, old: &Value, patch: &Value, type_: PatchType) -> Result<Value, Status> {
        match type_ {
            PatchType::Json => patch::json(old, patch),
            PatchType::Merge => patch::merge(old, patch),
            PatchType::Strategic => patch::strategic(old, patch, call.kind),
            // It is merged by its owners, not by itself.
            PatchType::Apply => Ok(old.clone()),
        }
    }
}

/// Whether a patch says which version it is about.
fn names_version(patch: &Value) -> bool {
    match patch {
        Value::Array(operations) => operations.iter().any(|operation| operation["path"] == "/metadata/resourceVersion"),
        _ => patch["metadata"]["resourceVersion"].is_string(),
    }
}
