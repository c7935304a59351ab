//! Passes a request on to a server of the cluster and its answer back, as upstream's `UpgradeAwareHandler` does: other methods and bodies as they are, upgraded
//! connections as tunnels, paths in redirects and pages rewritten.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateDecoder, DeflateEncoder, GzDecoder, GzEncoder};
use futures::StreamExt;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::ServerName;
use skep_api::Status;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::destination::{Destination, unavailable};
use super::rewrite::{Html, Prefix};
use crate::http::body::{Body, BoxError, full, streamed};

/// How long connecting may take, TLS included.
const CONNECT: Duration = Duration::from_secs(30);
/// What Go leaves of a path as it is (`URL.EscapedPath`).
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');
/// Headers of one connection only (RFC 9110 7.6.1, and what Go's ReverseProxy adds).
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// How a server is talked to.
pub(super) enum Transport {
    /// As it is.
    Plain,
    /// TLS.
    Tls(Arc<rustls::ClientConfig>),
}

/// The path behind `/proxy`, as it is passed on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// Path and query.
    To(String),
    /// The client has to ask for a path with a slash, so that relative links work.
    Redirect(String),
}

/// What is asked of the server. `rest` is what follows `/proxy/`, decoded.
pub(super) fn passed(method: &Method, uri: &Uri, rest: &str) -> Passed {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let slash = uri.path().ends_with('/');
    if rest.is_empty() && !slash && (method == Method::GET || method == Method::HEAD) {
        return Passed::Redirect(format!("{}/{query}", uri.path()));
    }
    let mut path = String::new();
    let mut segments: Vec<&str> = Vec::new();
    for segment in rest.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    for segment in &segments {
        path.push('/');
        path.extend(utf8_percent_encode(segment, PATH));
    }
    if path.is_empty() || slash {
        path.push('/');
    }
    Passed::To(format!("{path}{query}"))
}

/// The path of the proxy itself: what the client's path has before the server's.
pub(super) fn prefix_of(path: &str, namespaced: bool) -> String {
    // /api/v1/namespaces/a/pods/b/proxy, or /api/v1/nodes/a/proxy.
    let slashes = if namespaced { 7 } else { 5 };
    let start = path.len() - path.trim_start_matches('/').len();
    let start = start.saturating_sub(1);
    let end = path[start..].match_indices('/').nth(slashes).map_or(path.len(), |(at, _)| start + at);
    path[start..end].to_owned()
}

/// One request on its way.
pub(super) struct Hop<'a> {
    /// Where to.
    pub destination: &'a Destination,
    /// How.
    pub transport: Transport,
    /// Path and query there.
    pub path: &'a str,
    /// The path of the proxy.
    pub prefix: String,
    /// Who asked.
    pub peer: Option<IpAddr>,
}

/// Passes a request on.
///
/// # Errors
/// 503 in upstream's words when the server can't be reached.
pub(super) async fn exchange<B>(
    hop: Hop<'_>,
    mut parts: Parts,
    body: B,
    tunnels: &TaskTracker,
) -> Result<Response<Body>, Status>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let host = parts
        .headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .map(str::to_owned)
        .or_else(|| parts.uri.authority().map(ToString::to_string))
        .unwrap_or_default();
    let client_upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let upgrade = is_upgrade(&parts.headers).then_some(client_upgrade).flatten();
    let (method, original) = (parts.method.clone(), parts.uri.path().to_owned());
    let request = outgoing(&hop, parts, &host, &original, upgrade.is_some(), body)?;
    let mut response = send(&hop, request, tunnels).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client) = upgrade else {
            return Err(Status::bad_request("the connection can't be upgraded"));
        };
        let server = hyper::upgrade::on(&mut response);
        tunnels.spawn(tunnel(client, server));
        return Ok(response.map(|_| full(Bytes::new())));
    }
    if upgrade.is_some() && response.status().as_u16() < 400 {
        let code = response.status().as_u16();
        return Err(Status::internal(format!("invalid upgrade response: status code {code}")));
    }
    let Hop { destination, prefix, .. } = hop;
    Ok(incoming(response, Prefix { path: prefix, server: destination.authority.clone(), host }, &method))
}

/// Joins the two sides of an upgraded connection until one ends.
pub(super) async fn tunnel(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade) {
    match tokio::try_join!(client, server) {
        Ok((client, server)) => {
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
                debug!(%error, "a tunnelled stream ended");
            }
        }
        Err(error) => debug!(%error, "a connection was not upgraded"),
    }
}

async fn send<B>(
    hop: &Hop<'_>,
    request: Request<B>,
    tunnels: &TaskTracker,
) -> Result<Response<hyper::body::Incoming>, Status>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let address = SocketAddr::new(hop.destination.address, hop.destination.port);
    let unreachable =
        |why: &dyn std::fmt::Display| unavailable(format!("error trying to reach service: dial tcp {address}: {why}"));
    let connect = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &hop.transport {
            Transport::Plain => Box::new(stream),
            Transport::Tls(config) => {
                let name = ServerName::IpAddress(hop.destination.address.into());
                Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?)
            }
        };
        Ok::<_, std::io::Error>(stream)
    };
    let stream = tokio::time::timeout(CONNECT, connect)
        .await
        .map_err(|_| unreachable(&"i/o timeout"))?
        .map_err(|error| unreachable(&go_error(&error)))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
    tunnels.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%error, "a proxied connection ended");
        }
    });
    sender.send_request(request).await.map_err(|error| unavailable(format!("error trying to reach service: {error}")))
}

/// A connection, whatever is under it.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Common errors in Go's words, which clients look for.
fn go_error(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    connection.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// The request as the server gets it: without the client's credentials and what belongs to its connection, with what says who asked and for what.
fn outgoing<B>(
    hop: &Hop<'_>,
    parts: Parts,
    host: &str,
    original: &str,
    upgrade: bool,
    body: B,
) -> Result<Request<B>, Status> {
    let uri: Uri =
        hop.path.parse().map_err(|error| Status::bad_request(format!("invalid path {:?}: {error}", hop.path)))?;
    let mut headers = parts.headers;
    let protocol = headers.get(header::UPGRADE).cloned();
    strip(&mut headers);
    let secret = |name: &HeaderName| {
        *name == header::AUTHORIZATION || ["impersonate-", "x-remote-"].iter().any(|p| name.as_str().starts_with(p))
    };
    let secrets: Vec<HeaderName> = headers.keys().filter(|name| secret(name)).cloned().collect();
    for name in secrets {
        headers.remove(name);
    }
    if let Some(protocol) = protocol.filter(|_| upgrade) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set("host", if host.is_empty() { &hop.destination.authority } else { host });
    set("x-forwarded-uri", original);
    if let Some(peer) = hop.peer {
        let before = headers.get_all("x-forwarded-for").into_iter().filter_map(|value| value.to_str().ok());
        let all: Vec<String> = before.map(str::to_owned).chain([peer.to_string()]).collect();
        if let Ok(value) = HeaderValue::from_str(&all.join(", ")) {
            headers.insert("x-forwarded-for", value);
        }
    }
    let mut request = Request::builder().method(parts.method).uri(uri).body(body).map_err(Status::internal)?;
    *request.headers_mut() = headers;
    Ok(request)
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// The answer as the client gets it.
fn incoming(response: Response<hyper::body::Incoming>, prefix: Prefix, method: &Method) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    let plain = |body: hyper::body::Incoming| body.map_err(|error| -> BoxError { error.into() }).boxed_unsync();
    let location = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if let Some(location) = location.filter(|location| !location.is_empty()) {
        if let Some(Ok(value)) = prefix.url(&location).map(|url| HeaderValue::from_str(&url)) {
            parts.headers.insert(header::LOCATION, value);
        }
        return Response::from_parts(parts, plain(body));
    }
    let type_ = crate::http::essence(parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()));
    let coding = parts.headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if type_ != "text/html" || *method == Method::HEAD {
        return Response::from_parts(parts, plain(body));
    }
    let Some(page) = Page::new(coding, Html::new(prefix)) else { return Response::from_parts(parts, plain(body)) };
    parts.headers.remove(header::CONTENT_LENGTH);
    let pieces = body.into_data_stream().map(Some).chain(futures::stream::iter([None]));
    let rewritten = pieces.scan(Some(page), |page, piece| {
        // A page that breaks off, or is not of its coding, ends where it is.
        let out = match (page.as_mut(), piece) {
            (None, _) => None,
            (Some(current), Some(Ok(piece))) => current.push(&piece).ok(),
            (Some(_), Some(Err(_))) => None,
            (Some(_), None) => page.take().and_then(|page| page.finish().ok()),
        };
        std::future::ready(out.map(Bytes::from))
    });
    Response::from_parts(parts, streamed(rewritten.filter(|piece| std::future::ready(!piece.is_empty()))))
}

/// A page in its content coding, unpacked, rewritten and packed again as it comes.
struct Page {
    coding: Coding,
    html: Html,
}

enum Coding {
    Identity,
    Gzip(Box<GzDecoder<Vec<u8>>>, Box<GzEncoder<Vec<u8>>>),
    Deflate(Box<DeflateDecoder<Vec<u8>>>, Box<DeflateEncoder<Vec<u8>>>),
}

impl Page {
    /// `None` for a coding that is not understood: such a page is passed on as it is.
    fn new(coding: &str, html: Html) -> Option<Self> {
        let coding = match coding {
            "" | "identity" => Coding::Identity,
            "gzip" => Coding::Gzip(
                Box::new(GzDecoder::new(Vec::new())),
                Box::new(GzEncoder::new(Vec::new(), Compression::default())),
            ),
            "deflate" => Coding::Deflate(
                Box::new(DeflateDecoder::new(Vec::new())),
                Box::new(DeflateEncoder::new(Vec::new(), Compression::default())),
            ),
            _ => return None,
        };
        Some(Self { coding, html })
    }

    fn push(&mut self, piece: &[u8]) -> std::io::Result<Vec<u8>> {
        match &mut self.coding {
            Coding::Identity => Ok(self.html.push(piece)),
            Coding::Gzip(decoder, encoder) => {
                decoder.write_all(piece)?;
                encoder.write_all(&self.html.push(&std::mem::take(decoder.get_mut())))?;
                Ok(std::mem::take(encoder.get_mut()))
            }
            Coding::Deflate(decoder, encoder) => {
                decoder.write_all(piece)?;
                encoder.write_all(&self.html.push(&std::mem::take(decoder.get_mut())))?;
                Ok(std::mem::take(encoder.get_mut()))
            }
        }
    }

    fn finish(mut self) -> std::io::Result<Vec<u8>> {
        match self.coding {
            Coding::Identity => Ok(self.html.finish()),
            Coding::Gzip(decoder, mut encoder) => {
                encoder.write_all(&self.html.push(&decoder.finish()?))?;
                encoder.write_all(&self.html.finish())?;
                encoder.finish()
            }
            Coding::Deflate(decoder, mut encoder) => {
                encoder.write_all(&self.html.push(&decoder.finish()?))?;
                encoder.write_all(&self.html.finish())?;
                encoder.finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_passed_on_with_its_slash_and_query() {
        let to = |uri: &str, rest: &str| passed(&Method::GET, &uri.parse().unwrap(), rest);
        let base = "/api/v1/namespaces/a/pods/b/proxy";
        assert_eq!(to(&format!("{base}?x=1"), ""), Passed::Redirect(format!("{base}/?x=1")));
        assert_eq!(passed(&Method::POST, &base.parse().unwrap(), ""), Passed::To("/".to_owned()));
        assert_eq!(to(&format!("{base}/"), ""), Passed::To("/".to_owned()));
        assert_eq!(to(&format!("{base}/c/d/?x=1"), "c/d"), Passed::To("/c/d/?x=1".to_owned()));
        assert_eq!(to(&format!("{base}/c%20d"), "c d"), Passed::To("/c%20d".to_owned()));
        assert_eq!(to(&format!("{base}/c/../../d"), "c/../../d"), Passed::To("/d".to_owned()));
    }

    #[test]
    fn the_proxys_own_path_ends_at_its_subresource() {
        let pods = "/api/v1/namespaces/proxy/pods/proxy/proxy";
        assert_eq!(prefix_of(&format!("{pods}/x/proxy/y"), true), pods);
        assert_eq!(prefix_of(pods, true), pods);
        assert_eq!(prefix_of("/api/v1/nodes/n:10250/proxy/logs/", false), "/api/v1/nodes/n:10250/proxy");
    }

    #[test]
    fn neither_credentials_nor_the_connections_own_headers_are_passed_on() {
        let destination = Destination { address: [10, 0, 0, 1].into(), port: 80, authority: "10.0.0.1:80".to_owned() };
        let hop = Hop {
            destination: &destination,
            transport: Transport::Plain,
            path: "/x",
            prefix: "/p".to_owned(),
            peer: Some([10, 0, 0, 9].into()),
        };
        let request = Request::builder()
            .uri("/p/x")
            .header("authorization", "Bearer x")
            .header("impersonate-user", "a")
            .header("x-remote-group", "g")
            .header("connection", "close, x-mine")
            .header("x-mine", "1")
            .header("keep-alive", "5")
            .header("accept", "text/html")
            .header("x-forwarded-for", "1.2.3.4");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let sent = outgoing(&hop, parts, "api:6443", "/p/x", false, ()).unwrap();
        let mut names: Vec<&str> = sent.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "host", "x-forwarded-for", "x-forwarded-uri"]);
        assert_eq!(sent.headers()["host"], "api:6443");
        assert_eq!(sent.headers()["x-forwarded-for"], "1.2.3.4, 10.0.0.9");
    }

    #[test]
    fn a_packed_page_is_rewritten_too() {
        let prefix = || Prefix { path: "/p".to_owned(), server: "s".to_owned(), host: "h".to_owned() };
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(b"<a href=\"/x\">").unwrap();
        let mut page = Page::new("gzip", Html::new(prefix())).unwrap();
        let mut out = page.push(&packed.finish().unwrap()).unwrap();
        out.extend(page.finish().unwrap());
        let mut read = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&out[..]), &mut read).unwrap();
        assert_eq!(read, b"<a href=\"/p/x\">");
        assert!(Page::new("br", Html::new(prefix())).is_none());
    }
}
