//! CustomResourceDefinitions at work. An observer of the watch cache keeps the registry's kinds what the definitions say, in every replica and from the first
//! listing on ([`observe`]); a task keeps the definitions' status, and deletes the objects of those that go ([`run`]).
//!
//! Invariant: a kind is in the registry before the cache's revision reaches its definition's, so whoever has seen a definition established can use it.

mod convert;
mod definitions;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use skep_api::kinds::apiextensions::{self, CLEANUP_FINALIZER};
use skep_api::kinds::{Kind, Subresource};
use skep_api::{GroupResource, Reason, Status};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

pub(crate) use definitions::Definitions;

use crate::auth::User;
use crate::cache::{Cache, Observer};
use crate::registry::Registry;
use crate::rest::{Call, DeleteOptions, Engine, Query, rfc3339};

/// How long a definition that could not be dealt with waits for its next turn.
const RETRY: Duration = Duration::from_secs(1);

/// Where definitions are stored.
fn resource() -> GroupResource {
    GroupResource::new("apiextensions.k8s.io", "customresourcedefinitions")
}

/// Begins to keep a registry's kinds. Definitions that change are noted for [`run`].
pub(crate) fn observe(cache: &Arc<Cache>, registry: Arc<Registry>) -> (Arc<Definitions>, Arc<Notify>) {
    let definitions = Arc::new(Definitions::default());
    let changed = Arc::new(Notify::new());
    let (noted, notify, of) = (definitions.clone(), changed.clone(), Arc::downgrade(cache));
    let observer: Observer = Arc::new(move |_, at, object| {
        let Some(cache) = of.upgrade() else { return };
        let definition = object.map(|object| Arc::new(object.to_value()));
        define(&cache, &registry, &at.name, definition.as_deref());
        noted.set(&at.name, definition);
        notify.notify_one();
    });
    cache.observe(resource(), observer);
    (definitions, changed)
}

/// Makes a definition's kinds those that are served.
fn define(cache: &Cache, registry: &Registry, name: &str, definition: Option<&Value>) {
    let Some((plural, group)) = name.split_once('.') else { return };
    let stored = GroupResource { group: group.to_owned().into(), resource: plural.to_owned().into() };
    let kinds = definition.map(skep_api::custom::kinds).unwrap_or_default();
    if !kinds.is_empty() {
        cache.register(stored.clone());
    }
    let seen = |kinds: &mut dyn Iterator<Item = &Kind>| -> Vec<(String, String)> {
        kinds
            .filter_map(|kind| Some((kind.custom.as_ref()?.fingerprint.clone(), kind.custom.as_ref()?.uid.clone())))
            .collect()
    };
    let new = seen(&mut kinds.iter());
    let old = registry.define(name, kinds);
    let old = seen(&mut old.iter().map(|kind| &**kind));
    if new.is_empty() && !old.is_empty() {
        cache.unregister(&stored);
    } else if !old.is_empty()
        && new != old
        && let Some(there) = cache.resource(&stored)
    {
        // Watchers show objects by the schema that they began with: they begin again.
        there.cut_off_watchers();
    }
}

/// Keeps the status of definitions and ends those that are deleted, until cancelled.
pub(crate) async fn run(
    engine: Arc<Engine>,
    definitions: Arc<Definitions>,
    changed: Arc<Notify>,
    shutdown: CancellationToken,
) {
    let work = async {
        loop {
            changed.notified().await;
            while engine.cache.wait_until_loaded().await.is_err() {}
            let mut again = BTreeSet::new();
            loop {
                let due = definitions.take_due();
                if due.is_empty() && again.is_empty() {
                    break;
                }
                for name in due.into_iter().chain(std::mem::take(&mut again)) {
                    match sync(&engine, &definitions, &name).await {
                        Ok(true) => {}
                        Ok(false) => drop(again.insert(name)),
                        Err(status) if matches!(status.reason, Reason::NotFound | Reason::Conflict) => {
                            debug!(definition = %name, %status, "changed meanwhile");
                        }
                        Err(status) => {
                            warn!(definition = %name, %status, "can't keep the definition's status");
                            again.insert(name);
                        }
                    }
                }
                if !again.is_empty() {
                    tokio::select! {
                        () = changed.notified() => {}
                        () = tokio::time::sleep(RETRY) => {}
                    }
                }
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work => {}
    }
}

/// Does what a definition needs now; `false` when there is more to be done later.
async fn sync(engine: &Engine, definitions: &Definitions, name: &str) -> Result<bool, Status> {
    let Some(definition) = definitions.get(name) else { return Ok(true) };
    let finalizers = skep_api::meta::finalizers(&definition);
    if skep_api::meta::is_terminating(&definition) && finalizers.contains(&CLEANUP_FINALIZER) {
        return end(engine, name).await;
    }
    let now = rfc3339(Timestamp::now());
    let others = definitions.all();
    let next = |old: &Value| apiextensions::next_status(old, others.iter().map(|other| &**other), &now);
    if next(&definition).is_some() {
        write(engine, name, Some(Subresource::Status), |old| next(old).unwrap_or_else(|| old.clone())).await?;
    }
    Ok(true)
}

/// Deletes the objects of a definition, and lets it go when there are none.
async fn end(engine: &Engine, name: &str) -> Result<bool, Status> {
    let now = rfc3339(Timestamp::now());
    write(engine, name, Some(Subresource::Status), |old| apiextensions::deletion_in_progress(old, &now)).await?;
    let Some((plural, group)) = name.split_once('.') else { return Ok(true) };
    let stored = GroupResource { group: group.to_owned().into(), resource: plural.to_owned().into() };
    let kind = engine.registry.table().stored(&stored).filter(|kind| kind.custom.is_some()).cloned();
    if let Some(kind) = kind {
        let (user, query) = (User::system("system:apiserver"), Query::default());
        let call = Call {
            kind: &kind,
            user: &user,
            namespace: "",
            name: "",
            subresource: None,
            query: &query,
            now: Timestamp::now(),
        };
        engine.delete_collection(&call, &DeleteOptions::default()).await?;
        engine.cache.wait_for_latest(&stored).await?;
        if engine.cache.resource(&stored).is_some_and(|there| !there.is_empty()) {
            return Ok(false);
        }
    }
    write(engine, name, None, |old| apiextensions::deletion_done(old, &now)).await?;
    Ok(true)
}

async fn write(
    engine: &Engine,
    name: &str,
    subresource: Option<Subresource>,
    change: impl Fn(&Value) -> Value,
) -> Result<(), Status> {
    let table = engine.registry.table();
    let kind = table.get("apiextensions.k8s.io", "v1", "customresourcedefinitions").ok_or_else(Status::no_such_path)?;
    let user = User::system("system:apiserver");
    let query = Query { field_manager: "kube-apiserver".to_owned(), ..Query::default() };
    let call = Call { kind, user: &user, namespace: "", name, subresource, query: &query, now: Timestamp::now() };
    engine.change(&call, false, |old| Ok((change(old), Vec::new()))).await.map(|_| ())
}
