//! One request from its head to its answer: authenticate, authorize, route, run, encode, count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use jiff::Timestamp;
use skep_api::decode::Media;
use skep_api::gvk::Name;
use skep_api::kinds::{Kind, Scope, Subresource, Verb};
use skep_api::{GroupResource, GroupVersion, Status};

use super::body::{Body, BoxError, full};
use super::compress;
use super::health::{Health, text};
use super::negotiate::{self, Accepted, Form, Offer};
use super::protobuf;
use super::respond;
use super::route::{ResourcePath, Route, other_verb};
use crate::auth::authn::{Authenticator, ClientCertificates};
use crate::auth::authz::Decision;
use crate::auth::{Attributes, Target, User, reviews};
use crate::discovery;
use crate::metrics::Metrics;
use crate::openapi::Documents;
use crate::proxy::{Kubelets, Peer};
use crate::rest::{Answer, Call, DeleteOptions, Engine, PatchType, Payload, Query};

/// The largest body of a request; upstream's limit.
const BODY_LIMIT: usize = 3 * 1024 * 1024;
/// How long a request that is no stream may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What is known of a connection.
#[derive(Debug, Default)]
pub struct Connection {
    /// The other end.
    pub peer: Option<SocketAddr>,
    /// The client certificates that it showed.
    pub certificates: ClientCertificates,
}

/// Answers requests, whatever transport they come by.
pub struct Handler {
    /// The REST engine.
    pub engine: Arc<Engine>,
    /// Who a request is from.
    pub authenticator: Authenticator,
    /// Token signing, reviews of tokens.
    pub tokens: Arc<crate::auth::token::Tokens>,
    /// Health checks.
    pub health: Arc<Health>,
    /// Streams to kubelets.
    pub kubelets: Kubelets,
    /// OpenAPI documents.
    pub documents: Documents,
    /// Figures.
    pub metrics: Arc<Metrics>,
    /// host:port that clients reach this server by.
    pub public_address: String,
}

/// A request's identity, set by whoever hands it in: the in-process transport names its user so.
#[derive(Clone, Debug)]
pub struct TrustedUser(pub User);

impl Handler {
    /// Answers one request. Never fails: what goes wrong is a Status.
    pub async fn handle<B>(&self, connection: &Connection, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let begun = Instant::now();
        let (parts, body) = request.into_parts();
        let route = Route::parse(parts.uri.path());
        let labels = self.metrics.labels(&route, &parts);
        let accept = parts.headers.get(header::ACCEPT).cloned();
        let response = match self.run(connection, &route, parts, body).await {
            Ok(response) => response,
            Err(status) => {
                let accept = accept.as_ref().and_then(|accept| accept.to_str().ok());
                respond::failure(&status, negotiate::error_form(accept))
            }
        };
        self.metrics.observe(labels, response.status(), begun.elapsed());
        response
    }

    async fn run<B>(
        &self,
        connection: &Connection,
        route: &Route,
        parts: Parts,
        body: B,
    ) -> Result<Response<Body>, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let now = Timestamp::now();
        // Authentication and authorization read the cache as well: health paths aside, nothing is answered before it is there.
        if matches!(route, Route::Resource(_)) {
            self.engine.cache.wait_until_loaded().await?;
        }
        let user = match parts.extensions.get::<TrustedUser>() {
            Some(TrustedUser(user)) => Arc::new(user.clone()),
            None => self.authenticator.authenticate(
                &connection.certificates,
                &parts.headers,
                now,
                &*self.engine.cache,
                &*self.engine.authorizer,
            )?,
        };
        match route {
            Route::Other => {
                self.authorize_path(&user, &parts)?;
                self.other(&parts).await
            }
            Route::Resource(path) => {
                let mut query = Query::parse(parts.uri.query())?;
                header_of(&parts, header::USER_AGENT).unwrap_or_default().clone_into(&mut query.user_agent);
                self.authorize(&user, path, &parts.method, &query)?;
                let kind = self.kind(path)?;
                let call =
                    ResourceRequest { path, user: &user, query: &query, now, kind: &kind, peer: connection.peer };
                self.resource(call, parts, body).await
            }
        }
    }

    fn kind(&self, path: &ResourcePath) -> Result<Arc<Kind>, Status> {
        let table = self.engine.registry.table();
        table.get(&path.group, &path.version, &path.resource).cloned().ok_or_else(Status::no_such_path)
    }

    fn authorize(&self, user: &Arc<User>, path: &ResourcePath, method: &Method, query: &Query) -> Result<(), Status> {
        let verb = path.verb(method, query.watch);
        let attributes = |verb: &'static str| Attributes {
            user: user.clone(),
            verb: verb.into(),
            target: Target::Resource {
                group: path.group.clone(),
                version: path.version.clone(),
                resource: path.resource.clone(),
                subresource: path.subresource.clone(),
                namespace: path.namespace.clone(),
                name: path.name.clone(),
            },
        };
        self.decide(&attributes(verb))?;
        // A WebSocket begins with a GET, and does what a POST does (upstream's AuthorizePodWebsocketUpgradeCreatePermission).
        let runs = path.group.is_empty()
            && path.resource == "pods"
            && matches!(&*path.subresource, "exec" | "attach" | "portforward");
        if !runs || verb == "create" {
            return Ok(());
        }
        match self.engine.authorizer.authorize(&attributes("create")) {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } | Decision::NoOpinion { reason } => {
                Err(Status::forbidden(&GroupResource::new("", "pods"), &path.name, &reason))
            }
        }
    }

    fn authorize_path(&self, user: &Arc<User>, parts: &Parts) -> Result<(), Status> {
        let attributes = Attributes {
            user: user.clone(),
            verb: other_verb(&parts.method).into(),
            target: Target::Path(parts.uri.path().to_owned()),
        };
        self.decide(&attributes)
    }

    fn decide(&self, attributes: &Attributes) -> Result<(), Status> {
        match self.engine.authorizer.authorize(attributes) {
            Decision::Allow { .. } => Ok(()),
            Decision::Deny { reason } | Decision::NoOpinion { reason } => {
                Err(crate::auth::authz::forbidden(attributes, &reason))
            }
        }
    }

    async fn resource<B>(
        &self,
        request: ResourceRequest<'_>,
        mut parts: Parts,
        body: B,
    ) -> Result<Response<Body>, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let ResourceRequest { path, user, query, now, kind, peer } = request;
        let subresource = subresource(kind, path)?;
        let resource = kind.group_resource();
        check_path(kind, path)?;
        let namespace = if kind.scope == Scope::Cluster { "" } else { &path.namespace };
        let call = Call { kind, user, namespace, name: &path.name, subresource, query, now };
        if let Some(stream) = subresource.filter(|subresource| is_streamed(*subresource)) {
            if let Some(peer) = peer {
                parts.extensions.insert(Peer(peer.ip()));
            }
            self.engine.admit_connect(&call, &path.rest, parts.uri.query()).await?;
            return self.kubelets.answer(&self.engine, &call, stream, &path.rest, parts, body).await;
        }
        let accepted = accepted(&call, path, &parts)?;
        let work = async {
            match parts.method {
                Method::GET | Method::HEAD => self.read(&call, path).await,
                Method::POST => self.post(&call, &parts, body).await,
                Method::PUT => self.put(&call, &parts, body).await,
                Method::PATCH => self.patch(&call, &parts, body).await,
                Method::DELETE => self.delete(&call, &parts, body).await,
                _ => Err(Status::method_not_allowed(&resource, parts.method.as_str())),
            }
        };
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, work).await.map_err(|_| {
            Status::new(504, skep_api::Reason::Timeout, "Timeout: request did not complete within the allotted timeout")
        })??;
        let mut answer = self.engine.present(kind, answer).await?;
        answer.warnings.extend(kind.custom.as_ref().and_then(|custom| custom.deprecation.clone()));
        let wanted = respond::Wanted {
            accepted,
            gzip: compress::is_accepted(header_of(&parts, header::ACCEPT_ENCODING)),
            query: call.query,
            now: call.now,
        };
        let mut response = respond::answer(kind, answer, &wanted)?;
        if parts.method == Method::HEAD {
            *response.body_mut() = full(Bytes::new());
        }
        Ok(response)
    }

    async fn read(&self, call: &Call<'_>, path: &ResourcePath) -> Result<Answer, Status> {
        let verb = if call.query.watch || path.watch_prefix {
            Verb::Watch
        } else if call.name.is_empty() {
            Verb::List
        } else {
            Verb::Get
        };
        allowed(call, verb)?;
        match (call.subresource, verb) {
            (Some(Subresource::Scale), _) => self.engine.get_scale(call).await,
            (
                Some(
                    Subresource::Status
                    | Subresource::EphemeralContainers
                    | Subresource::Resize
                    | Subresource::Approval,
                ),
                _,
            )
            | (None, Verb::Get) => self.engine.get(call).await,
            (None, Verb::Watch) => self.engine.watch(call).await,
            (None, _) => self.engine.list(call).await,
            (Some(_), _) => Err(Status::method_not_allowed(&call.kind.group_resource(), "get")),
        }
    }

    async fn post<B>(&self, call: &Call<'_>, parts: &Parts, body: B) -> Result<Answer, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        let media = negotiate::content(header_of(parts, header::CONTENT_TYPE))?;
        match call.subresource {
            None if call.name.is_empty() => {
                allowed(call, Verb::Create)?;
                call.query.check_options("CreateOptions", None)?;
                let body = collect(body).await?;
                if call.kind.verbs == [Verb::Create] {
                    return self.review(call, &body, media);
                }
                self.engine.create(call, &body, media).await
            }
            Some(Subresource::Binding) => self.engine.bind(call, &collect(body).await?, media).await,
            Some(Subresource::Eviction) => self.engine.evict(call, &collect(body).await?, media).await,
            Some(Subresource::Token) => {
                let body = collect(body).await?;
                self.engine.token(call, &body, media, &self.tokens).await
            }
            _ => Err(Status::method_not_allowed(&call.kind.group_resource(), "POST")),
        }
    }

    /// Kinds that are only asked: access and token reviews.
    fn review(&self, call: &Call<'_>, body: &[u8], media: Media) -> Result<Answer, Status> {
        let (mut object, warnings) = self.engine.decode(call, body, media)?;
        crate::rest::match_namespace(call, &mut object)?;
        call.kind.strategy.default(&mut object);
        if call.kind.kind == "TokenReview"
            && let Some(why) = skep_api::kinds::authentication::missing_token(&object)
        {
            return Err(Status::bad_request(why));
        }
        let errors = call.kind.strategy.validate_create(&object);
        if !errors.is_empty() {
            return Err(Status::invalid(&call.kind.group_kind(), "", &errors));
        }
        let answer = reviews::answer(
            &call.kind.kind,
            object,
            call.user,
            &*self.engine.authorizer,
            &self.tokens,
            &*self.engine.cache,
            call.now,
        )?;
        Ok(Answer { code: 201, payload: Payload::Value(answer), warnings })
    }

    async fn put<B>(&self, call: &Call<'_>, parts: &Parts, body: B) -> Result<Answer, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        named(call, "PUT")?;
        call.query.check_options("UpdateOptions", None)?;
        let media = negotiate::content(header_of(parts, header::CONTENT_TYPE))?;
        match call.subresource {
            None => {
                allowed(call, Verb::Update)?;
                self.engine.update(call, &collect(body).await?, media).await
            }
            Some(Subresource::Scale) => self.engine.update_scale(call, &collect(body).await?, media).await,
            Some(
                Subresource::Status
                | Subresource::Finalize
                | Subresource::EphemeralContainers
                | Subresource::Resize
                | Subresource::Approval,
            ) => self.engine.update(call, &collect(body).await?, media).await,
            Some(_) => Err(Status::method_not_allowed(&call.kind.group_resource(), "PUT")),
        }
    }

    async fn patch<B>(&self, call: &Call<'_>, parts: &Parts, body: B) -> Result<Answer, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        named(call, "PATCH")?;
        let type_ = PatchType::of(negotiate::essence(header_of(parts, header::CONTENT_TYPE)))?;
        call.query.check_options("PatchOptions", Some(type_))?;
        match call.subresource {
            None => {
                allowed(call, Verb::Patch)?;
                self.engine.patch(call, &collect(body).await?, type_).await
            }
            Some(Subresource::Scale) => self.engine.patch_scale(call, &collect(body).await?, type_).await,
            Some(
                Subresource::Status | Subresource::EphemeralContainers | Subresource::Resize | Subresource::Approval,
            ) => self.engine.patch(call, &collect(body).await?, type_).await,
            Some(_) => Err(Status::method_not_allowed(&call.kind.group_resource(), "PATCH")),
        }
    }

    async fn delete<B>(&self, call: &Call<'_>, parts: &Parts, body: B) -> Result<Answer, Status>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError>,
    {
        if call.subresource.is_some() {
            return Err(Status::method_not_allowed(&call.kind.group_resource(), "DELETE"));
        }
        let verb = if call.name.is_empty() { Verb::DeleteCollection } else { Verb::Delete };
        allowed(call, verb)?;
        let media = negotiate::content(header_of(parts, header::CONTENT_TYPE))?;
        let body = collect(body).await?;
        let options = DeleteOptions::parse(&body, media, call.query)?;
        if call.name.is_empty() {
            self.engine.delete_collection(call, &options).await
        } else {
            self.engine.delete(call, &options).await
        }
    }

    /// Everything that is no resource.
    async fn other(&self, parts: &Parts) -> Result<Response<Body>, Status> {
        if parts.method != Method::GET && parts.method != Method::HEAD {
            return Err(Status::method_not_allowed(&GroupResource::new("", ""), parts.method.as_str()));
        }
        let path = parts.uri.path();
        if path.starts_with("/livez") || path.starts_with("/readyz") || path.starts_with("/healthz") {
            return self.health.answer(path, parts.uri.query()).ok_or_else(Status::no_such_path);
        }
        if path.starts_with("/openapi/") {
            return self.documents.answer(parts);
        }
        let table = self.engine.registry.table();
        let accept = header_of(parts, header::ACCEPT).unwrap_or_default();
        let aggregated = accept.split(',').any(|clause| {
            let has = |wanted| clause.split(';').any(|parameter| parameter.trim() == wanted);
            has("g=apidiscovery.k8s.io") && has("v=v2") && has("as=APIGroupDiscoveryList")
        });
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        // Discovery documents are objects, and come in the form that is asked for; the rest is JSON.
        let form = match segments.first() {
            Some(&("api" | "apis")) if !aggregated => negotiate::accept(Some(accept), Offer::PLAIN)?.form,
            _ => Form::Json,
        };
        let value = match segments.as_slice() {
            [""] => discovery::paths(&table),
            ["api"] | ["apis"] if aggregated => {
                return Ok(aggregated_response(parts, &discovery::aggregated(&table, segments == ["api"])));
            }
            ["api"] => discovery::core_versions(&self.public_address),
            ["apis"] => discovery::groups(&table),
            ["api", version] => found(discovery::resources(&table, &owned("", version)))?,
            ["apis", group] => found(discovery::one_group(&table, group))?,
            ["apis", group, version] => found(discovery::resources(&table, &owned(group, version)))?,
            ["version"] => crate::version::info(),
            ["metrics"] => return Ok(text(StatusCode::OK, self.metrics.encode())),
            [".well-known", "openid-configuration"] => self.tokens.openid_configuration(),
            ["openid", "v1", "jwks"] => self.tokens.jwks(),
            _ => return Err(Status::no_such_path()),
        };
        respond::document(200, &value, form)
    }
}

/// A request for a resource.
struct ResourceRequest<'a> {
    path: &'a ResourcePath,
    user: &'a User,
    query: &'a Query,
    now: Timestamp,
    kind: &'a Arc<Kind>,
    peer: Option<SocketAddr>,
}

fn owned(group: &str, version: &str) -> GroupVersion {
    GroupVersion { group: Name::Owned(group.to_owned()), version: Name::Owned(version.to_owned()) }
}

fn found<T>(value: Option<T>) -> Result<T, Status> {
    value.ok_or_else(Status::no_such_path)
}

fn aggregated_response(parts: &Parts, document: &serde_json::Value) -> Response<Body> {
    let bytes = serde_json::to_vec(document).expect("a tree of values always encodes");
    let etag = format!("\"{}\"", crate::openapi::hash(&bytes));
    let mut response = if header_of(parts, header::IF_NONE_MATCH) == Some(&etag) {
        let mut response = Response::new(full(Bytes::new()));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        Response::new(full(bytes))
    };
    let type_ = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(type_));
    response.headers_mut().insert(header::VARY, header::HeaderValue::from_static("Accept"));
    if let Ok(etag) = header::HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

fn subresource(kind: &Kind, path: &ResourcePath) -> Result<Option<Subresource>, Status> {
    if path.subresource.is_empty() {
        return Ok(None);
    }
    kind.subresources
        .iter()
        .copied()
        .find(|subresource| subresource.as_str() == path.subresource)
        .map(Some)
        .ok_or_else(Status::no_such_path)
}

/// A namespaced object needs a namespace in its path, and a path of this form has nothing behind it.
fn check_path(kind: &Kind, path: &ResourcePath) -> Result<(), Status> {
    let misplaced = kind.scope == Scope::Cluster && !path.namespace.is_empty() && path.resource != "namespaces";
    let nowhere = kind.scope == Scope::Namespaced && path.namespace.is_empty() && !path.name.is_empty();
    let trailing = !path.rest.is_empty() && path.subresource != "proxy";
    if misplaced || nowhere || trailing { Err(Status::no_such_path()) } else { Ok(()) }
}

/// What the client gets: of a kind that is only asked (a review) there is no table, and no metadata alone.
fn accepted(call: &Call<'_>, path: &ResourcePath, parts: &Parts) -> Result<Accepted, Status> {
    let offer = Offer { protobuf: protobuf::is_offered(call.kind), shapes: call.kind.verbs != [Verb::Create] };
    let accept = header_of(parts, header::ACCEPT);
    let reads = parts.method == Method::GET || parts.method == Method::HEAD;
    if reads && (call.query.watch || path.watch_prefix) {
        negotiate::accept_stream(accept, offer)
    } else {
        negotiate::accept(accept, offer)
    }
}

fn is_streamed(subresource: Subresource) -> bool {
    matches!(
        subresource,
        Subresource::Log | Subresource::Exec | Subresource::Attach | Subresource::PortForward | Subresource::Proxy
    )
}

fn allowed(call: &Call<'_>, verb: Verb) -> Result<(), Status> {
    if call.kind.verbs.contains(&verb) {
        return Ok(());
    }
    let mut status = Status::method_not_allowed(&call.kind.group_resource(), verb.as_str());
    if call.kind.custom.as_ref().is_some_and(|custom| custom.terminating) {
        status.message = format!("{} not allowed while custom resource definition is terminating", verb.as_str());
    }
    Err(status)
}

fn named(call: &Call<'_>, method: &str) -> Result<(), Status> {
    if call.name.is_empty() { Err(Status::method_not_allowed(&call.kind.group_resource(), method)) } else { Ok(()) }
}

pub(crate) fn header_of(parts: &Parts, name: header::HeaderName) -> Option<&str> {
    parts.headers.get(name).and_then(|value| value.to_str().ok())
}

/// The whole body, up to the limit.
pub(crate) async fn collect<B>(body: B) -> Result<Bytes, Status>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Status::too_large(format!("Request entity too large: limit is {BODY_LIMIT}")))
        }
        Err(error) => Err(Status::bad_request(format!("can't read the body: {error}"))),
    }
}
