//! Server-side apply: a PATCH that names the fields its manager wants, creates what is not there, and conflicts with other managers instead of overwriting them
//! (upstream's `applyPatcher`).

use serde_json::{Map, Value};
use skep_api::apply::{self, Managers, Writer};
use skep_api::decode::{FieldValidation, Media, decode, decode_untyped};
use skep_api::kinds::Subresource;
use skep_api::{GroupVersion, Reason, Status};

use super::owners::{self, KindVersions, Ownership};
use super::{Answer, Call, Engine, metadata, rfc3339};
use crate::auth::authz::{self, Decision};
use crate::auth::{Attributes, Target};

/// How often an object may come and go between looking and writing.
const ATTEMPTS: usize = 8;

impl Engine {
    /// Applies an object.
    ///
    /// # Errors
    /// 400 for what can't be read or is another kind, 403 for one who may not create, 409 for conflicts, 500 (as upstream) for what does not fit the schema.
    pub(super) async fn apply(&self, call: &Call<'_>, body: &[u8]) -> Result<Answer, Status> {
        let (applied, duplicates) = read(body)?;
        check(call, &applied)?;
        let mut warnings = Vec::new();
        if let Some(why) = duplicates {
            let why = format!("error converting YAML to JSON: {why}");
            match call.query.validation() {
                FieldValidation::Strict => {
                    return Err(Status::bad_request(format!("error strict decoding patch: {why}")));
                }
                FieldValidation::Warn => warnings.push(why),
                FieldValidation::Ignore => {}
            }
        }
        for _ in 0..ATTEMPTS {
            let changed = self
                .change_owned(call, false, Ownership::Given, |old| {
                    let object = self.merged(call, old, &applied)?;
                    Ok((object, warnings.clone()))
                })
                .await;
            match changed {
                Err(status) if status.reason == Reason::NotFound && call.subresource.is_none() => {}
                answer => return answer,
            }
            match self.apply_new(call, &applied, warnings.clone()).await {
                Err(status) if status.reason == Reason::AlreadyExists => {}
                answer => return answer,
            }
        }
        Err(Status::modified(&call.kind.group_resource(), call.name))
    }

    async fn apply_new(&self, call: &Call<'_>, applied: &Value, warnings: Vec<String>) -> Result<Answer, Status> {
        let resource = call.kind.group_resource();
        let uid = metadata::text(applied, "uid");
        if !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(Status::conflict(&resource, call.name, &why));
        }
        let attributes = Attributes {
            user: std::sync::Arc::new(call.user.clone()),
            verb: "create".into(),
            target: Target::Resource {
                group: call.kind.group_version.group.to_string(),
                version: call.kind.group_version.version.to_string(),
                resource: call.kind.plural.to_string(),
                subresource: String::new(),
                namespace: call.namespace.to_owned(),
                name: call.name.to_owned(),
            },
        };
        if let Decision::Deny { reason } | Decision::NoOpinion { reason } = self.authorizer.authorize(&attributes) {
            return Err(authz::forbidden(&attributes, &reason));
        }
        let mut object = self.merged(call, &Value::Null, applied)?;
        let metadata = metadata::of(&mut object);
        metadata.remove("resourceVersion");
        // A generated name would be another than that of the URL.
        metadata.remove("generateName");
        self.create_owned(call, object, warnings, Ownership::Given).await
    }

    /// The live object with the applied one merged in, and its owners.
    fn merged(&self, call: &Call<'_>, old: &Value, applied: &Value) -> Result<Value, Status> {
        let kind = call.kind;
        let live = if old.is_null() { Value::Null } else { owners::without(old) };
        let managers = match old["metadata"]["managedFields"].as_array() {
            Some(list) => Managers::parse(list)
                .map_err(|why| Status::new(500, Reason::Unknown, format!("failed to decode managed fields: {why}")))?,
            None => Managers::default(),
        };
        let reset = apply::reset_fields(kind, call.subresource);
        let manager = call.query.manager();
        let (api_version, now) = (kind.group_version.to_string(), rfc3339(call.now));
        let writer = Writer {
            manager: &manager,
            subresource: call.subresource.map_or("", Subresource::as_str),
            api_version: &api_version,
            now: Some(&now),
            reset: &reset,
        };
        let table = self.registry.table();
        let versions = KindVersions::new(kind, &table);
        let force = call.query.force.unwrap_or(false);
        let outcome = apply::apply(managers, &live, applied, &versions, &writer, force)?;
        let mut object = match outcome.object {
            None => live,
            Some(object) => {
                let bytes = serde_json::to_vec(&object).map_err(Status::internal)?;
                // The schema has accepted the applied object already, and the live one before.
                decode(&bytes, Media::Json, kind, FieldValidation::Ignore)?.object
            }
        };
        metadata::match_namespace(call, &mut object)?;
        // A new object that names itself nowhere is refused by the rules for names.
        if !old.is_null() || !metadata::text(&object, "name").is_empty() {
            metadata::match_name(call, &mut object)?;
        }
        if old["metadata"]["resourceVersion"] == object["metadata"]["resourceVersion"]
            && applied["metadata"]["resourceVersion"].as_str().is_none_or(str::is_empty)
        {
            metadata::of(&mut object).remove("resourceVersion");
        }
        owners::put(&mut object, Some(outcome.managers.into_value()));
        Ok(object)
    }
}

/// Reads an applied object, and what is wrong with it strictly.
///
/// # Errors
/// 400 for what is no object.
pub(super) fn read(body: &[u8]) -> Result<(Value, Option<String>), Status> {
    let is_json = body.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte == b'{');
    let step = if is_json { "decoding" } else { "encoding" };
    let (applied, duplicates) =
        decode_untyped(body).map_err(|why| Status::bad_request(format!("error {step} patch: {why}")))?;
    match applied {
        Value::Object(_) => Ok((applied, duplicates)),
        Value::Null => Ok((Value::Object(Map::new()), duplicates)),
        other => {
            let given = match other {
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Bool(_) => "bool",
                _ => "number",
            };
            Err(Status::bad_request(format!(
                "error decoding patch: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {given} into Go value of type map[string]interface {{}}"
            )))
        }
    }
}

/// Refuses another kind, and owners that were applied.
fn check(call: &Call<'_>, applied: &Value) -> Result<(), Status> {
    let kind = call.kind;
    check_type(applied, &kind.group_version, &kind.kind)?;
    if !applied["metadata"]["managedFields"].is_null() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// Refuses another type.
///
/// # Errors
/// 400 naming the type that was given.
pub(super) fn check_type(applied: &Value, version: &GroupVersion, kind: &str) -> Result<(), Status> {
    let given = applied["kind"].as_str().unwrap_or_default();
    let api_version = applied["apiVersion"].as_str().unwrap_or_default();
    let given_version = GroupVersion::parse(api_version);
    if given == kind && given_version.as_ref() == Some(version) {
        return Ok(());
    }
    let (group, version) =
        given_version.map_or((String::new(), String::new()), |v| (v.group.to_string(), v.version.to_string()));
    Err(Status::bad_request(format!("invalid object type: {group}/{version}, Kind={given}")))
}
