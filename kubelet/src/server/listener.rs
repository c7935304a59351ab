//! The TLS listener. Connections are bounded in number, in time to shake hands and in header size; every one is a task of this server's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::auth::{self, Auth};
use super::backend::Backend;
use super::handler::Handler;

/// Connections at a time; a further one waits to be accepted.
const CONNECTIONS: usize = 4096;
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(30);
/// How long a connection is silent before TCP asks whether the peer is still there, how often it asks then, and how often in vain.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVES: u32 = 9;
/// How long requests in flight may take to end at shut-down. Streams are not waited for: they are ended at once.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves the kubelet's API until cancelled.
///
/// `tls` decides by its verifier which client certificates are genuine ([`tls::server_config`](super::tls::server_config) makes one); `auth` decides who
/// may do what. Returns when every connection and stream has ended.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    backend: Arc<dyn Backend>,
    auth: Auth,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let streams = TaskTracker::new();
    let handler = Arc::new(Handler::new(backend, auth, streams.clone(), stop.clone()));
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let acceptor = TlsAcceptor::from(tls);
    if let Ok(address) = listener.local_addr() {
        info!(%address, "serving the kubelet's API");
    }
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (acceptor, handler, stop) = (acceptor.clone(), handler.clone(), stop.clone());
                connections.spawn(async move {
                    connection(stream, peer, acceptor, handler, stop).await;
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
    connections.close();
    connections.wait().await;
    streams.close();
    streams.wait().await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    handler: Arc<Handler>,
    stop: CancellationToken,
) {
    if let Err(error) = prepare(&stream) {
        debug!(%peer, %error, "a connection keeps the system's socket options");
    }
    let accepted = tokio::select! {
        () = stop.cancelled() => return,
        accepted = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)) => accepted,
    };
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => return debug!(%peer, "TLS handshake took too long"),
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let user = Arc::new(certificate.and_then(auth::user_of_certificate));
    let service = service_fn(move |request: http::Request<Incoming>| {
        let (handler, user) = (handler.clone(), user.clone());
        async move { Ok::<_, std::convert::Infallible>(handler.handle((*user).clone(), request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(15));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        () = stop.cancelled() => {
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

/// Small messages leave at once, and a peer that vanished without a word is noticed within minutes, as with Go's listeners: a stream that only waits would
/// else keep its command for hours.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVES)?;
    Ok(())
}
