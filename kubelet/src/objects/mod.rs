//! What pods refer to in the API: ConfigMaps, Secrets, Services, trust bundles and service account tokens.
//!
//! Invariant: each cache is bounded, and a reader says how old an answer may be. A pod that starts reads what the API had
//! after it was asked to start ([`Freshness::Now`]): whoever changes an object and then makes a pod sees the change in it.
//! Many such readers share a request, since one that began after they asked serves them all.
//! ConfigMaps and Secrets are read one by one, as the node authorizer demands; Services are watched.

mod services;
mod tokens;
mod trust_bundles;

pub use tokens::{Token, TokenRequest};

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ClusterTrustBundleProjection, ConfigMap, Secret};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use skep_client::kube::{self, Api, Client};
use skep_client::slim::SlimService;
use tokio_util::sync::CancellationToken;

use self::services::Services;
use self::tokens::Tokens;
use crate::pod::references::References;

/// More answers are never kept; beyond it, the oldest go first.
const CACHE_LIMIT: usize = 4096;
/// No answer is kept longer.
const CACHE_AGE: Duration = Duration::from_secs(120);

/// An answer is not waited for any longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How old an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// From a request that begins after the call.
    Now,
    /// From a request that began this long ago at most.
    Within(Duration),
}

/// Why an object can't be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectError {
    /// The API server refused, in its words.
    #[error("{0}")]
    Refused(String),
    /// The request failed.
    #[error("failed to get {what}: {cause}")]
    Failed {
        /// As `configmap "x"`.
        what: String,
        /// The client's error.
        cause: String,
    },
    /// The API server didn't answer in time (upstream's words for a cache that isn't filled).
    #[error("failed to sync {kind} cache: timed out waiting for the condition")]
    TimedOut {
        /// As `configmap`.
        kind: &'static str,
    },
    /// No token could be had.
    #[error("failed to fetch token: {0}")]
    Token(String),
    /// The Services were not read yet.
    #[error("services have not yet been read at least once, cannot construct envvars")]
    ServicesUnread,
}

/// The objects that this node's pods refer to.
pub struct Objects {
    client: Client,
    config_maps: Cache<ConfigMap>,
    secrets: Cache<Secret>,
    services: Services,
    tokens: Tokens,
}

impl Objects {
    /// Reads with `client`; Services are there once [`Self::run`] has read them.
    pub fn new(client: Client) -> Self {
        Self {
            config_maps: Cache::new(client.clone(), "configmap", REQUEST_TIMEOUT),
            secrets: Cache::new(client.clone(), "secret", REQUEST_TIMEOUT),
            tokens: Tokens::new(client.clone()),
            services: Services::new(client.clone()),
            client,
        }
    }

    /// Watches Services until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        self.services.run(stop).await;
    }

    /// A ConfigMap; none if there is none.
    ///
    /// # Errors
    /// When the API server doesn't answer or refuses.
    pub async fn config_map(
        &self,
        namespace: &str,
        name: &str,
        freshness: Freshness,
    ) -> Result<Option<Arc<ConfigMap>>, ObjectError> {
        self.config_maps.get(namespace, name, freshness).await
    }

    /// A Secret; none if there is none.
    ///
    /// # Errors
    /// As [`Self::config_map`].
    pub async fn secret(
        &self,
        namespace: &str,
        name: &str,
        freshness: Freshness,
    ) -> Result<Option<Arc<Secret>>, ObjectError> {
        self.secrets.get(namespace, name, freshness).await
    }

    /// Everything of `references` that is there, by name.
    ///
    /// # Errors
    /// As [`Self::config_map`], for the first that fails.
    pub async fn all(
        &self,
        namespace: &str,
        references: &References,
        freshness: Freshness,
    ) -> Result<(ConfigMaps, Secrets), ObjectError> {
        // Boxed, one by one: a closure over borrowed names can't be sent between threads with its futures.
        let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
        for name in &references.config_maps {
            config_maps.push(self.config_maps.get(namespace, name, freshness).boxed());
        }
        for name in &references.secrets {
            secrets.push(self.secrets.get(namespace, name, freshness).boxed());
        }
        let (config_maps, secrets) =
            futures::try_join!(futures::future::try_join_all(config_maps), futures::future::try_join_all(secrets))?;
        Ok((there(&references.config_maps, config_maps), there(&references.secrets, secrets)))
    }

    /// The Services that a pod of `namespace` is told of: its namespace's own, and the API server's.
    ///
    /// # Errors
    /// Until all Services were read once.
    pub fn services(&self, namespace: &str) -> Result<Vec<Arc<SlimService>>, ObjectError> {
        self.services.told_in(namespace).ok_or(ObjectError::ServicesUnread)
    }

    /// The trust anchors that a projection selects, as PEM; each once.
    ///
    /// # Errors
    /// When there is none and the projection isn't optional, or the API server doesn't answer or refuses.
    pub async fn trust_anchors(&self, source: &ClusterTrustBundleProjection) -> Result<Vec<u8>, ObjectError> {
        trust_bundles::anchors(&self.client, source).await
    }

    /// A token of a pod's service account, which is the one given before until it is time for a new one.
    ///
    /// # Errors
    /// When there is no valid one and none can be had.
    pub async fn token(&self, request: &TokenRequest) -> Result<Token, ObjectError> {
        self.tokens.get(request, jiff::Timestamp::now()).await
    }

    /// Forgets the tokens of a pod that is gone.
    pub fn forget_tokens(&self, pod_uid: &str) {
        self.tokens.forget(pod_uid);
    }
}

/// ConfigMaps by name.
pub type ConfigMaps = BTreeMap<String, Arc<ConfigMap>>;
/// Secrets by name.
pub type Secrets = BTreeMap<String, Arc<Secret>>;

fn there<K>(names: &BTreeSet<String>, found: Vec<Option<Arc<K>>>) -> BTreeMap<String, Arc<K>> {
    names.iter().zip(found).filter_map(|(name, object)| Some((name.clone(), object?))).collect()
}

/// By namespace and name.
type Slots<K> = HashMap<(String, String), Arc<Slot<K>>>;

/// Answers of one kind.
struct Cache<K> {
    client: Client,
    kind: &'static str,
    timeout: Duration,
    slots: Mutex<Slots<K>>,
}

struct Slot<K> {
    made: Instant,
    answer: tokio::sync::Mutex<Option<Answer<K>>>,
}

struct Answer<K> {
    begun: Instant,
    object: Option<Arc<K>>,
}

impl<K> Cache<K>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    fn new(client: Client, kind: &'static str, timeout: Duration) -> Self {
        Self { client, kind, timeout, slots: Mutex::default() }
    }

    async fn get(&self, namespace: &str, name: &str, freshness: Freshness) -> Result<Option<Arc<K>>, ObjectError> {
        let now = Instant::now();
        let not_before = match freshness {
            Freshness::Now => now,
            Freshness::Within(age) => now.checked_sub(age).unwrap_or(now),
        };
        let slot = self.slot(namespace, name, now);
        let mut answer = slot.answer.lock().await;
        if let Some(known) = answer.as_ref().filter(|known| known.begun >= not_before) {
            return Ok(known.object.clone());
        }
        let begun = Instant::now();
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        // Others wait for this answer: one that doesn't come must not hold them for ever.
        let object = match tokio::time::timeout(self.timeout, api.get_opt(name)).await {
            Ok(answer) => answer.map_err(|error| self.error(name, error))?.map(Arc::new),
            Err(_) => return Err(ObjectError::TimedOut { kind: self.kind }),
        };
        *answer = Some(Answer { begun, object: object.clone() });
        Ok(object)
    }

    /// The place of an answer. Old ones are let go of here: what is read again soon is asked for again.
    fn slot(&self, namespace: &str, name: &str, now: Instant) -> Arc<Slot<K>> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(&key).filter(|slot| now.saturating_duration_since(slot.made) < CACHE_AGE) {
            return slot.clone();
        }
        slots.retain(|_, slot| now.saturating_duration_since(slot.made) < CACHE_AGE);
        if slots.len() >= CACHE_LIMIT {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.made).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| slots.remove(&oldest));
        }
        let slot = Arc::new(Slot { made: now, answer: tokio::sync::Mutex::default() });
        slots.insert(key, slot.clone());
        slot
    }

    fn error(&self, name: &str, error: kube::Error) -> ObjectError {
        match error {
            kube::Error::Api(status) => ObjectError::Refused(status.message.clone()),
            error => ObjectError::Failed { what: format!("{} {name:?}", self.kind), cause: error.to_string() },
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
