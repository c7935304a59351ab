//! Requests through [`exchange`](super::reverse::exchange) to a server on loopback.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use skep_api::Status;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::destination::Destination;
use super::reverse::{Hop, Transport, exchange};
use crate::http::body::Body;

const PROXY: &str = "/api/v1/namespaces/a/pods/b/proxy";

/// Says what it was asked, redirects, sends a page, or echoes an upgraded connection.
async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let response = Response::builder();
    let response = match request.uri().path() {
        "/redirect" => response.status(302).header("location", "/elsewhere?x=1").body(Full::default()),
        "/page" => response
            .header("content-type", "text/html; charset=utf-8")
            .header("content-length", "18")
            .body(Full::from("<a href=\"/link\">x<")),
        "/upgrade" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgrade.await.expect("an upgrade"));
                let mut line = [0; 4];
                stream.read_exact(&mut line).await.expect("what the client says");
                stream.write_all(&[b"got ", &line[..]].concat()).await.expect("the client listens");
            });
            response.status(101).header("connection", "upgrade").header("upgrade", "echo").body(Full::default())
        }
        _ => {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let said = format!("{} {} {}", parts.method, parts.uri, String::from_utf8_lossy(&body));
            response.header("x-method", parts.method.as_str()).body(Full::from(said))
        }
    };
    Ok(response.expect("a response"))
}

async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service_fn(answer));
                drop(serving.await);
            });
        }
    });
    address
}

async fn ask(address: SocketAddr, request: Request<Full<Bytes>>, path: &str) -> Result<Response<Body>, Status> {
    let destination = Destination { address: address.ip(), port: address.port(), authority: address.to_string() };
    let hop =
        Hop { destination: &destination, transport: Transport::Plain, path, prefix: PROXY.to_owned(), peer: None };
    let (parts, body) = request.into_parts();
    exchange(hop, parts, body, &TaskTracker::new()).await
}

fn request(method: Method, path: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(format!("{PROXY}{path}")).body(Full::from(body)).expect("a request")
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[tokio::test]
async fn every_method_is_passed_on_with_its_body() {
    let address = server().await;
    for method in ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"] {
        let method: Method = method.parse().expect("a method");
        let response = ask(address, request(method.clone(), "/x", "hello"), "/x?a=b").await.expect("an answer");
        assert_eq!(text(response).await, format!("{method} /x?a=b hello"));
    }
    let response = ask(address, request(Method::HEAD, "/x", ""), "/x").await.expect("an answer");
    assert_eq!(response.headers()["x-method"], "HEAD");
}

#[tokio::test]
async fn redirects_and_pages_lead_back_through_the_proxy() {
    let address = server().await;
    let response = ask(address, request(Method::GET, "/redirect", ""), "/redirect").await.expect("an answer");
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(response.headers()["location"], format!("{PROXY}/elsewhere?x=1"));
    let response = ask(address, request(Method::GET, "/page", ""), "/page").await.expect("an answer");
    assert!(response.headers().get("content-length").is_none());
    assert_eq!(text(response).await, format!("<a href=\"{PROXY}/link\">x<"));
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel() {
    let backend = server().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let front = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let pass = service_fn(move |request: Request<Incoming>| async move {
            let destination =
                Destination { address: backend.ip(), port: backend.port(), authority: backend.to_string() };
            let hop = Hop {
                destination: &destination,
                transport: Transport::Plain,
                path: "/upgrade",
                prefix: PROXY.to_owned(),
                peer: None,
            };
            let (parts, body) = request.into_parts();
            exchange(hop, parts, body, &TaskTracker::new())
                .await
                .map_err(|status| std::io::Error::other(status.message))
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        drop(builder.serve_connection_with_upgrades(TokioIo::new(stream), pass).await);
    });
    let mut client = tokio::net::TcpStream::connect(front).await.expect("a connection");
    let asked = format!("GET {PROXY}/upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nping");
    client.write_all(asked.as_bytes()).await.expect("a server");
    let mut said = Vec::new();
    client.read_to_end(&mut said).await.expect("an answer");
    let said = String::from_utf8(said).expect("text");
    assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
    assert!(said.contains("upgrade: echo"), "{said}");
    assert!(said.ends_with("\r\n\r\ngot ping"), "{said}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_503() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let status = ask(address, request(Method::GET, "/", ""), "/").await.expect_err("no answer");
    assert_eq!(status.code, 503);
    let expected = format!("error trying to reach service: dial tcp {address}: connect: connection refused");
    assert_eq!(status.message, expected);
}
