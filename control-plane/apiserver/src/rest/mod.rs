//! The generic REST engine: every verb of every kind, written once, over declarations ([`skep_api::kinds::Kind`]).
//!
//! Data flow of a write: bytes → tree ([`skep_api::decode`]) → defaults → admission → the kind's rules → stored form (`object`) → one
//! commit. Of a read: watch cache → shared bytes. Decisions are pure functions ([`deletion`], the kinds' strategies); this module does the I/O.

mod admit;
mod allocate;
mod apply;
mod create;
mod delete;
pub mod deletion;
mod disruption;
mod list;
mod metadata;
mod options;
mod owners;
mod patch;
mod pods;
pub mod query;
mod quota;
mod scale;
mod selection;
mod update;
mod watch;

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use skep_api::kinds::{Kind, Subresource};
use skep_api::{GroupResource, Status};
use skep_store::{Error as StoreError, Revision, Store};

pub use allocate::Ranges;
pub use list::ListPage;
pub(crate) use metadata::match_namespace;
pub use options::DeleteOptions;
pub use patch::PatchType;
pub use query::Query;
pub use watch::{WatchBody, WatchItem};

use crate::admission::policies::Policies;
use crate::admission::webhooks::Webhooks;
use crate::admission::{self, Chain};
use crate::auth::User;
use crate::auth::authz::Authorizer;
use crate::cache::Cache;
use crate::object::Shared;
use crate::registry::Registry;
use crate::webhook_client::WebhookClient;

/// Everything that answers requests for resources.
pub struct Engine {
    /// The watch cache; the store is behind it.
    pub cache: Arc<Cache>,
    /// The kinds that are served.
    pub registry: Arc<Registry>,
    /// Admission, in upstream's order.
    pub admission: Chain,
    /// The webhooks that have a say after it.
    pub(crate) hooks: Arc<Webhooks>,
    /// The policies that have a say before them.
    pub(crate) policies: Arc<Policies>,
    /// Who may do what: for admission and impersonation as well as for requests.
    pub authorizer: Arc<dyn Authorizer>,
    /// Where Service addresses and node ports come from.
    pub ranges: Ranges,
    /// Calls the webhooks that convert custom objects.
    pub webhooks: Arc<WebhookClient>,
}

/// One request for a resource, authenticated and authorized.
pub struct Call<'a> {
    /// The kind in the version asked for.
    pub kind: &'a Arc<Kind>,
    /// Who asks.
    pub user: &'a User,
    /// Empty for cluster-scoped kinds, and for all namespaces.
    pub namespace: &'a str,
    /// Empty for collections.
    pub name: &'a str,
    /// The subresource, if one is asked for.
    pub subresource: Option<Subresource>,
    /// Query parameters.
    pub query: &'a Query,
    /// When the request came.
    pub now: Timestamp,
}

/// What comes out of a verb.
pub enum Payload {
    /// An object as it is stored.
    Object(Shared),
    /// An object that is not stored so: a subresource, a review, a dry run, a Status.
    Value(Value),
    /// A page of objects.
    List(ListPage),
    /// A stream of changes.
    Watch(Box<WatchBody>),
}

/// The answer to a request, before content negotiation.
pub struct Answer {
    /// HTTP status code.
    pub code: u16,
    /// The body.
    pub payload: Payload,
    /// `Warning` headers.
    pub warnings: Vec<String>,
}

impl Answer {
    pub(crate) fn ok(payload: Payload) -> Self {
        Self { code: 200, payload, warnings: Vec::new() }
    }

    pub(crate) fn with(code: u16, payload: Payload, warnings: Vec<String>) -> Self {
        Self { code, payload, warnings }
    }
}

impl Engine {
    /// The store.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        self.cache.store()
    }

    /// `get`: the newest state, or with resourceVersion=0 (or N) whatever the cache has at or after it.
    ///
    /// # Errors
    /// 404, or 504 when the revision does not come.
    pub async fn get(&self, call: &Call<'_>) -> Result<Answer, Status> {
        self.fresh_enough(call).await?;
        Ok(Answer::ok(Payload::Object(self.cached(call)?)))
    }

    async fn fresh_enough(&self, call: &Call<'_>) -> Result<(), Status> {
        match call.query.resource_version {
            None => self.cache.wait_for_latest(&call.kind.storage_resource()).await.map(|_| ()),
            Some(Revision(0)) => Ok(()),
            Some(revision) => self.cache.wait_for(revision).await,
        }
    }

    /// The object of a call as the cache has it now.
    pub(crate) fn cached(&self, call: &Call<'_>) -> Result<Shared, Status> {
        self.cache
            .get(&call.kind.storage_resource(), call.namespace, call.name)
            .ok_or_else(|| Status::not_found(&call.kind.group_resource(), call.name))
    }

    /// The newest object of a call, for a write.
    pub(crate) async fn newest(&self, call: &Call<'_>) -> Result<Shared, Status> {
        self.cache.wait_for_latest(&call.kind.storage_resource()).await?;
        let mut found = self.in_version(call.kind, vec![self.cached(call)?]).await?;
        found.pop().ok_or_else(|| Status::not_found(&call.kind.group_resource(), call.name))
    }

    /// The declaration that a kind's objects are stored by.
    pub(crate) fn stored_kind(&self, kind: &Arc<Kind>) -> Arc<Kind> {
        let own = kind.custom.as_ref().is_none_or(|custom| custom.stored_as == kind.group_version);
        if kind.conversion.is_none() && own {
            return kind.clone();
        }
        self.registry.table().stored(&kind.storage_resource()).cloned().unwrap_or_else(|| kind.clone())
    }

    /// The stored bytes of an object of a served version.
    ///
    /// # Errors
    /// 500 when a webhook converts it and fails.
    pub(crate) async fn encode(&self, kind: &Arc<Kind>, object: &Value) -> Result<bytes::Bytes, Status> {
        if kind.custom.as_ref().is_some_and(|custom| custom.stored_as != kind.group_version) {
            let stored = self.stored_kind(kind);
            let mut object = object.clone();
            if let Some(custom) = &stored.custom {
                let mut made = self.convert(kind, custom, vec![object], &stored.group_version).await?;
                object = made.pop().unwrap_or_default();
                custom.conform(&mut object, &stored.group_version);
            }
            return Ok(crate::object::encode(&stored, &object));
        }
        Ok(match &kind.conversion {
            None => crate::object::encode(kind, object),
            Some(conversion) => {
                let mut stored = object.clone();
                (conversion.to_storage)(&mut stored);
                stored["apiVersion"] = conversion.stored_type.0.into();
                stored["kind"] = conversion.stored_type.1.into();
                crate::object::encode(&self.stored_kind(kind), &stored)
            }
        })
    }

    /// An object as an in-process reader wants it.
    #[must_use]
    pub fn find(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Value> {
        self.cache.get(resource, namespace, name).map(|object| object.to_value())
    }

    pub(crate) fn admission_request<'a>(
        call: &'a Call<'_>,
        operation: admission::Operation,
        old: Option<&'a Value>,
    ) -> admission::Request<'a> {
        admission::Request {
            kind: call.kind,
            subresource: call.subresource,
            operation,
            namespace: call.namespace,
            name: call.name,
            user: call.user,
            old,
            dry_run: call.query.dry_run,
        }
    }
}

/// A stored object as a tree in the version that is asked for.
#[must_use]
pub fn served(kind: &Kind, object: &crate::object::Object) -> Value {
    let mut value = object.to_value();
    if let Some(conversion) = &kind.conversion {
        (conversion.from_storage)(&mut value);
        value["apiVersion"] = kind.group_version.to_string().into();
        value["kind"] = kind.kind.to_string().into();
    }
    if let Some(custom) = &kind.custom
        && !is_as_stored(kind, object)
    {
        custom.conform(&mut value, &kind.group_version);
    }
    value
}

/// Whether an object is stored as a version shows it. Custom objects are when neither the version nor its schema has changed since they were written.
#[must_use]
pub fn is_as_stored(kind: &Kind, object: &crate::object::Object) -> bool {
    kind.conversion.is_none()
        && kind.custom.as_ref().is_none_or(|custom| object.index.fields.last() == Some(&custom.fingerprint))
}

/// What admission reads of other objects: the watch cache.
impl admission::Objects for Cache {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        Self::get(self, resource, namespace, name).map(|object| Arc::new(object.to_value()))
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let Some(cache) = self.resource(resource) else { return Vec::new() };
        let prefix = crate::keys::range(resource, namespace.unwrap_or_default()).start;
        let snapshot = cache.list(&crate::cache::Filter { prefix, matches: None }, None, 0);
        snapshot.objects.iter().map(|object| Arc::new(object.to_value())).collect()
    }
}

/// A store error as a client sees it.
#[must_use]
pub fn store_error(error: &StoreError) -> Status {
    match error {
        StoreError::Compacted { oldest } => Status::expired(format!(
            "The resourceVersion for the provided watch is too old. The oldest available is {oldest}."
        )),
        StoreError::Future { requested, current } => Status::version_too_large(requested.0, current.0),
        StoreError::TooLarge { .. } => Status::too_large(format!("etcdserver: request is too large ({error})")),
        StoreError::Full(_) | StoreError::Closed | StoreError::Lagging => Status::unavailable(error.to_string(), 1),
        StoreError::Unavailable { retry_after, .. } => {
            let seconds = u32::try_from(retry_after.as_secs()).unwrap_or(u32::MAX).max(1);
            Status::unavailable(error.to_string(), seconds)
        }
        StoreError::Conflict { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Locked(_)
        | StoreError::Format { .. }
        | StoreError::Io { .. } => Status::internal(error),
    }
}

/// RFC 3339 in seconds, as metav1.Time is written.
#[must_use]
pub fn rfc3339(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
