//! Streams to kubelets: logs, exec, attach and port-forward; and the `proxy` subresources, which reach pods, services and nodes. The API server finds the
//! other end and authorizes; the bytes between client and server are theirs: an upgraded connection (WebSocket or SPDY) is tunnelled as it is.

mod any_certificate;
mod destination;
mod log_socket;
mod resource;
mod reverse;
mod rewrite;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use skep_api::kinds::Subresource;
use skep_api::{GroupResource, Status};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::http::body::{Body, BoxError};
use crate::rest::{Call, Engine, served};
use log_socket::LogSocket;

/// The most that is read of a kubelet's refusal, in bytes.
const REFUSAL: usize = 16 << 10;
const CONNECT: Duration = Duration::from_secs(10);

/// Reaches kubelets with the API server's own client certificate.
pub struct Kubelets {
    tls: Arc<rustls::ClientConfig>,
    any_certificate: Arc<rustls::ClientConfig>,
    tunnels: TaskTracker,
}

/// The address that a request came from, as an extension of it: proxied servers are told.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub std::net::IpAddr);

/// Where a kubelet answers.
#[derive(Debug, PartialEq, Eq)]
struct Endpoint {
    host: String,
    port: u16,
}

impl Kubelets {
    /// With a TLS configuration that trusts the kubelets' authority and shows the API server's certificate.
    ///
    /// # Errors
    /// When TLS without a trusted authority, for pods and services, can't be configured.
    pub fn new(tls: Arc<rustls::ClientConfig>) -> Result<Self, rustls::Error> {
        Ok(Self { tls, any_certificate: any_certificate::config()?, tunnels: TaskTracker::new() })
    }

    /// Answers a streaming subresource by asking the kubelet of the pod's node.
    ///
    /// # Errors
    /// 400 for a pod without a node or without that container, 502-like 500s when the kubelet can't be reached.
    pub async fn answer<B>(
        &self,
        engine: &Engine,
        call: &Call<'_>,
        subresource: Subresource,
        rest: &str,
        mut parts: Parts,
        body: B,
    ) -> Result<Response<Body>, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        if call.name.is_empty() {
            return Err(Status::method_not_allowed(&call.kind.group_resource(), parts.method.as_str()));
        }
        if subresource == Subresource::Proxy {
            return self.proxy(engine, call, rest, parts, body).await;
        }
        let object = engine.newest(call).await?;
        let object = served(call.kind, &object);
        let (node, path) = match (&*call.kind.plural, subresource) {
            ("pods", Subresource::Log) => (node_of(call, &object)?, log_path(call, &object, parts.uri.query())?),
            ("pods", Subresource::Exec) => {
                (node_of(call, &object)?, container_path(call, &object, "exec", parts.uri.query())?)
            }
            ("pods", Subresource::Attach) => {
                (node_of(call, &object)?, container_path(call, &object, "attach", parts.uri.query())?)
            }
            ("pods", Subresource::PortForward) => {
                let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                (node_of(call, &object)?, format!("/portForward/{}/{}{query}", call.namespace, call.name))
            }
            _ => {
                return Err(Status::new(
                    501,
                    skep_api::Reason::Unknown,
                    format!("{}/{} is not served by this server", call.kind.plural, subresource.as_str()),
                ));
            }
        };
        let node = engine
            .find(&GroupResource::new("", "nodes"), "", &node)
            .ok_or_else(|| Status::not_found(&GroupResource::new("", "nodes"), &node))?;
        let endpoint = endpoint(&node)?;
        if subresource != Subresource::Log {
            return self.forward(&endpoint, &path, parts, body).await;
        }
        let socket = LogSocket::of(&mut parts)?;
        let response = self.forward(&endpoint, &path, parts, body).await?;
        match socket {
            _ if !response.status().is_success() => Err(refusal(response).await),
            None => Ok(response),
            Some(socket) => {
                let (answer, copy) = socket.answer(response.into_body());
                self.tunnels.spawn(copy);
                Ok(answer)
            }
        }
    }

    async fn forward<B>(
        &self,
        endpoint: &Endpoint,
        path: &str,
        mut parts: Parts,
        body: B,
    ) -> Result<Response<Body>, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let unreachable = |why: &dyn std::fmt::Display| {
            Status::internal(format!("error dialing backend: {}:{}: {why}", endpoint.host, endpoint.port))
        };
        let connect = async {
            let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(endpoint.host.clone()).map_err(std::io::Error::other)?;
            TlsConnector::from(self.tls.clone()).connect(name, stream).await
        };
        let stream = tokio::time::timeout(CONNECT, connect)
            .await
            .map_err(|_| unreachable(&"connecting took too long"))?
            .map_err(|error| unreachable(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
        self.tunnels.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%error, "connection to a kubelet ended");
            }
        });
        let client_upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let request = outgoing(endpoint, path, &parts, body)?;
        let mut response = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client_upgrade) = client_upgrade else {
                return Err(Status::bad_request("the connection can't be upgraded"));
            };
            let kubelet_upgrade = hyper::upgrade::on(&mut response);
            self.tunnels.spawn(reverse::tunnel(client_upgrade, kubelet_upgrade));
        }
        let (parts, body) = response.into_parts();
        let body: Body = body.map_err(|error| -> BoxError { error.into() }).boxed_unsync();
        Ok(Response::from_parts(parts, body))
    }
}

/// What a kubelet said instead of a log, as a Status (upstream: `GenericHttpResponseChecker`).
async fn refusal(response: Response<Body>) -> Status {
    let code = response.status().as_u16();
    let mut body = response.into_body();
    let mut text = Vec::new();
    while text.len() < REFUSAL
        && let Some(Ok(frame)) = body.frame().await
    {
        text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
    }
    let text = String::from_utf8_lossy(&text[..text.len().min(REFUSAL)]).trim().to_owned();
    match code {
        400 => Status::bad_request(text),
        404 => Status::new(404, skep_api::Reason::NotFound, text),
        500 => Status::internal(text),
        _ => Status::new(code, skep_api::Reason::Unknown, text),
    }
}

/// The request as the kubelet gets it: same method and protocol headers, without the client's credentials.
fn outgoing<B>(endpoint: &Endpoint, path: &str, parts: &Parts, body: B) -> Result<Request<B>, Status> {
    let uri: Uri = path.parse().map_err(|error| Status::bad_request(format!("invalid path {path:?}: {error}")))?;
    // Exec and attach are started by POST or by a WebSocket's GET; the kubelet takes both.
    let mut request = Request::builder().method(parts.method.clone()).uri(uri);
    let keep = |name: &header::HeaderName| {
        *name == header::CONNECTION
            || *name == header::UPGRADE
            || *name == header::CONTENT_TYPE
            || *name == header::ACCEPT
            || *name == header::CONTENT_LENGTH
            || name.as_str().starts_with("sec-websocket-")
            || name.as_str().starts_with("x-stream-protocol-version")
    };
    for (name, value) in parts.headers.iter().filter(|(name, _)| keep(name)) {
        request = request.header(name, value);
    }
    request = request.header(header::HOST, format!("{}:{}", endpoint.host, endpoint.port));
    request.body(body).map_err(Status::internal)
}

fn node_of(call: &Call<'_>, pod: &Value) -> Result<String, Status> {
    match pod["spec"]["nodeName"].as_str() {
        Some(node) if !node.is_empty() => Ok(node.to_owned()),
        _ => Err(Status::bad_request(format!("pod {} does not have a host assigned", call.name))),
    }
}

/// The kubelet's address as upstream prefers it: Hostname is skipped, since names of nodes need not resolve here.
fn endpoint(node: &Value) -> Result<Endpoint, Status> {
    let name = node["metadata"]["name"].as_str().unwrap_or_default();
    let addresses = node["status"]["addresses"].as_array();
    let of_type = |type_: &str| {
        addresses?.iter().find(|address| address["type"] == type_).and_then(|address| address["address"].as_str())
    };
    let host =
        of_type("InternalIP").or_else(|| of_type("ExternalIP")).or_else(|| of_type("Hostname")).ok_or_else(|| {
            Status::internal(format!("no preferred addresses found; known addresses of node {name}: none"))
        })?;
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(10250);
    Ok(Endpoint { host: host.to_owned(), port })
}

/// The container that a request is about: the one it names, or the only one there is.
fn container(call: &Call<'_>, pod: &Value, query: Option<&str>) -> Result<String, Status> {
    let named = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .find(|(key, _)| key == "container")
        .map(|(_, value)| value.into_owned())
        .filter(|name| !name.is_empty());
    let names = |field: &str| -> Vec<String> {
        let list = pod["spec"][field].as_array();
        list.into_iter().flatten().filter_map(|c| c["name"].as_str()).map(str::to_owned).collect()
    };
    let (containers, init, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    match named {
        Some(name) if containers.contains(&name) || init.contains(&name) || ephemeral.contains(&name) => Ok(name),
        Some(name) => Err(Status::bad_request(format!("container {name} is not valid for pod {}", call.name))),
        None if containers.len() == 1 => Ok(containers[0].clone()),
        None => {
            let all = containers.join(" ");
            let init = if init.is_empty() {
                String::new()
            } else {
                format!(" or one of the init containers: [{}]", init.join(" "))
            };
            Err(Status::bad_request(format!(
                "a container name must be specified for pod {}, choose one of: [{all}]{init}",
                call.name
            )))
        }
    }
}

fn log_path(call: &Call<'_>, pod: &Value, query: Option<&str>) -> Result<String, Status> {
    let container = container(call, pod, query)?;
    let rest = without_container(query);
    Ok(format!("/containerLogs/{}/{}/{container}{rest}", call.namespace, call.name))
}

/// The kubelet's exec and attach take the API's parameters under other names: `input`, `output`, `error`, `tty`.
fn container_path(call: &Call<'_>, pod: &Value, verb: &str, query: Option<&str>) -> Result<String, Status> {
    let container = container(call, pod, query)?;
    let mut out = form_urlencoded::Serializer::new(String::new());
    for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let truthy = value != "false" && value != "0";
        match key.as_ref() {
            "stdin" if truthy => out.append_pair("input", "1"),
            "stdout" if truthy => out.append_pair("output", "1"),
            "stderr" if truthy => out.append_pair("error", "1"),
            "tty" if truthy => out.append_pair("tty", "1"),
            "command" => out.append_pair("command", &value),
            _ => &mut out,
        };
    }
    Ok(format!("/{verb}/{}/{}/{container}?{}", call.namespace, call.name, out.finish()))
}

fn without_container(query: Option<&str>) -> String {
    let mut out = form_urlencoded::Serializer::new(String::new());
    for (key, value) in
        form_urlencoded::parse(query.unwrap_or_default().as_bytes()).filter(|(key, _)| key != "container")
    {
        out.append_pair(&key, &value);
    }
    let query = out.finish();
    if query.is_empty() { query } else { format!("?{query}") }
}

#[cfg(test)]
mod path_tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_kubelet_is_reached_by_its_internal_address_and_its_own_port() {
        let node = json!({
            "metadata": {"name": "n"},
            "status": {
                "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.2"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10251}},
            },
        });
        assert_eq!(endpoint(&node).unwrap(), Endpoint { host: "10.0.0.2".to_owned(), port: 10251 });
        assert!(endpoint(&json!({"metadata": {"name": "n"}})).is_err());
    }

    #[test]
    fn a_log_request_keeps_its_options_and_loses_the_container() {
        assert_eq!(without_container(Some("container=a&follow=true&tailLines=5")), "?follow=true&tailLines=5");
        assert_eq!(without_container(None), "");
    }
}
