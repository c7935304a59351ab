//! The TLS listener. Connections are bounded in number, in time to shake hands and in header size; every one is a task of this server's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::handler::{Connection, Handler};
use crate::auth::authn::ClientCertificates;
use crate::pki::ServerTls;

/// Connections at a time; a further one waits to be accepted.
const CONNECTIONS: usize = 20_000;
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(30);
/// How long requests in flight may take to end at shut-down.
const DRAIN: Duration = Duration::from_secs(10);

/// A listener that is bound.
pub struct Bound {
    listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Bound {
    /// Binds an address.
    ///
    /// # Errors
    /// When the system says no.
    pub async fn new(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }
}

/// Serves until cancelled, then lets requests in flight end.
pub async fn serve(bound: Bound, tls: ServerTls, handler: Arc<Handler>, shutdown: CancellationToken) {
    let tasks = TaskTracker::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let tls = Arc::new(tls);
    info!(address = %bound.address, "serving");
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = bound.listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (tls, handler, shutdown) = (tls.clone(), handler.clone(), shutdown.clone());
                tasks.spawn(async move {
                    connection(stream, peer, tls, handler, shutdown).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, or the client left already: neither ends the server.
                warn!(%error, "can't accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        info!(connections = tasks.len(), "ended with connections open");
    }
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Arc<ServerTls>,
    handler: Arc<Handler>,
    shutdown: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let acceptor = TlsAcceptor::from(tls.config.clone());
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => return debug!(%peer, "TLS handshake took too long"),
    };
    let certificates = match stream.get_ref().1.peer_certificates() {
        None | Some([]) => ClientCertificates::None,
        Some(chain) if tls.trusts(chain) => {
            ClientCertificates::Trusted(chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
        }
        Some(_) => ClientCertificates::Untrusted,
    };
    let connection = Arc::new(Connection { peer: Some(peer), certificates });
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (handler, connection) = (handler.clone(), connection.clone());
        async move { Ok::<_, std::convert::Infallible>(handler.handle(&connection, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(250)
        .max_header_list_size(64 * 1024)
        .adaptive_window(true)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN, serving).await {
                Ok(outcome) => outcome,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = outcome {
        debug!(%peer, %error, "connection ended");
    }
}
