//! `delete` and `deletecollection`.

use serde_json::{Value, json};
use skep_api::{Reason, Status};
use skep_store::{Batch, Condition, Error as StoreError, Op, Revision, Write};

use super::deletion::{self, Deletion};
use super::list::ListPage;
use super::{Answer, Call, DeleteOptions, Engine, Payload, metadata, selection, served, store_error};
use crate::admission::dynamic::Notes;
use crate::object::{Object, Shared};

const ATTEMPTS: usize = 100;

impl Engine {
    /// `delete` of one object.
    ///
    /// # Errors
    /// 404, 409 when a precondition does not hold, 403 from admission.
    pub async fn delete(&self, call: &Call<'_>, options: &DeleteOptions) -> Result<Answer, Status> {
        let mut current = self.newest(call).await?;
        for _ in 0..ATTEMPTS {
            let old = served(call.kind, &current);
            let mut notes = Notes::default();
            self.judge_delete(call, &old, options, &mut notes).await?;
            let answer = |payload| Answer::with(200, payload, notes.warnings.clone());
            let outcome = match deletion::plan(call.kind, &old, options, call.now)? {
                Deletion::Pending => return Ok(answer(Payload::Object(current))),
                Deletion::Mark(marked) if options.is_dry_run() => return Ok(answer(Payload::Value(marked))),
                Deletion::Remove if options.is_dry_run() => return Ok(answer(self.removed(call, old))),
                Deletion::Mark(marked) => self.commit_mark(call, &current, &marked).await?,
                Deletion::Remove => self
                    .commit_removal(call, &current, &old)
                    .await?
                    .map(|revision| self.removed(call, served(call.kind, &current.at(revision)))),
            };
            match outcome {
                Ok(payload) => return Ok(answer(payload)),
                Err(Some(now_at)) => {
                    self.cache.wait_for(now_at).await?;
                    current = self.newest(call).await?;
                }
                Err(None) => return Err(Status::not_found(&call.kind.group_resource(), call.name)),
            }
        }
        Err(Status::modified(&call.kind.group_resource(), call.name))
    }

    /// `deletecollection`: every selected object, each on its own; answers with what there was.
    ///
    /// # Errors
    /// The first failure that is not "already gone".
    pub async fn delete_collection(&self, call: &Call<'_>, options: &DeleteOptions) -> Result<Answer, Status> {
        let filter = selection::filter(call.kind, call.namespace, "", call.query)?;
        let revision = self.cache.wait_for_latest(&call.kind.storage_resource()).await?;
        let Some(resource) = self.cache.resource(&call.kind.storage_resource()) else {
            return Err(Status::no_such_path());
        };
        let objects = resource.list(&filter, None, call.query.limit).objects;
        for object in &objects {
            let (namespace, name) = object.namespaced_name();
            match self.delete(&Call { namespace, name, ..*call }, options).await {
                Ok(_) => {}
                Err(status) if status.reason == Reason::NotFound => {}
                Err(status) => return Err(status),
            }
        }
        let page = ListPage { objects, revision, continue_token: String::new(), remaining: None };
        Ok(Answer::ok(Payload::List(page)))
    }

    async fn commit_mark(
        &self,
        call: &Call<'_>,
        current: &Shared,
        marked: &Value,
    ) -> Result<Result<Payload, Option<Revision>>, Status> {
        let value = self.encode(call.kind, marked).await?;
        let write = Write {
            key: current.key.clone(),
            op: Op::Put { value: value.clone(), ttl: None },
            condition: Condition::At(current.revision),
        };
        match self.store().commit(Batch::from(write)).await {
            Ok(revision) => Self::stored(current.key.clone(), value, revision).map(Ok),
            Err(StoreError::Conflict { current, .. }) => Ok(Err(current)),
            Err(error) => Err(store_error(&error)),
        }
    }

    /// Removes an object with what it holds; the inner error is where the object is now, when somebody else wrote first.
    pub(super) async fn commit_removal(
        &self,
        call: &Call<'_>,
        current: &Object,
        old: &Value,
    ) -> Result<Result<Revision, Option<Revision>>, Status> {
        let mut batch =
            Batch::from(Write { key: current.key.clone(), op: Op::Delete, condition: Condition::At(current.revision) });
        batch.writes.extend(super::allocate::releases(call.kind, old));
        match self.store().commit(batch).await {
            Ok(revision) => Ok(Ok(revision)),
            Err(StoreError::Conflict { current, .. }) => Ok(Err(current)),
            Err(error) => Err(store_error(&error)),
        }
    }

    /// What the client hears of a removal: the object for the kinds where upstream returns it, a Status for the others.
    fn removed(&self, call: &Call<'_>, object: Value) -> Payload {
        const RETURNED: &[&str] = &[
            "pods",
            "services",
            "serviceaccounts",
            "namespaces",
            "persistentvolumes",
            "persistentvolumeclaims",
            "podtemplates",
            "replicationcontrollers",
            "resourcequotas",
        ];
        if call.kind.group_version.group.is_empty() && RETURNED.contains(&&*call.kind.plural) {
            return Payload::Value(object);
        }
        let mut details = json!({
            "name": metadata::text(&object, "name"), "kind": call.kind.plural, "uid": metadata::text(&object, "uid"),
        });
        if !call.kind.group_version.group.is_empty() {
            details["group"] = call.kind.group_version.group.to_string().into();
        }
        Payload::Value(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
        }))
    }
}
