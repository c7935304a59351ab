//! Puts the API server together: cache, engine, handler, listener; and takes it down again.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use skep_api::kinds;
use skep_store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Chain;
use crate::admission::policies::Policies;
use crate::admission::webhooks::Webhooks;
use crate::auth::authn::Authenticator;
use crate::auth::authz::Authorizers;
use crate::auth::token::Tokens;
use crate::bootstrap::{self, Advertised};
use crate::cache::{self, Cache};
use crate::custom;
use crate::http::body::{Body, BoxError};
use crate::http::{Bound, Connection, Handler, Health, serve};
use crate::metrics::Metrics;
use crate::openapi::Documents;
use crate::pki::{Pki, ServerTls};
use crate::proxy::Kubelets;
use crate::registry::Registry;
use crate::rest::{Engine, Ranges};
use crate::webhook_client::WebhookClient;

/// What an API server is started with.
pub struct Config {
    /// The store of the cluster.
    pub store: Arc<dyn Store>,
    /// Keys and certificates.
    pub pki: Arc<Pki>,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The address that the cluster reaches this server by.
    pub advertise: IpAddr,
    /// Service addresses and node ports.
    pub ranges: Ranges,
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not this machine's.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Keys or certificates are unusable.
    #[error("keys and certificates: {0}")]
    Pki(#[from] crate::pki::Error),
    /// The key of service accounts' tokens is none.
    #[error("service account key: {0}")]
    SigningKey(#[from] jsonwebtoken::errors::Error),
}

/// A running API server.
pub struct ApiServer {
    /// Where it listens.
    pub address: SocketAddr,
    handler: Arc<Handler>,
    tls: ServerTls,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    ready: watch::Receiver<bool>,
}

impl ApiServer {
    /// Starts a server; it serves when this returns, and is ready once [`Self::ready`] returns.
    ///
    /// # Errors
    /// When the address or the certificates can't be used.
    pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Self, StartError> {
        let Config { store, pki, listen, advertise, ranges } = config;
        let bound = Bound::new(listen).await.map_err(|source| StartError::Listen { address: listen, source })?;
        let address = bound.address;
        let registry = Arc::new(Registry::new(kinds::builtin()));
        let cache = Cache::new(store);
        for kind in registry.table().kinds() {
            cache.register(kind.storage_resource());
        }
        let authorizers = Authorizers::new();
        for resource in Authorizers::observed() {
            let index = authorizers.clone();
            let observer: cache::Observer = Arc::new(move |resource, at, object| {
                index.apply(resource, &at.namespace, &at.name, object.map(|o| o.to_value()).as_ref())
            });
            cache.observe(resource, observer);
        }
        let webhooks = Arc::new(WebhookClient::new(cache.clone()));
        let hooks = Webhooks::new(webhooks.clone());
        for resource in Webhooks::observed() {
            let index = hooks.clone();
            let observer: cache::Observer = Arc::new(move |resource, at, object| {
                index.apply(resource, &at.name, object.map(|o| o.to_value()).as_ref());
            });
            cache.observe(resource, observer);
        }
        let policies = Policies::new();
        for resource in Policies::observed() {
            let index = policies.clone();
            let observer: cache::Observer = Arc::new(move |resource, at, object| {
                index.apply(resource, &at.name, object.map(|o| o.to_value()).as_ref());
            });
            cache.observe(resource, observer);
        }
        let (definitions, changed) = custom::observe(&cache, registry.clone());
        let tokens = Arc::new(Tokens::new(&pki.service_account_key()?)?);
        let authenticator = Authenticator::new(tokens.clone());
        let engine = Arc::new(Engine {
            cache: cache.clone(),
            registry: registry.clone(),
            admission: Chain::default_plugins(authorizers.clone()),
            hooks,
            policies,
            authorizer: authorizers,
            ranges,
            webhooks,
        });
        let (bootstrapped, ready) = watch::channel(false);
        let handler = Arc::new(Handler {
            engine: engine.clone(),
            authenticator,
            tokens,
            health: health(&cache, &ready),
            kubelets: Kubelets::new(pki.kubelet_client()?).map_err(crate::pki::Error::from)?,
            documents: Documents::new(registry),
            metrics: Arc::new(Metrics::default()),
            public_address: SocketAddr::new(advertise, address.port()).to_string(),
        });
        let tls = pki.server_tls()?;
        let tasks = TaskTracker::new();
        tasks.spawn(cache::run(cache, shutdown.clone()));
        let advertised = Advertised { address: advertise, port: address.port() };
        tasks.spawn(custom::run(engine.clone(), definitions, changed, shutdown.clone()));
        tasks.spawn(bootstrap::run(engine, advertised, bootstrapped, shutdown.clone()));
        tasks.spawn(serve(bound, tls.clone(), handler.clone(), shutdown.clone()));
        tasks.close();
        Ok(Self { address, handler, tls, tasks, shutdown, ready })
    }

    /// Serves on a further address as well, and returns it: its port is the system's choice where 0 was asked for.
    ///
    /// # Errors
    /// When the address can't be used.
    pub async fn listen(&self, address: SocketAddr) -> Result<SocketAddr, StartError> {
        let bound = Bound::new(address).await.map_err(|source| StartError::Listen { address, source })?;
        let address = bound.address;
        self.tasks.spawn(serve(bound, self.tls.clone(), self.handler.clone(), self.shutdown.clone()));
        Ok(address)
    }

    /// Waits until the cache is loaded and the system's own objects are there.
    pub async fn ready(&self) {
        let mut ready = self.ready.clone();
        // The sender lives as long as the bootstrap task; when that is gone, so is the server.
        let _ = ready.wait_for(|ready| *ready).await;
    }

    /// The server as a tower service, for components in the same process.
    #[must_use]
    pub fn service(&self) -> InProcess {
        InProcess { handler: self.handler.clone(), connection: Arc::default() }
    }

    /// Ends the server: not ready first, then no new requests, then none at all.
    pub async fn stop(self) {
        self.handler.health.shut_down();
        self.shutdown.cancel();
        self.tasks.wait().await;
    }
}

fn health(cache: &Arc<Cache>, ready: &watch::Receiver<bool>) -> Arc<Health> {
    let health = Health::default();
    health.live("ping", Arc::new(|| Ok(())));
    let loaded = cache.clone();
    health.ready(
        "informer-sync",
        Arc::new(move || if loaded.is_loaded() { Ok(()) } else { Err("the watch cache is not loaded".to_owned()) }),
    );
    let ready = ready.clone();
    health.ready(
        "poststarthook/rbac/bootstrap-roles",
        Arc::new(move || if *ready.borrow() { Ok(()) } else { Err("not finished".to_owned()) }),
    );
    Arc::new(health)
}

/// The handler as a service that is called, not connected to.
#[derive(Clone)]
pub struct InProcess {
    handler: Arc<Handler>,
    connection: Arc<Connection>,
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { handler, connection } = self.clone();
        Box::pin(async move { Ok(handler.handle(&connection, request).await) })
    }
}
