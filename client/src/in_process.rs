//! A client that calls the API server's service in the same process.
//!
//! Invariant: a request that comes this way carries an [`InProcessUser`] in its extensions, and nothing that comes from a
//! socket can, because extensions aren't part of HTTP. The API server therefore takes the user from the extension
//! without authenticating again.

use http::{HeaderValue, Request, Response, header::USER_AGENT};
use kube::Client;
use kube::client::Body;
use tower::{BoxError, Service, ServiceExt};

/// Who makes an in-process request. Found in the request's extensions; authorization applies to it as to any user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InProcessUser {
    /// The user's name, such as `system:kube-controller-manager`.
    pub name: String,
    /// The groups; `system:authenticated` is not added for the caller.
    pub groups: Vec<String>,
}

impl InProcessUser {
    /// The identity of a control-plane component: the name, in the group `system:authenticated`.
    #[must_use]
    pub fn component(name: &str) -> Self {
        Self { name: name.to_owned(), groups: vec!["system:authenticated".to_owned()] }
    }
}

/// A client whose requests are calls of `service`, each made as `user` and under `user_agent`.
///
/// `service` is the API server's request handler: any tower service from `Request<kube::client::Body>` to a streaming
/// response. Requests run concurrently: the service is cloned for each. There is no URL but the path, no TLS and no
/// timeout. Needs a running tokio runtime. A `user_agent` that can't be a header value is left out.
pub fn in_process<S, B>(service: S, user: InProcessUser, user_agent: &str) -> Client
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let agent = HeaderValue::from_str(user_agent).ok();
    let service = tower::service_fn(move |mut request: Request<Body>| {
        request.extensions_mut().insert(user.clone());
        if let Some(agent) = &agent {
            request.headers_mut().entry(USER_AGENT).or_insert_with(|| agent.clone());
        }
        service.clone().oneshot(request)
    });
    Client::new(service, "default")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_request_carries_the_user_and_the_agent() {
        let service = tower::service_fn(|request: Request<Body>| async move {
            let user = request.extensions().get::<InProcessUser>().expect("a user").clone();
            let agent = request.headers()[USER_AGENT].to_str().expect("text").to_owned();
            let text = format!("{} {} {agent} {}", user.name, user.groups.join(","), request.uri());
            Ok::<_, std::convert::Infallible>(Response::new(Body::from(text.into_bytes())))
        });
        let client = in_process(service, InProcessUser::component("system:kube-scheduler"), "skep-scheduler/1");
        let request = Request::get("/api/v1/pods").body(vec![]).expect("request");
        let answer = client.request_text(request).await.expect("answer");
        assert_eq!(answer, "system:kube-scheduler system:authenticated skep-scheduler/1 /api/v1/pods");
    }
}
