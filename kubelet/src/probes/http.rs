//! GET requests of probes and lifecycle hooks (upstream: pkg/probe/http).
//!
//! Invariant: a connection serves one request; no proxy, no cookies, no verification of certificates; redirects are
//! followed within the host only.

use std::error::Error as _;
use std::sync::Arc;

use ::http::header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use ::http::uri::PathAndQuery;
use ::http::{Method, Request, Response, Uri, Version};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use super::action::{OUTPUT_LIMIT, cut, port};
use super::dial::{self, host_port};

/// The most requests of one probe.
const REQUESTS: usize = 10;
/// What an HTTPS client says of a server that speaks plain HTTP.
const PLAIN: &str = "http: server gave HTTP response to HTTPS client";

/// A GET request that is ready to be made.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    https: bool,
    host: String,
    port: u16,
    target: PathAndQuery,
    headers: HeaderMap,
    host_header: Option<HeaderValue>,
}

/// An answer; of its body no more than 10 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

impl HttpRequest {
    /// The request of an action on a container. `purpose` stands in the user agent: `probe` or `lifecycle`.
    ///
    /// # Errors
    /// When a named port is not the container's, or a header or the path can't be sent.
    pub fn new(
        action: &HTTPGetAction,
        container: &Container,
        address: Option<&str>,
        purpose: &str,
    ) -> Result<Self, String> {
        let port = port(&action.port, container)?;
        let host = action.host.as_deref().filter(|host| !host.is_empty()).or(address).unwrap_or_default().to_owned();
        let mut headers = HeaderMap::new();
        let mut host_header = None;
        for header in action.http_headers.iter().flatten() {
            let name: HeaderName = header.name.parse().map_err(|_| format!("invalid header name {:?}", header.name))?;
            let value = HeaderValue::from_str(&header.value);
            let value = value.map_err(|_| format!("invalid value of header {:?}", header.name))?;
            if name == HOST {
                host_header.get_or_insert(value);
            } else {
                headers.append(name, value);
            }
        }
        if !headers.contains_key(USER_AGENT) {
            let agent = HeaderValue::from_str(&agent(purpose)).map_err(|error| error.to_string())?;
            headers.insert(USER_AGENT, agent);
        }
        match headers.get(ACCEPT) {
            None => drop(headers.insert(ACCEPT, HeaderValue::from_static("*/*"))),
            // Asked for and empty: none is sent.
            Some(accept) if accept.is_empty() => drop(headers.remove(ACCEPT)),
            Some(_) => {}
        }
        host_header = host_header.filter(|host| !host.is_empty());
        let https = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        let target = parse_target(action.path.as_deref().unwrap_or_default())?;
        Ok(Self { https, host, port, target, headers, host_header })
    }

    /// The URL, as messages show it.
    pub fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", host_port(&self.host, self.port), self.target)
    }

    /// The host and port, as messages show them.
    pub fn host_port(&self) -> String {
        host_port(&self.host, self.port)
    }

    /// The same request without TLS, for a server that turned out to speak none; credentials are not sent in the clear.
    #[must_use]
    pub fn in_the_clear(&self) -> Self {
        let mut request = self.clone();
        request.https = false;
        request.headers.remove(::http::header::AUTHORIZATION);
        request
    }

    /// The request that a redirect leads to; none when that is another host's.
    fn redirected(&self, location: &str) -> Result<Option<Self>, String> {
        let fault = || format!("failed to parse Location header {location:?}");
        let mut next = self.clone();
        let absolute = match location.strip_prefix("//") {
            Some(rest) => Some(format!("{}://{rest}", if self.https { "https" } else { "http" })),
            None => location.contains("://").then(|| location.to_owned()),
        };
        let Some(absolute) = absolute else {
            let base = self.target.path();
            let folder = base.rfind('/').map_or("/", |slash| &base[..=slash]);
            let path = if location.starts_with('/') { location.to_owned() } else { format!("{folder}{location}") };
            next.target = parse_target(&path)?;
            return Ok(Some(next));
        };
        let uri: Uri = absolute.parse().map_err(|_| fault())?;
        next.https = uri.scheme_str() == Some("https");
        let host = uri.host().ok_or_else(fault)?.trim_matches(['[', ']']);
        if host != self.host {
            return Ok(None);
        }
        next.port = uri.port_u16().unwrap_or(if next.https { 443 } else { 80 });
        next.target = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        next.host_header = None;
        Ok(Some(next))
    }
}

/// The user agent of this kubelet's requests to containers, as `kube-probe/1.37`.
pub(super) fn agent(purpose: &str) -> String {
    let version = crate::node::KUBERNETES_VERSION.trim_start_matches('v');
    let minor = version.rsplit_once('.').map_or(version, |(minor, _)| minor);
    format!("kube-{purpose}/{minor}")
}

/// Makes the request, following redirects within the host. The answer is the last one, whatever its status.
///
/// # Errors
/// A sentence in the words that Go's client has for it.
pub async fn get(request: &HttpRequest, tls: &Arc<ClientConfig>) -> Result<HttpAnswer, String> {
    let mut current = request.clone();
    for _ in 0..REQUESTS {
        let fault = |error| format!("Get {:?}: {error}", current.url());
        let (answer, location) = exchange(&current, tls).await.map_err(fault)?;
        let redirect = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
        let Some(location) = location.filter(|_| redirect) else { return Ok(answer) };
        match current.redirected(&location).map_err(fault)? {
            Some(next) => current = next,
            None => return Ok(answer),
        }
    }
    Err(format!("Get {:?}: stopped after 10 redirects", current.target.as_str()))
}

/// Whether an error of [`get`] says that an HTTPS request was answered in plain HTTP.
pub fn is_plain_answer(error: &str) -> bool {
    error.ends_with(PLAIN)
}

async fn exchange(request: &HttpRequest, tls: &Arc<ClientConfig>) -> Result<(HttpAnswer, Option<String>), String> {
    let tcp = dial::tcp(&request.host, request.port).await?;
    if !request.https {
        return over_http1(request, tcp).await;
    }
    let name = ServerName::try_from(request.host.clone()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await.map_err(|error| tls_words(&error))?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        over_http2(request, stream).await
    } else {
        over_http1(request, stream).await
    }
}

async fn over_http1<S>(request: &HttpRequest, stream: S) -> Result<(HttpAnswer, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(words)?;
    let mut task = JoinSet::new();
    task.spawn(connection);
    let mut message = message(request, request.target.as_str(), Version::HTTP_11)?;
    let host = match &request.host_header {
        Some(host) => host.clone(),
        None => HeaderValue::from_str(&request.host_port()).map_err(|error| error.to_string())?,
    };
    message.headers_mut().insert(HOST, host);
    message.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    receive(sender.send_request(message).await.map_err(words)?).await
}

async fn over_http2<S>(request: &HttpRequest, stream: S) -> Result<(HttpAnswer, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(words)?;
    let mut task = JoinSet::new();
    task.spawn(connection);
    let authority = request.host_header.as_ref().and_then(|host| host.to_str().ok()).map(str::to_owned);
    let uri = format!("https://{}{}", authority.unwrap_or_else(|| request.host_port()), request.target);
    receive(sender.send_request(message(request, &uri, Version::HTTP_2)?).await.map_err(words)?).await
}

fn message(request: &HttpRequest, uri: &str, version: Version) -> Result<Request<Empty<Bytes>>, String> {
    let builder = Request::builder().method(Method::GET).uri(uri).version(version);
    let mut message = builder.body(Empty::new()).map_err(|error| error.to_string())?;
    message.headers_mut().extend(request.headers.clone());
    Ok(message)
}

/// The answer, and where it redirects to.
async fn receive(response: Response<Incoming>) -> Result<(HttpAnswer, Option<String>), String> {
    let status = response.status().as_u16();
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while bytes.len() < OUTPUT_LIMIT {
        match body.frame().await {
            None => break,
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..])),
            Some(Err(error)) => return Err(words(error)),
        }
    }
    let mut body = String::from_utf8_lossy(&bytes).into_owned();
    cut(&mut body, OUTPUT_LIMIT);
    Ok((HttpAnswer { status, body }, location))
}

/// A path as it stands in a request line; what may not stand there is percent-encoded.
fn parse_target(path: &str) -> Result<PathAndQuery, String> {
    let path = path.split('#').next().unwrap_or_default();
    let mut target = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        target.push('/');
    }
    for byte in path.bytes() {
        match byte {
            b'!'..=b'~' if !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}') => {
                target.push(char::from(byte));
            }
            _ => target.push_str(&format!("%{byte:02X}")),
        }
    }
    target.parse().map_err(|_| format!("invalid path {path:?}"))
}

fn words(error: hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "EOF".to_owned();
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn tls_words(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => PLAIN.to_owned(),
        Some(inner) => format!("tls: {inner}"),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(path: &str) -> HttpRequest {
        let action = HTTPGetAction { path: Some(path.to_owned()), ..HTTPGetAction::default() };
        let action =
            HTTPGetAction { port: k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(80), ..action };
        HttpRequest::new(&action, &Container::default(), Some("fd00::1"), "probe").expect("a request")
    }

    #[test]
    fn what_may_not_stand_in_a_path_is_encoded() {
        assert_eq!(request("healthz?a=b c#d").url(), "http://[fd00::1]:80/healthz?a=b%20c");
        assert_eq!(request("/ä").url(), "http://[fd00::1]:80/%C3%A4");
    }

    #[test]
    fn redirects_lead_where_browsers_go() {
        let to = |location: &str| request("/a/b?c").redirected(location).expect("a location").map(|next| next.url());
        assert_eq!(to("d").as_deref(), Some("http://[fd00::1]:80/a/d"));
        assert_eq!(to("/d").as_deref(), Some("http://[fd00::1]:80/d"));
        assert_eq!(to("https://[fd00::1]/d").as_deref(), Some("https://[fd00::1]:443/d"));
        assert_eq!(to("//example.test/d"), None);
    }

    proptest! {
        #[test]
        fn any_path_and_any_location_are_survived(path: String, location: String) {
            let _ = request(&path).redirected(&location);
        }
    }
}
