//! `create`.

use serde_json::Value;
use skep_api::decode::Media;
use skep_api::kinds::WriteContext;
use skep_api::{Reason, Status};
use skep_store::{Batch, Condition, Error as StoreError, Op, Revision, Write};

use super::owners::Ownership;
use super::{Answer, Call, Engine, Payload, metadata, rfc3339, served, store_error};
use crate::admission::Operation;
use crate::admission::dynamic::Notes;
use crate::keys;
use crate::object::Object;

/// How many generated names are tried before a client hears of a clash; upstream's `maxNameGenerationCreateAttempts`.
const NAME_ATTEMPTS: usize = 8;

impl Engine {
    /// `create` of an object from the bytes of a request.
    ///
    /// # Errors
    /// 400 for what can't be read, 403 from admission, 409 when it exists, 422 when it is invalid.
    pub async fn create(&self, call: &Call<'_>, body: &[u8], media: Media) -> Result<Answer, Status> {
        let (object, warnings) = self.decode(call, body, media)?;
        self.create_object(call, object, warnings).await
    }

    /// `create` of a decoded object.
    ///
    /// # Errors
    /// As [`Self::create`], but for what can't be read.
    pub async fn create_object(&self, call: &Call<'_>, object: Value, warnings: Vec<String>) -> Result<Answer, Status> {
        self.create_owned(call, object, warnings, Ownership::Changed).await
    }

    /// [`Self::create_object`] of an object whose fields are owned so.
    ///
    /// # Errors
    /// As [`Self::create`], but for what can't be read.
    pub(super) async fn create_owned(
        &self,
        call: &Call<'_>,
        object: Value,
        warnings: Vec<String>,
        ownership: Ownership,
    ) -> Result<Answer, Status> {
        if !metadata::text(&object, "resourceVersion").is_empty() {
            return Err(Status::new(
                500,
                Reason::Unknown,
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.try_create(call, object.clone(), warnings.clone(), ownership).await {
                Err(status)
                    if status.reason == Reason::AlreadyExists
                        && metadata::text(&object, "name").is_empty()
                        && attempts < NAME_ATTEMPTS => {}
                answer => return answer,
            }
        }
    }

    async fn try_create(
        &self,
        call: &Call<'_>,
        mut object: Value,
        mut warnings: Vec<String>,
        ownership: Ownership,
    ) -> Result<Answer, Status> {
        let kind = call.kind;
        metadata::match_namespace(call, &mut object)?;
        kind.strategy.default(&mut object);
        self.record_owners(call, &Value::Null, &mut object, ownership);
        // Admission reads the cache: what was written before this request (its namespace, its service account) must be there.
        self.cache.wait_for_latest(&call.kind.storage_resource()).await?;
        let mut notes = Notes::default();
        self.admit(call, Operation::Create, None, &mut object, &mut notes).await?;
        self.prepare_new(call, &mut object)?;
        let now = rfc3339(call.now);
        kind.strategy.prepare_create(&mut object, &WriteContext { now: &now, user: &call.user.name });
        let name = metadata::text(&object, "name").to_owned();
        let mut errors = skep_api::meta::validate_create(&object, kind.scope, &|name, prefix| {
            kind.strategy.validate_name(name, prefix)
        });
        errors.extend(kind.strategy.validate_create(&object));
        if !errors.is_empty() {
            return Err(Status::invalid(&kind.group_kind(), &name, &errors));
        }
        let named = Call { name: &name, ..*call };
        self.judge(&named, Operation::Create, None, &object, &mut notes).await?;
        warnings.extend(notes.warnings);
        warnings.extend(kind.strategy.warnings(&object, None));
        let key = keys::object(&kind.storage_resource(), call.namespace, &name);
        if call.query.dry_run {
            if self.cache.get(&kind.storage_resource(), call.namespace, &name).is_some() {
                return Err(Status::already_exists(&kind.group_resource(), &name));
            }
            return Ok(Answer::with(201, Payload::Value(object), warnings));
        }
        let ttl = kind.ttl_seconds.map(std::time::Duration::from_secs);
        // Allocated addresses can be taken by someone else in between: the batch says so, and the next attempt takes others.
        for _ in 0..super::allocate::ATTEMPTS {
            let mut allocated = object.clone();
            let reservations = self.allocate(call, &mut allocated, None).await?;
            let value = self.encode(kind, &allocated).await?;
            let mut batch = Batch::from(Write {
                key: key.clone(),
                op: Op::Put { value: value.clone(), ttl },
                condition: Condition::Absent,
            });
            batch.writes.extend(reservations);
            batch.writes.extend(self.charge(&named, &allocated, None).await?);
            match self.store().commit(batch).await {
                Ok(revision) => {
                    let stored = Object::from_parts(key, value, revision).map_err(Status::internal)?;
                    return Ok(Answer::with(201, Payload::Object(stored.into()), warnings));
                }
                Err(StoreError::Conflict { key: at, .. }) if at == key => {
                    return Err(self.exists(call, &name));
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(store_error(&error)),
            }
        }
        Err(Status::unavailable("addresses are being taken faster than they can be given; try again", 1))
    }

    /// A clash, or as upstream says it for a namespace that is on its way out.
    fn exists(&self, call: &Call<'_>, name: &str) -> Status {
        let resource = call.kind.group_resource();
        let there = self.cache.get(&call.kind.storage_resource(), call.namespace, name);
        let deleting = there.is_some_and(|there| !there.to_value()["metadata"]["deletionTimestamp"].is_null());
        if deleting {
            let mut status = Status::already_exists(&resource, name);
            status.message = format!("object is being deleted: {}", status.message);
            return status;
        }
        Status::already_exists(&resource, name)
    }

    /// Names and stamps a new object.
    fn prepare_new(&self, call: &Call<'_>, object: &mut Value) -> Result<(), Status> {
        metadata::match_namespace(call, object)?;
        metadata::fill_system_fields(call.kind, object, call);
        let prefix = metadata::text(object, "generateName").to_owned();
        if metadata::text(object, "name").is_empty() && !prefix.is_empty() {
            let random = uuid::Uuid::new_v4().as_u64_pair().0;
            metadata::of(object).insert("name".to_owned(), skep_api::meta::generate_name(&prefix, random).into());
        }
        Ok(())
    }

    /// Reads the body of a create or update.
    pub(crate) fn decode(&self, call: &Call<'_>, body: &[u8], media: Media) -> Result<(Value, Vec<String>), Status> {
        let decoded = skep_api::decode::decode(body, media, call.kind, call.query.validation())?;
        Ok((decoded.object, decoded.warnings))
    }

    /// The answer to a write that stored `value`.
    pub(crate) fn stored(key: bytes::Bytes, value: bytes::Bytes, revision: Revision) -> Result<Payload, Status> {
        Ok(Payload::Object(Object::from_parts(key, value, revision).map_err(Status::internal)?.into()))
    }

    /// The tree of a payload that is one object.
    pub(crate) fn tree(kind: &skep_api::kinds::Kind, payload: &Payload) -> Value {
        match payload {
            Payload::Object(object) => served(kind, object),
            Payload::Value(value) => value.clone(),
            Payload::List(_) | Payload::Watch(_) => Value::Null,
        }
    }
}
