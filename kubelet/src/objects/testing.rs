//! An API server in memory for tests: objects by their paths, tokens that say how many there were before, and watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use parking_lot::Mutex;
use serde_json::{Value, json};
use skep_client::kube::Client;
use skep_client::kube::client::Body;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

type Answer = UnsyncBoxBody<Bytes, std::io::Error>;

#[derive(Default)]
pub(crate) struct Api {
    objects: Mutex<BTreeMap<String, Value>>,
    requests: Mutex<Vec<String>>,
    bodies: Mutex<Vec<Value>>,
    watchers: Mutex<Vec<mpsc::UnboundedSender<Value>>>,
    /// Whether no request is answered.
    pub(crate) is_silent: Mutex<bool>,
    /// Whether token requests are refused.
    pub(crate) refuses_tokens: Mutex<bool>,
}

impl Api {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn client(self: &Arc<Self>) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, std::convert::Infallible>(api.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Puts an object at its path, as `/api/v1/namespaces/n/configmaps/a`.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.objects.lock().insert(path.to_owned(), object);
    }

    /// What was asked for, as `GET /path`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().clone()
    }

    /// The bodies of token requests.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        self.bodies.lock().clone()
    }

    /// Sends an event to every watcher.
    pub(crate) fn event(&self, kind: &str, object: &Value) {
        self.watchers.lock().retain(|watcher| watcher.send(json!({"type": kind, "object": object})).is_ok());
    }

    /// How many watches are open.
    pub(crate) fn watchers(&self) -> usize {
        self.watchers.lock().len()
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        self.requests.lock().push(format!("{} {path}", parts.method));
        let is_silent = *self.is_silent.lock();
        if is_silent {
            std::future::pending::<()>().await;
        }
        // Others that ask at the same time get to ask.
        tokio::task::yield_now().await;
        if path.ends_with("/token") {
            let body = body.collect().await.unwrap().to_bytes();
            return self.token(serde_json::from_slice(&body).unwrap());
        }
        if parts.uri.query().is_some_and(|query| query.contains("watch=true")) {
            let (sender, receiver) = mpsc::unbounded_channel();
            self.watchers.lock().push(sender);
            let lines = UnboundedReceiverStream::new(receiver)
                .map(|event: Value| Ok::<_, std::io::Error>(Frame::data(Bytes::from(format!("{event}\n")))));
            return Response::new(StreamBody::new(lines).boxed_unsync());
        }
        if path == "/api/v1/services" {
            let objects = self.objects.lock();
            let items: Vec<_> =
                objects.iter().filter(|(path, _)| path.contains("/services/")).map(|(_, o)| o).collect();
            return reply(
                StatusCode::OK,
                &json!({"kind": "ServiceList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}),
            );
        }
        match self.objects.lock().get(&path) {
            Some(object) if object["kind"] == "Status" => reply(StatusCode::FORBIDDEN, object),
            Some(object) => reply(StatusCode::OK, object),
            None => reply(StatusCode::NOT_FOUND, &status(404, "NotFound", "not found")),
        }
    }

    fn token(&self, body: Value) -> Response<Answer> {
        if *self.refuses_tokens.lock() {
            return reply(StatusCode::FORBIDDEN, &status(403, "Forbidden", "no token for you"));
        }
        let mut bodies = self.bodies.lock();
        let token = format!("token-{}", bodies.len());
        bodies.push(body.clone());
        let status = json!({"token": token, "expirationTimestamp": "2100-01-01T00:00:00Z"});
        let answer = json!({"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": body["spec"], "status": status});
        reply(StatusCode::CREATED, &answer)
    }
}

pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

fn reply(code: StatusCode, body: &Value) -> Response<Answer> {
    Response::builder()
        .status(code)
        .body(Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed_unsync())
        .unwrap()
}
