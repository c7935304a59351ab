//! Admission webhooks: a whole API server in this process asks real HTTPS servers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use skep_apiserver::auth::User;
use skep_apiserver::pki::Pki;
use skep_apiserver::rest::Ranges;
use skep_apiserver::{ApiServer, Config, TrustedUser};
use skep_store::embedded::{Embedded, Options};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const HOOKS: &str = "/apis/admissionregistration.k8s.io/v1";

/// How a webhook answers a request: the `response`, without its uid; `None` never answers.
type Judge = dyn Fn(&Value) -> Option<Value> + Send + Sync;

/// A webhook that listens on a port of this machine.
struct Hook {
    address: SocketAddr,
    ca: String,
    asked: Arc<Mutex<Vec<Value>>>,
    _stop: DropGuard,
}

impl Hook {
    /// With a certificate for a name, signed by an authority of its own.
    async fn start(name: &str, judge: impl Fn(&Value) -> Option<Value> + Send + Sync + 'static) -> Self {
        let mut authority = CertificateParams::new(Vec::<String>::new()).expect("parameters");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec![name.to_owned()])
            .expect("parameters")
            .signed_by(&key, &authority)
            .expect("signed");
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate.der().to_vec())],
                PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
            )
            .expect("a server");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (asked, judge) = (Arc::new(Mutex::new(Vec::new())), Arc::new(judge) as Arc<Judge>);
        let stop = CancellationToken::new();
        let (seen, stopped) = (asked.clone(), stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen, judge) = (acceptor.clone(), seen.clone(), judge.clone());
                tokio::spawn(stopped.clone().run_until_cancelled_owned(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service =
                        hyper::service::service_fn(move |request| answer(request, seen.clone(), judge.clone()));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                }));
            }
        }));
        Self { address, ca: STANDARD.encode(authority.pem()), asked, _stop: stop.drop_guard() }
    }

    fn at_url(&self) -> Value {
        json!({"url": format!("https://localhost:{}/hook", self.address.port()), "caBundle": self.ca})
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().expect("no test panics with it").clone()
    }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    seen: Arc<Mutex<Vec<Value>>>,
    judge: Arc<Judge>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    seen.lock().expect("no test panics with it").push(review["request"].clone());
    let Some(mut response) = judge(&review["request"]) else { return std::future::pending().await };
    response["uid"] = review["request"]["uid"].clone();
    let review = json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response});
    Ok(Response::new(Full::new(Bytes::from(review.to_string()))))
}

fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": STANDARD.encode(operations.to_string())})
}

struct Server {
    _folder: TempDir,
    server: ApiServer,
}

/// A status code, a body and the warnings.
type Answer = (u16, Value, Vec<String>);

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let pki = Pki::open_or_create(&folder.path().join("pki"), &[loopback.to_string()], Timestamp::now());
        let config = Config {
            store: Arc::new(Embedded::open(folder.path().join("store"), Options::default()).expect("a store")),
            pki: Arc::new(pki.expect("certificates")),
            listen: SocketAddr::new(loopback, 0),
            advertise: loopback,
            ranges: Ranges::new("10.96.0.0/16", 30000..=32767).expect("ranges"),
        };
        let server = ApiServer::start(config, CancellationToken::new()).await.expect("an API server");
        server.ready().await;
        Self { _folder: folder, server }
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Answer {
        let type_ = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, type_)
            .body(Full::new(Bytes::from(body)))
            .expect("a request");
        request.extensions_mut().insert(TrustedUser(User::system("admin")));
        let response = self.server.service().oneshot(request).await.expect("it always answers");
        let code = response.status().as_u16();
        let warnings = response.headers().get_all(header::WARNING).iter();
        let warnings = warnings.map(|warning| warning.to_str().expect("text").to_owned()).collect();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&body).unwrap_or(Value::Null), warnings)
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, body).await
    }

    /// Registers webhooks, and waits until they are known: a change of one of their kind is seen by every later request.
    async fn register(&self, resource: &str, name: &str, webhooks: Vec<Value>) {
        let kind = if resource.starts_with("mutating") { "Mutating" } else { "Validating" };
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
            "metadata": {"name": name}, "webhooks": webhooks,
        });
        let (code, answer, _) = self.post(&format!("{HOOKS}/{resource}"), &configuration).await;
        assert_eq!(code, 201, "{answer}");
        let (code, ..) = self.call(Method::GET, &format!("{HOOKS}/{resource}/{name}"), &Value::Null).await;
        assert_eq!(code, 200);
    }
}

fn webhook(name: &str, client: Value, operations: &[&str]) -> Value {
    json!({
        "name": format!("{name}.example.com"), "clientConfig": client, "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "rules": [{
            "operations": operations, "apiGroups": ["*"], "apiVersions": ["v1"],
            "resources": ["configmaps", "pods", "pods/attach"],
        }],
    })
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deny_bad(request: &Value) -> Option<Value> {
    let object = if request["operation"] == "DELETE" { &request["oldObject"] } else { &request["object"] };
    let bad = object["data"]["bad"] == "yes";
    Some(
        json!({"allowed": !bad, "status": {"message": "it is bad", "code": 403, "reason": "Forbidden"}, "warnings": ["seen"]}),
    )
}

#[tokio::test]
async fn a_validating_webhook_denies_creates_updates_and_deletes() {
    let (server, hook) = (Server::start().await, Hook::start("localhost", deny_bad).await);
    server.post(MAPS, &map("old", json!({"bad": "yes"}))).await;
    let hooks = vec![webhook("deny", hook.at_url(), &["CREATE", "UPDATE", "DELETE"])];
    server.register("validatingwebhookconfigurations", "deny", hooks).await;
    let denied = "admission webhook \"deny.example.com\" denied the request: it is bad";
    let (code, status, _) = server.post(MAPS, &map("a", json!({"bad": "yes"}))).await;
    assert_eq!((code, status["message"].as_str()), (403, Some(denied)));
    let (code, _, warnings) = server.post(MAPS, &map("a", json!({}))).await;
    assert_eq!((code, warnings), (201, vec!["299 - \"seen\"".to_owned()]));
    let path = format!("{MAPS}/a");
    let (code, status, _) = server.call(Method::PATCH, &path, &json!({"data": {"bad": "yes"}})).await;
    assert_eq!((code, status["message"].as_str()), (403, Some(denied)));
    let (code, ..) = server.call(Method::DELETE, &path, &Value::Null).await;
    assert_eq!(code, 200);
    let (code, ..) = server.call(Method::DELETE, MAPS, &Value::Null).await;
    assert_eq!(code, 403, "each object of a collection is asked about");
    let request = hook.asked().into_iter().find(|request| request["operation"] == "DELETE").expect("it was asked");
    assert_eq!(request["object"], Value::Null);
    assert_eq!(request["oldObject"]["metadata"]["name"], "a");
    assert_eq!(request["options"]["kind"], "DeleteOptions");
    assert_eq!(request["userInfo"]["username"], "admin");
    assert_eq!(request["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
}

#[tokio::test]
async fn mutating_webhooks_see_what_those_before_them_changed() {
    let server = Server::start().await;
    let first =
        Hook::start("localhost", |_| Some(patch(&json!([{"op": "add", "path": "/data/first", "value": "1"}])))).await;
    let second = Hook::start("localhost", |request| {
        let seen = request["object"]["data"]["first"] == "1";
        Some(patch(&json!([{"op": "add", "path": "/data/second", "value": seen.to_string()}])))
    })
    .await;
    let hooks = vec![webhook("first", first.at_url(), &["CREATE"]), webhook("second", second.at_url(), &["CREATE"])];
    server.register("mutatingwebhookconfigurations", "both", hooks).await;
    let (code, object, _) = server.post(MAPS, &map("a", json!({"x": "y"}))).await;
    assert_eq!(code, 201);
    assert_eq!(object["data"], json!({"x": "y", "first": "1", "second": "true"}));
}

#[tokio::test]
async fn a_webhook_is_asked_again_when_a_later_one_changes_the_object() {
    let server = Server::start().await;
    let first = Hook::start("localhost", |request| {
        let value = if request["object"]["data"]["late"] == "1" { "late" } else { "early" };
        Some(patch(&json!([{"op": "add", "path": "/data/seen", "value": value}])))
    })
    .await;
    let late =
        Hook::start("localhost", |_| Some(patch(&json!([{"op": "add", "path": "/data/late", "value": "1"}])))).await;
    let mut again = webhook("first", first.at_url(), &["CREATE"]);
    again["reinvocationPolicy"] = "IfNeeded".into();
    let hooks = vec![again, webhook("late", late.at_url(), &["CREATE"])];
    server.register("mutatingwebhookconfigurations", "both", hooks).await;
    let (_, object, _) = server.post(MAPS, &map("a", json!({"x": "y"}))).await;
    assert_eq!(object["data"]["seen"], "late");
    assert_eq!((first.asked().len(), late.asked().len()), (2, 1));
}

#[tokio::test]
async fn what_a_webhook_adds_to_a_pod_gets_its_defaults() {
    let server = Server::start().await;
    let hook = Hook::start("localhost", |_| {
        let container = json!({"name": "added", "image": "i", "unknown": true});
        Some(patch(&json!([{"op": "add", "path": "/spec/initContainers", "value": [container]}])))
    })
    .await;
    server.register("mutatingwebhookconfigurations", "add", vec![webhook("add", hook.at_url(), &["CREATE"])]).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    server
        .post(
            "/api/v1/namespaces/default/serviceaccounts",
            &json!({
                "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"},
            }),
        )
        .await;
    let (code, object, _) = server.post("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(code, 201, "{object}");
    let added = &object["spec"]["initContainers"][0];
    assert_eq!(added["terminationMessagePolicy"], "File");
    assert_eq!(added["unknown"], Value::Null);
}

#[tokio::test]
async fn a_webhook_that_can_not_be_asked_fails_closed_unless_it_may_fail_open() {
    let (server, hook) = (Server::start().await, Hook::start("localhost", deny_bad).await);
    let mut client = hook.at_url();
    client.as_object_mut().unwrap().remove("caBundle");
    let mut hooks = vec![webhook("closed", client, &["CREATE"])];
    server.register("validatingwebhookconfigurations", "closed", hooks.clone()).await;
    let (code, status, _) = server.post(MAPS, &map("a", json!({}))).await;
    assert_eq!((code, status["reason"].as_str()), (500, Some("InternalError")));
    let message = status["message"].as_str().unwrap();
    let wanted = "Internal error occurred: failed calling webhook \"closed.example.com\": failed to call webhook: Post \"https://localhost:";
    assert!(message.starts_with(wanted) && message.contains("x509: "), "{message}");
    hooks[0]["failurePolicy"] = "Ignore".into();
    let path = format!("{HOOKS}/validatingwebhookconfigurations/closed");
    let (code, ..) = server.call(Method::PATCH, &path, &json!({"webhooks": hooks})).await;
    assert_eq!(code, 200, "no webhook is asked about webhooks");
    let (code, ..) = server.post(MAPS, &map("a", json!({}))).await;
    assert_eq!(code, 201);
}

#[tokio::test]
async fn a_webhook_that_never_answers_is_given_up() {
    let (server, hook) = (Server::start().await, Hook::start("localhost", |_| None).await);
    let mut slow = webhook("slow", hook.at_url(), &["CREATE"]);
    slow["timeoutSeconds"] = 1.into();
    server.register("validatingwebhookconfigurations", "slow", vec![slow]).await;
    let (code, status, _) = server.post(MAPS, &map("a", json!({}))).await;
    assert_eq!(code, 500);
    let message = status["message"].as_str().unwrap();
    assert!(message.ends_with("/hook?timeout=1s\": context deadline exceeded"), "{message}");
}

#[tokio::test]
async fn only_requests_that_meet_all_conditions_are_asked_about() {
    let (server, hook) = (Server::start().await, Hook::start("localhost", deny_bad).await);
    let mut conditional = webhook("deny", hook.at_url(), &["CREATE"]);
    conditional["matchConditions"] = json!([
        {"name": "asked", "expression": "object.metadata.name.startsWith('asked')"},
        {"name": "admin", "expression": "request.userInfo.username == 'admin' && authorizer.group('').resource('pods').check('get').allowed()"},
    ]);
    server.register("validatingwebhookconfigurations", "deny", vec![conditional]).await;
    let (code, ..) = server.post(MAPS, &map("other", json!({"bad": "yes"}))).await;
    assert_eq!(code, 201);
    let (code, ..) = server.post(MAPS, &map("asked", json!({"bad": "yes"}))).await;
    assert_eq!(code, 403);
}

#[tokio::test]
async fn a_connection_to_a_pod_can_be_denied() {
    let server = Server::start().await;
    let hook =
        Hook::start("localhost", |_| Some(json!({"allowed": false, "status": {"message": "no attaching"}}))).await;
    server
        .register("validatingwebhookconfigurations", "deny", vec![webhook("deny", hook.at_url(), &["CONNECT"])])
        .await;
    let path = "/api/v1/namespaces/default/pods/p/attach?container=c&stdin=true";
    let (code, status, _) = server.post(path, &Value::Null).await;
    assert_eq!(
        (code, status["message"].as_str()),
        (400, Some("admission webhook \"deny.example.com\" denied the request: no attaching"))
    );
    let request = &hook.asked()[0];
    assert_eq!(request["kind"]["kind"], "PodAttachOptions");
    assert_eq!((request["operation"].as_str(), request["subResource"].as_str()), (Some("CONNECT"), Some("attach")));
    assert_eq!(request["object"]["container"], "c");
}

#[tokio::test]
async fn a_dry_run_asks_only_webhooks_without_side_effects() {
    let (server, hook) = (Server::start().await, Hook::start("localhost", deny_bad).await);
    server.register("validatingwebhookconfigurations", "deny", vec![webhook("deny", hook.at_url(), &["CREATE"])]).await;
    let (code, ..) = server.post(&format!("{MAPS}?dryRun=All"), &map("a", json!({}))).await;
    assert_eq!(code, 201);
    assert_eq!(hook.asked()[0]["dryRun"], true);
}
