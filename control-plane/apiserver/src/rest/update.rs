//! `update`, and what it shares with `patch` and the subresources: read the newest, change it, commit if nobody else wrote.

use serde_json::Value;
use skep_api::decode::Media;
use skep_api::field::{Error as FieldError, ErrorList, Path};
use skep_api::kinds::certificates::signing_request;
use skep_api::kinds::core::{namespace, pod};
use skep_api::kinds::{Subresource, WriteContext};
use skep_api::{Reason, Status};
use skep_store::{Batch, Condition, Error as StoreError, Op, Write};

use super::owners::{self, Ownership};
use super::{Answer, Call, Engine, Payload, deletion, metadata, rfc3339, served, store_error};
use crate::admission::Operation;
use crate::admission::dynamic::Notes;
use crate::object::Shared;

/// How often a write that names no resourceVersion is tried again after another writer came first. Each attempt loses only to a writer that won.
const ATTEMPTS: usize = 100;

/// What a caller wants of an existing object: the new object (as decoded, before defaults) and warnings.
pub(crate) type Changed = Result<(Value, Vec<String>), Status>;

impl Engine {
    /// `update` (PUT) of an object or of one of its subresources that have its shape.
    ///
    /// # Errors
    /// 400 for what can't be read, 404, 409 when the resourceVersion is old, 422 when it is invalid.
    pub async fn update(&self, call: &Call<'_>, body: &[u8], media: Media) -> Result<Answer, Status> {
        let (mut object, warnings) = self.decode(call, body, media)?;
        metadata::match_namespace(call, &mut object)?;
        metadata::match_name(call, &mut object)?;
        let updated = self.change(call, true, |_| Ok((object.clone(), warnings.clone()))).await;
        match updated {
            Err(status)
                if status.reason == Reason::NotFound && call.kind.create_on_update && call.subresource.is_none() =>
            {
                metadata::of(&mut object).remove("resourceVersion");
                self.create_object(call, object, warnings).await
            }
            answer => answer,
        }
    }

    /// Replaces an object by one of the system's own.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub(crate) async fn replace(&self, call: &Call<'_>, object: Value) -> Result<(), Status> {
        self.change(call, false, |_| Ok((object.clone(), Vec::new()))).await.map(|_| ())
    }

    /// Changes an object: `change` makes the new one from the newest, and is asked again when another writer came first.
    /// With `strict`, an object without resourceVersion is refused for kinds that demand one.
    ///
    /// # Errors
    /// Those of `change`, 404, 409, 422, and those of admission.
    pub(crate) async fn change(
        &self,
        call: &Call<'_>,
        strict: bool,
        change: impl Fn(&Value) -> Changed,
    ) -> Result<Answer, Status> {
        self.change_owned(call, strict, Ownership::Changed, change).await
    }

    /// [`Self::change`] of an object whose fields are owned so after it.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub(super) async fn change_owned(
        &self,
        call: &Call<'_>,
        strict: bool,
        ownership: Ownership,
        change: impl Fn(&Value) -> Changed,
    ) -> Result<Answer, Status> {
        let mut current = self.newest(call).await?;
        for _ in 0..ATTEMPTS {
            let old = served(call.kind, &current);
            let (object, warnings) = change(&old)?;
            let given = metadata::text(&object, "resourceVersion").to_owned();
            if strict && given.is_empty() && !call.kind.unconditional_update {
                let errors = vec![FieldError::invalid(
                    &Path::new("metadata").child("resourceVersion"),
                    0,
                    "must be specified for an update",
                )];
                let mut status = Status::invalid(&call.kind.group_kind(), call.name, &errors);
                status.message = status.message.replace("Invalid value: 0:", "Invalid value: 0x0:");
                return Err(status);
            }
            if !given.is_empty() && given != current.revision.to_string() {
                return Err(Status::modified(&call.kind.group_resource(), call.name));
            }
            match self.write(call, &current, &old, object, warnings, ownership).await? {
                Written::Done(answer) => return Ok(answer),
                Written::Lost(now_at) => {
                    self.cache.wait_for(now_at).await?;
                    current = self.newest(call).await?;
                    if !given.is_empty() {
                        return Err(Status::modified(&call.kind.group_resource(), call.name));
                    }
                }
            }
        }
        Err(Status::modified(&call.kind.group_resource(), call.name))
    }

    async fn write(
        &self,
        call: &Call<'_>,
        current: &Shared,
        old: &Value,
        object: Value,
        mut warnings: Vec<String>,
        ownership: Ownership,
    ) -> Result<Written, Status> {
        let kind = call.kind;
        let mut notes = Notes::default();
        let object = self.prepare_update(call, old, object, ownership, &mut notes).await?;
        warnings.extend(notes.warnings);
        warnings.extend(kind.strategy.warnings(&object, Some(old)));
        if deletion::is_finished(kind, &object) {
            return self.remove(call, current, object, warnings).await;
        }
        if call.query.dry_run {
            return Ok(Written::Done(Answer::with(200, Payload::Value(object), warnings)));
        }
        for _ in 0..super::allocate::ATTEMPTS {
            let mut allocated = object.clone();
            let reservations = self.allocate(call, &mut allocated, Some(old)).await?;
            let value = self.encode(kind, &allocated).await?;
            // A write that changes nothing is no write: no revision, no event (upstream's GuaranteedUpdate).
            if current.same_content(&value) {
                return Ok(Written::Done(Answer::with(200, Payload::Object(current.clone()), warnings)));
            }
            let ttl = kind.ttl_seconds.map(std::time::Duration::from_secs);
            let mut batch = Batch::from(Write {
                key: current.key.clone(),
                op: Op::Put { value: value.clone(), ttl },
                condition: Condition::At(current.revision),
            });
            batch.writes.extend(reservations);
            batch.writes.extend(self.charge(call, &allocated, Some(old)).await?);
            match self.store().commit(batch).await {
                Ok(revision) => {
                    let payload = Self::stored(current.key.clone(), value, revision)?;
                    return Ok(Written::Done(Answer::with(200, payload, warnings)));
                }
                Err(StoreError::Conflict { key, current: now_at }) if key == current.key => {
                    return match now_at {
                        Some(revision) => Ok(Written::Lost(revision)),
                        None => Err(Status::not_found(&kind.group_resource(), call.name)),
                    };
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(store_error(&error)),
            }
        }
        Err(Status::unavailable("addresses are being taken faster than they can be given; try again", 1))
    }

    /// Defaults, admission and the kind's rules on a changed object.
    async fn prepare_update(
        &self,
        call: &Call<'_>,
        old: &Value,
        mut object: Value,
        ownership: Ownership,
        notes: &mut Notes,
    ) -> Result<Value, Status> {
        let kind = call.kind;
        kind.strategy.default(&mut object);
        let now = rfc3339(call.now);
        let context = WriteContext { now: &now, user: &call.user.name };
        if !metadata::text(&object, "uid").is_empty() && metadata::text(&object, "uid") != metadata::text(old, "uid") {
            let why = format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                metadata::text(&object, "uid"),
                metadata::text(old, "uid")
            );
            return Err(Status::conflict(&kind.group_resource(), call.name, &why));
        }
        let given = metadata::of(&mut object).remove("managedFields");
        let mut object = narrow(call, object, old, &now);
        owners::put(&mut object, given);
        self.record_owners(call, old, &mut object, ownership);
        self.admit(call, Operation::Update, Some(old), &mut object, notes).await?;
        metadata::carry_system_fields(&mut object, old);
        let mut errors;
        if matches!(call.subresource, Some(Subresource::Status)) {
            kind.strategy.prepare_status_update(&mut object, old, &context);
            errors = skep_api::meta::validate_update(&object, old);
            errors.extend(kind.strategy.validate_status_update(&object, old));
            if errors.is_empty() {
                errors = kind.strategy.validate_status_time(&object, old, &context);
            }
        } else if let Some(subresource) = call.subresource {
            // These write what no update may, by rules of their own; a binding's are checked where it is made, and it asks
            // for nothing new.
            if subresource != Subresource::Binding {
                metadata::bump_generation(kind, &mut object, old);
            }
            errors = skep_api::meta::validate_update(&object, old);
            errors.extend(match subresource {
                Subresource::EphemeralContainers => pod::validate_ephemeral_containers_update(&object, old),
                Subresource::Resize => pod::validate_resize(&object, old),
                Subresource::Approval => signing_request::validate_approval(&object, old),
                Subresource::Finalize => namespace::validate_finalize(&object),
                _ => ErrorList::new(),
            });
        } else {
            if kind.has(Subresource::Status) {
                keep(&mut object, old, "status");
            }
            kind.strategy.prepare_update(&mut object, old, &context);
            metadata::bump_generation(kind, &mut object, old);
            errors = skep_api::meta::validate_update(&object, old);
            errors.extend(kind.strategy.validate_update(&object, old));
        }
        if !errors.is_empty() {
            return Err(Status::invalid(&kind.group_kind(), call.name, &errors));
        }
        self.judge(call, Operation::Update, Some(old), &object, notes).await?;
        owners::keep_times(&mut object, old);
        Ok(object)
    }

    /// The last finalizer of an object that is being deleted has gone: so does the object.
    async fn remove(
        &self,
        call: &Call<'_>,
        current: &Shared,
        object: Value,
        warnings: Vec<String>,
    ) -> Result<Written, Status> {
        if call.query.dry_run {
            return Ok(Written::Done(Answer::with(200, Payload::Value(object), warnings)));
        }
        match self.commit_removal(call, current, &object).await? {
            Ok(_) => Ok(Written::Done(Answer::with(200, Payload::Value(object), warnings))),
            Err(Some(revision)) => Ok(Written::Lost(revision)),
            Err(None) => Err(Status::not_found(&call.kind.group_resource(), call.name)),
        }
    }
}

/// What became of a write.
pub(super) enum Written {
    Done(Answer),
    /// Somebody else wrote first, at this revision.
    Lost(skep_store::Revision),
}

/// Leaves of a written object only what its subresource may change; everything else is the old object's.
fn narrow(call: &Call<'_>, object: Value, old: &Value, now: &str) -> Value {
    match call.subresource {
        Some(Subresource::Status) => {
            let mut narrowed = old.clone();
            keep(&mut narrowed, &object, "status");
            if call.kind.custom.is_some() {
                keep_version(&mut narrowed, &object);
                return narrowed;
            }
            // Upstream's status strategies let writers touch labels, annotations and finalizers, but not who owns the object.
            for field in ["labels", "annotations", "finalizers", "resourceVersion"] {
                match object["metadata"].get(field) {
                    Some(value) => narrowed["metadata"][field] = value.clone(),
                    None => {
                        metadata::of(&mut narrowed).remove(field);
                    }
                }
            }
            narrowed
        }
        Some(Subresource::Finalize) => {
            let mut narrowed = old.clone();
            narrowed["spec"]["finalizers"] = object["spec"]["finalizers"].clone();
            narrowed
        }
        Some(Subresource::EphemeralContainers) => pod::with_ephemeral_containers_of(&object, old),
        Some(Subresource::Resize) => pod::with_resources_of(&object, old),
        Some(Subresource::Approval) => signing_request::with_conditions_of(&object, old, now),
        _ => object,
    }
}

/// Takes the resourceVersion that a writer gave.
fn keep_version(object: &mut Value, from: &Value) {
    match from["metadata"].get("resourceVersion") {
        Some(version) => object["metadata"]["resourceVersion"] = version.clone(),
        None => {
            metadata::of(object).remove("resourceVersion");
        }
    }
}

/// Takes a top-level field from another object.
fn keep(object: &mut Value, from: &Value, field: &str) {
    let Some(map) = object.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}
