//! Calls to webhooks over HTTPS: those of admission, those that convert custom resources, and whoever else is configured by a URL or a Service.
//!
//! A Service is reached at one of its ready endpoints, which the watch cache knows: no load balancer need run where the API server does. The
//! certificate is checked against the `caBundle` for the name `<service>.<namespace>.svc`. HTTP/1.1 only, as upstream, so that endpoints share the load;
//! idle connections are kept for each address and trust, at most `IDLE` of them.
//!
//! Upstream: k8s.io/apiserver/pkg/util/webhook/client.go and k8s.io/client-go/rest/request.go (what failures are called).

mod config;
mod connection;
mod resolve;
mod response;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use parking_lot::Mutex;
use skep_api::Status;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub use config::{ClientConfig, Target};
pub use resolve::{Address, resolve_service};

use connection::{Connection, Failure};

use crate::cache::Cache;

/// Idle connections that are kept for each address; one more is closed.
const IDLE: usize = 8;
/// Addresses and authorities of which something is kept; when there are more, all that is idle is closed and forgotten.
const KEPT: usize = 256;

/// Calls webhooks, and keeps connections to them.
pub struct WebhookClient {
    cache: Arc<Cache>,
    trust: Mutex<HashMap<Bytes, Arc<rustls::ClientConfig>>>,
    idle: Mutex<HashMap<ConnectionKey, Vec<Connection>>>,
    tasks: TaskTracker,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ConnectionKey {
    address: Address,
    server_name: String,
    ca_bundle: Bytes,
}

/// Why a call has no answer, in the words in which upstream reports it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct CallError {
    /// What happened.
    pub message: String,
    /// What the webhook itself answered, when it answered with a failure.
    pub status: Option<Box<Status>>,
}

impl CallError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: None }
    }
}

impl WebhookClient {
    /// A client that finds Services in a cache.
    #[must_use]
    pub fn new(cache: Arc<Cache>) -> Self {
        Self { cache, trust: Mutex::default(), idle: Mutex::default(), tasks: TaskTracker::new() }
    }

    /// Posts JSON, and returns what is answered. `timeout` bounds all of it, and is told to the webhook as its query parameter `timeout`, in whole seconds.
    ///
    /// # Errors
    /// When it can't be reached in time, or answers with another code than 2xx.
    pub async fn post(&self, config: &ClientConfig, body: Bytes, timeout: Duration) -> Result<Bytes, CallError> {
        let url = config.url(timeout);
        let failed = |why: &str| CallError::new(format!("Post \"{url}\": {why}"));
        let deadline = Instant::now() + timeout;
        let call = self.exchange(config, body, timeout);
        match tokio::time::timeout_at(deadline, call).await {
            Err(_) => Err(failed("context deadline exceeded")),
            Ok(Err(Failure::Call(error))) => Err(error),
            Ok(Err(Failure::Connection(why))) => Err(failed(&why)),
            Ok(Ok(bytes)) => Ok(bytes),
        }
    }

    async fn exchange(&self, config: &ClientConfig, body: Bytes, timeout: Duration) -> Result<Bytes, Failure> {
        let address = config.address(&self.cache)?;
        let key = ConnectionKey {
            address,
            server_name: config.server_name().to_owned(),
            ca_bundle: config.ca_bundle().clone(),
        };
        // A kept connection may have been closed by the other side in between: then the call is made again, on a new one.
        while let Some(mut connection) = self.take_idle(&key) {
            match connection.send(request(config, body.clone(), timeout)?).await {
                Ok(response) => return self.finish(key, connection, response).await,
                Err(Failure::Connection(_)) => {}
                Err(failure) => return Err(failure),
            }
        }
        let tls = self.tls(config.ca_bundle())?;
        let mut connection = Connection::open(&key.address, &key.server_name, tls, &self.tasks).await?;
        let response = connection.send(request(config, body, timeout)?).await?;
        self.finish(key, connection, response).await
    }

    async fn finish(
        &self,
        key: ConnectionKey,
        connection: Connection,
        response: http::Response<hyper::body::Incoming>,
    ) -> Result<Bytes, Failure> {
        let (parts, body) = response.into_parts();
        let bytes = response::read(body).await?;
        self.keep(key, connection);
        response::judge(parts.status, bytes).map_err(Failure::Call)
    }

    fn take_idle(&self, key: &ConnectionKey) -> Option<Connection> {
        let mut idle = self.idle.lock();
        let connections = idle.get_mut(key)?;
        while let Some(connection) = connections.pop() {
            if connection.is_open() {
                return Some(connection);
            }
        }
        idle.remove(key);
        None
    }

    fn keep(&self, key: ConnectionKey, connection: Connection) {
        let mut idle = self.idle.lock();
        if idle.len() >= KEPT {
            idle.clear();
        }
        let connections = idle.entry(key).or_default();
        connections.retain(Connection::is_open);
        if connections.len() < IDLE && connection.is_open() {
            connections.push(connection);
        }
    }

    /// The TLS configuration that trusts a bundle; made once for each.
    fn tls(&self, ca_bundle: &Bytes) -> Result<Arc<rustls::ClientConfig>, Failure> {
        if let Some(tls) = self.trust.lock().get(ca_bundle) {
            return Ok(tls.clone());
        }
        let tls = Arc::new(connection::trusting(ca_bundle).map_err(Failure::Connection)?);
        let mut trust = self.trust.lock();
        if trust.len() >= KEPT {
            trust.clear();
        }
        trust.insert(ca_bundle.clone(), tls.clone());
        Ok(tls)
    }
}

fn request(config: &ClientConfig, body: Bytes, timeout: Duration) -> Result<Request<Full<Bytes>>, Failure> {
    Request::builder()
        .method(Method::POST)
        .uri(config.path_and_query(timeout))
        .header(header::HOST, config.authority())
        .header(header::ACCEPT, "application/json, */*")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(body))
        .map_err(|error| Failure::Connection(error.to_string()))
}
