//! One request: who asks, whether they may, what they want, and the answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::List;
use k8s_openapi::api::core::v1::Pod;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::auth::{Auth, Denial, User};
use super::backend::{Backend, ContainerRef, Metrics, PodRef, StreamError};
use super::route::{self, BadQuery, Check, Route};
use crate::streaming::{self, Command, Forward, IdleLimit, Kind, Refusal, Switch};

/// Streams on which nothing moves end after this (KubeletConfiguration's streamingConnectionIdleTimeout).
const IDLE: Duration = Duration::from_secs(4 * 60 * 60);

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Answers requests.
pub(super) struct Handler {
    backend: Arc<dyn Backend>,
    auth: Auth,
    streams: TaskTracker,
    stop: CancellationToken,
}

impl Handler {
    pub(super) fn new(backend: Arc<dyn Backend>, auth: Auth, streams: TaskTracker, stop: CancellationToken) -> Self {
        Self { backend, auth, streams, stop }
    }

    /// Answers one request of a client whose certificate says `user`.
    pub(super) async fn handle(&self, user: Option<User>, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if let Err(denial) = self.auth.check(user, request.method(), &path, request.headers()).await {
            return denied(denial);
        }
        let route = Route::of(&path);
        if !route.allows(request.method()) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(route.allowed()));
            return response;
        }
        match route {
            Route::Healthz(check) => self.healthz(&check),
            Route::Pods => pod_list(self.backend.pods().await),
            Route::RunningPods => pod_list(self.backend.running_pods().await),
            Route::StatsSummary => self.stats(request.uri().query().unwrap_or_default()).await,
            Route::Metrics(which) => self.metrics(which).await,
            Route::ContainerLogs(of) => self.logs(&of, request.uri().query().unwrap_or_default()).await,
            Route::Exec(of) => self.command(of, true, request).await,
            Route::Attach(of) => self.command(of, false, request).await,
            Route::PortForward(pod) => self.port_forward(pod, request).await,
            Route::Refused(why) => text(StatusCode::METHOD_NOT_ALLOWED, why),
            Route::Unknown => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    fn healthz(&self, check: &Check) -> Response<Body> {
        let health = match check {
            Check::Ping => Ok(()),
            Check::All | Check::SyncLoop => self.backend.healthy(),
        };
        match (health, check) {
            (Ok(()), _) => text(StatusCode::OK, "ok"),
            (Err(why), Check::All) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("[+]ping ok\n[+]log ok\n[-]syncloop failed: {why}\nhealthz check failed\n"),
            ),
            (Err(why), _) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("internal server error: {why}\n")),
        }
    }

    async fn stats(&self, query: &str) -> Response<Body> {
        let only = form_urlencoded::parse(query.as_bytes())
            .any(|(key, value)| key == "only_cpu_and_memory" && matches!(value.as_ref(), "true" | "1"));
        match self.backend.stats_summary(only).await {
            Ok(summary) => json(&summary),
            Err(error) => failed(&error),
        }
    }

    async fn metrics(&self, which: Metrics) -> Response<Body> {
        match self.backend.metrics(which).await {
            Ok(page) => {
                let mut response = text(StatusCode::OK, &page);
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                response
            }
            Err(error) => failed(&error),
        }
    }

    async fn logs(&self, of: &ContainerRef, query: &str) -> Response<Body> {
        let query = match route::log_query(query, Timestamp::now()) {
            Ok(query) => query,
            Err(bad) => return bad_query(&bad),
        };
        match self.backend.logs(of, query).await {
            Ok(log) => {
                let stop = self.stop.clone().cancelled_owned();
                let log = log.take_until(stop).map_ok(Frame::data);
                let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(log)));
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
                response
            }
            Err(error) => failed(&error),
        }
    }

    async fn command(&self, of: ContainerRef, exec: bool, request: Request<Incoming>) -> Response<Body> {
        let (wants, command) = match route::wants(request.uri().query().unwrap_or_default()) {
            Ok(wants) => wants,
            Err(bad) => return bad_query(&bad),
        };
        if exec && command.is_empty() {
            return text(StatusCode::BAD_REQUEST, "you must specify at least one command for the container");
        }
        let switch = match streaming::command_protocol(request.headers()) {
            Ok(switch) => switch,
            Err(refusal) => return refused(&refusal),
        };
        if let Err(error) = self.backend.locate(&of.pod(), Some(&of.container)).await {
            return failed(&error);
        }
        let kind = if exec { Kind::Exec(command) } else { Kind::Attach };
        let command = Command { backend: self.backend.clone(), of, kind };
        self.switch(switch, request, move |io, protocol| streaming::serve_command(io, protocol, wants, command))
    }

    async fn port_forward(&self, pod: PodRef, request: Request<Incoming>) -> Response<Body> {
        let switch = match streaming::forward_protocol(request.headers()) {
            Ok(switch) => switch,
            Err(refusal) => return refused(&refusal),
        };
        let ports = match route::ports(request.uri().query().unwrap_or_default()) {
            Ok(ports) => ports,
            // Only a WebSocket's channels are numbered by the request's ports.
            Err(_) if !switch.protocol.names_ports() => Vec::new(),
            Err(bad) => return bad_query(&bad),
        };
        if let Err(error) = self.backend.locate(&pod, None).await {
            return failed(&error);
        }
        let forward = Forward { backend: self.backend.clone(), pod };
        self.switch(switch, request, move |io, protocol| streaming::serve_port_forward(io, protocol, ports, forward))
    }

    /// Answers that the protocol is switched, and has `serve` speak it from then on.
    fn switch<P, F, S>(&self, switch: Switch<P>, mut request: Request<Incoming>, serve: S) -> Response<Body>
    where
        S: FnOnce(IdleLimit<TokioIo<hyper::upgrade::Upgraded>>, P) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
        P: Send + 'static,
    {
        let upgrade = hyper::upgrade::on(&mut request);
        let stop = self.stop.clone();
        let Switch { protocol, headers } = switch;
        self.streams.spawn(async move {
            let session = async {
                match upgrade.await {
                    Ok(upgraded) => serve(IdleLimit::new(TokioIo::new(upgraded), IDLE), protocol).await,
                    Err(error) => debug!(%error, "a stream was not upgraded"),
                }
            };
            let _ = stop.run_until_cancelled(session).await;
        });
        let mut response = text(StatusCode::SWITCHING_PROTOCOLS, "");
        response.headers_mut().remove(header::CONTENT_TYPE);
        for (name, value) in headers {
            // All values are made of the protocol's own words, which are header text.
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().append(name, value);
            }
        }
        response
    }
}

fn pod_list(pods: Vec<Pod>) -> Response<Body> {
    json(&List::<Pod> { items: pods, ..List::default() })
}

fn json<T: Serialize>(value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(full(bytes));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(full(message.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn failed(error: &StreamError) -> Response<Body> {
    let status = match error {
        StreamError::NotFound(_) => StatusCode::NOT_FOUND,
        StreamError::BadRequest(_) => StatusCode::BAD_REQUEST,
        StreamError::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
        StreamError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    text(status, &error.to_string())
}

fn bad_query(BadQuery(status, message): &BadQuery) -> Response<Body> {
    text(StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_REQUEST), message)
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = text(refusal.status, &refusal.message);
    for protocol in &refusal.accepted {
        let value = HeaderValue::from_static(protocol);
        response.headers_mut().append("x-accepted-stream-protocol-versions", value);
    }
    response
}

fn denied(denial: Denial) -> Response<Body> {
    match denial {
        Denial::Unauthenticated => text(StatusCode::UNAUTHORIZED, "Unauthorized"),
        Denial::Forbidden(message) => text(StatusCode::FORBIDDEN, &message),
        Denial::Failed(message) => text(StatusCode::INTERNAL_SERVER_ERROR, &message),
    }
}
