//! Servers that are probed.

use std::convert::Infallible;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue, Response};
use bytes::Bytes;
use futures::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A server on loopback; it ends when this is dropped.
pub(super) struct Server {
    pub(super) port: u16,
    _task: JoinSet<()>,
}

impl Server {
    /// Answers each request head with a whole response.
    pub(super) async fn http(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let (listener, port) = listen().await;
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                exchange(stream, &answer).await;
            }
        });
        Self { port, _task: task }
    }

    /// The same behind TLS with a certificate that nobody signed.
    pub(super) async fn https(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let signed = rcgen::generate_simple_self_signed(["example.test".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .expect("a configuration");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (listener, port) = listen().await;
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    exchange(stream, &answer).await;
                }
            }
        });
        Self { port, _task: task }
    }

    /// A health service that answers each call with this status, or, without one, that it knows no such method.
    pub(super) async fn grpc(status: Option<u8>) -> Self {
        let (listener, port) = listen().await;
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = service_fn(move |_| async move { Ok::<_, Infallible>(health(status)) });
                let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
            }
        });
        Self { port, _task: task }
    }

    /// Answers the first byte in plain HTTP, whatever it is.
    pub(super) async fn hasty() -> Self {
        let (listener, port) = listen().await;
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read_u8().await;
                let _ = stream.write_all(response("400 Bad Request", "", "").as_bytes()).await;
                // The rest of what the client sends is read, so that the answer is not lost with a reset.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            }
        });
        Self { port, _task: task }
    }

    /// Takes connections and never answers.
    pub(super) async fn silent() -> Self {
        let (listener, port) = listen().await;
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut held = vec![];
            while let Ok((stream, _)) = listener.accept().await {
                held.push(stream);
            }
        });
        Self { port, _task: task }
    }
}

/// A port that nobody listens on.
pub(super) async fn closed_port() -> u16 {
    listen().await.1
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &(impl Fn(&str) -> String + Send + Sync)) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let _ = stream.write_all(answer(&String::from_utf8_lossy(&head)).as_bytes()).await;
    let _ = stream.shutdown().await;
}

/// A response with this status line and body.
pub(super) fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

type Frames = stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;

fn health(status: Option<u8>) -> Response<StreamBody<Frames>> {
    let mut trailers = HeaderMap::new();
    let code = if status.is_some() { "0" } else { "12" };
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    let message = status.map(|status| Frame::data(Bytes::from(vec![0, 0, 0, 0, 2, 8, status])));
    let frames: Vec<_> = message.into_iter().chain([Frame::trailers(trailers)]).map(Ok).collect();
    let mut response = Response::new(StreamBody::new(stream::iter(frames)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}
