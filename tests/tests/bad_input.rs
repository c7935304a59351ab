//! What clients get wrong is answered in upstream's words, and the server goes on.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::config::{AuthInfo, Kubeconfig};
use serde_json::{Value, json};
use skep_api::GroupResource;
use skep_apiserver::admission::Objects;
use skep_apiserver::auth::token::Tokens;
use skep_apiserver::pki::{Credentials, Pki};
use skep_tests::ControlPlane;

/// Sends a body and gives code and answer.
async fn send(client: &Client, method: Method, path: &str, type_: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
    let request =
        Request::builder().method(method).uri(path).header("content-type", type_).body(body.into()).expect("a request");
    let response = client.send(request.map(kube::client::Body::from)).await.expect("an answer");
    let code = response.status().as_u16();
    let bytes = response.into_body().collect_bytes().await.expect("a body");
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

async fn post(client: &Client, path: &str, body: &Value) -> (u16, Value) {
    send(client, Method::POST, path, "application/json", body.to_string()).await
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_bodies_are_named() {
    let mut cluster = ControlPlane::start().await.expect("a control plane");
    let client = cluster.client().await.expect("a client");
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let cases = [
        (
            strict.as_str(),
            json!({"metadata": {"name": "a"}, "dta": {}}),
            400,
            "strict decoding error: unknown field \"dta\"",
        ),
        (
            MAPS,
            json!({"metadata": {"name": 5}}),
            400,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.name of type string",
        ),
        (
            MAPS,
            json!({"metadata": {"name": "A"}}),
            422,
            "ConfigMap \"A\" is invalid: metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of",
        ),
        (
            MAPS,
            json!({"metadata": {"name": "a", "namespace": "b"}}),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            MAPS,
            json!({"apiVersion": "v2", "kind": "ConfigMap", "metadata": {"name": "a"}}),
            400,
            "no kind \"ConfigMap\" is registered for version \"v2\"",
        ),
        (MAPS, json!({"metadata": {}}), 422, "metadata.name: Required value: name or generateName is required"),
        (
            "/api/v1/namespaces/nowhere/configmaps",
            json!({"metadata": {"name": "a"}}),
            404,
            "namespaces \"nowhere\" not found",
        ),
        ("/api/v1/namespaces/default/nothings", json!({}), 404, "the server could not find the requested resource"),
        (
            "/apis/apps/v1/namespaces/default/deployments",
            json!({"metadata": {"name": "a"}, "spec": {"replicas": "3"}}),
            400,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
    ];
    for (path, body, code, words) in cases {
        let (got, status) = post(&client, path, &body).await;
        let message = status["message"].as_str().unwrap_or_default();
        assert_eq!((got, status["kind"].as_str()), (code, Some("Status")), "{path} {body}: {status}");
        assert!(message.contains(words), "{path} {body}: {message}");
    }
    for (type_, body, code) in [
        ("application/json", "{\"metadata\": {", 400),
        ("application/yaml", "a: [", 400),
        ("application/xml", "<a/>", 415),
        ("application/vnd.kubernetes.protobuf", "k8s\0\u{1}\u{2}", 400),
        ("application/json", "[]", 400),
        ("application/json", "", 400),
    ] {
        let (got, status) = send(&client, Method::POST, MAPS, type_, body).await;
        assert_eq!((got, status["kind"].as_str()), (code, Some("Status")), "{type_} {body:?}: {status}");
    }
    let oversized = json!({"metadata": {"name": "a"}, "data": {"k": "x".repeat(3 * 1024 * 1024)}});
    assert_eq!(post(&client, MAPS, &oversized).await.0, 413);
    assert!(cluster.is_running());
    assert_eq!(post(&client, MAPS, &json!({"metadata": {"name": "a"}})).await.0, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_with_an_old_version_conflicts() {
    let cluster = ControlPlane::start().await.expect("a control plane");
    let client = cluster.client().await.expect("a client");
    let (_, first) = post(&client, MAPS, &json!({"metadata": {"name": "a"}})).await;
    let path = format!("{MAPS}/a");
    let mut second = first.clone();
    second["data"] = json!({"k": "1"});
    assert_eq!(send(&client, Method::PUT, &path, "application/json", second.to_string()).await.0, 200);
    let (code, status) = send(&client, Method::PUT, &path, "application/json", second.to_string()).await;
    let words = "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again";
    assert_eq!((code, status["message"].as_str()), (409, Some(words)));
    let (code, status) = post(&client, MAPS, &json!({"metadata": {"name": "a"}})).await;
    assert_eq!((code, status["message"].as_str()), (409, Some("configmaps \"a\" already exists")));
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_by_one_snapshot() {
    // Controllers would write a ConfigMap of their own into the namespace.
    let cluster = ControlPlane::start_with(&["--no-controllers"]).await.expect("a control plane");
    let client = cluster.client().await.expect("a client");
    for at in 0..7 {
        assert_eq!(post(&client, MAPS, &json!({"metadata": {"name": format!("m{at}")}})).await.0, 201);
    }
    let get = async |path: String| send(&client, Method::GET, &path, "application/json", "").await;
    let (_, first) = get(format!("{MAPS}?limit=3")).await;
    assert_eq!(first["metadata"]["remainingItemCount"], 4);
    // Written in between: no page of this list shows it.
    assert_eq!(post(&client, MAPS, &json!({"metadata": {"name": "m3a"}})).await.0, 201);
    let mut names = Vec::new();
    let mut page = first;
    loop {
        names.extend(page["items"].as_array().into_iter().flatten().map(|item| item["metadata"]["name"].clone()));
        let Some(token) = page["metadata"]["continue"].as_str().map(str::to_owned) else { break };
        page = get(format!("{MAPS}?limit=3&continue={token}")).await.1;
    }
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4", "m5", "m6"]);
    assert_eq!(get(format!("{MAPS}?limit=3&continue=nonsense")).await.0, 400);
    assert_eq!(get(format!("{MAPS}?labelSelector=a+b")).await.0, 400);
    assert_eq!(get(format!("{MAPS}?fieldSelector=data.x%3Dy")).await.0, 400);
}

async fn get_object(client: &Client, path: &str) -> (u16, Value) {
    send(client, Method::GET, path, "application/json", "").await
}

/// A cluster without objects: nothing that a token could be bound to.
struct Nothing;

impl Objects for Nothing {
    fn get(&self, _: &GroupResource, _: &str, _: &str) -> Option<Arc<Value>> {
        None
    }

    fn list(&self, _: &GroupResource, _: Option<&str>) -> Vec<Arc<Value>> {
        Vec::new()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_certificates_that_are_over_or_of_another_authority_are_nobodys() {
    let cluster = ControlPlane::start().await.expect("a control plane");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let long_ago = Timestamp::now() - SignedDuration::from_hours(24 * 3650);
    let answer = async |credentials: Credentials| {
        let mut config = Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
        let user = AuthInfo {
            client_certificate_data: Some(STANDARD.encode(&credentials.certificate)),
            client_key_data: Some(STANDARD.encode(&credentials.key).into()),
            ..AuthInfo::default()
        };
        config.auth_infos[0].auth_info = Some(user);
        let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.expect("a config");
        get_object(&Client::try_from(config).expect("a client"), MAPS).await
    };
    let at = |directory: &Path, now| {
        let pki = Pki::open_or_create(directory, &[], now).expect("the keys");
        pki.client("kubernetes-admin", Some("system:masters")).expect("a certificate")
    };
    let own = cluster.data().join("pki");
    assert_eq!(answer(at(&own, Timestamp::now())).await.0, 200);
    for credentials in [at(&own, long_ago), at(elsewhere.path(), Timestamp::now())] {
        let (code, status) = answer(credentials).await;
        assert_eq!((code, &status["message"]), (401, &json!("Unauthorized")));
    }
    let client = cluster.client().await.expect("a client");
    assert_eq!(get_object(&client, MAPS).await.0, 200, "the server goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_no_good_are_refused() {
    let cluster = ControlPlane::start().await.expect("a control plane");
    let client = cluster.client().await.expect("a client");
    let config = Kubeconfig::read_from(cluster.kubeconfig()).expect("a kubeconfig");
    let as_bearer = async |token: &str| {
        let mut config = config.clone();
        let user = AuthInfo { token: Some(token.to_owned().into()), ..Default::default() };
        config.auth_infos[0].auth_info = Some(user);
        let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.expect("a config");
        let client = Client::try_from(config).expect("a client");
        send(&client, Method::GET, MAPS, "application/json", "").await
    };
    post(&client, "/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "bot"}})).await;
    let (code, token) =
        post(&client, "/api/v1/namespaces/default/serviceaccounts/bot/token", &json!({"spec": {}})).await;
    assert_eq!(code, 201, "{token}");
    let token = token["status"]["token"].as_str().expect("a token").to_owned();
    // Known, but without rights.
    let (code, status) = as_bearer(&token).await;
    assert_eq!(code, 403, "{status}");
    assert!(status["message"].as_str().is_some_and(|message| message.contains("system:serviceaccount:default:bot")));
    // Altered, unsigned, and of an account that has gone.
    let mut forged = token.clone();
    forged.replace_range(forged.len() - 4.., "AAAA");
    assert_eq!(as_bearer(&forged).await.0, 401);
    let (_, rest) = token.split_once('.').expect("three parts");
    assert_eq!(as_bearer(&format!("eyJhbGciOiJub25lIn0.{rest}")).await.0, 401);
    assert_eq!(as_bearer("nonsense").await.0, 401);
    // The cluster's own key signed it, but its time was over an hour ago.
    let pki = Pki::open_or_create(&cluster.data().join("pki"), &[], Timestamp::now()).expect("the keys");
    let tokens = Tokens::new(&pki.service_account_key().expect("the key")).expect("a signer");
    let (_, account) = get_object(&client, "/api/v1/namespaces/default/serviceaccounts/bot").await;
    let at = async |issued: Timestamp| {
        let issued = tokens.request(&account, json!({"spec": {}}), &Nothing, issued).expect("a token");
        as_bearer(issued["status"]["token"].as_str().expect("text")).await
    };
    assert_eq!(at(Timestamp::now()).await.0, 403);
    let (code, status) = at(Timestamp::now() - SignedDuration::from_hours(2)).await;
    assert_eq!((code, &status["message"]), (401, &json!("Unauthorized")));
    let path = "/api/v1/namespaces/default/serviceaccounts/bot";
    assert_eq!(send(&client, Method::DELETE, path, "application/json", "").await.0, 200);
    assert_eq!(as_bearer(&token).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_get_an_exec_may_not_run_anything() {
    let cluster = ControlPlane::start().await.expect("a control plane");
    let client = cluster.client().await.expect("a client");
    for (user, verbs) in [("reader", json!(["get"])), ("runner", json!(["get", "create"]))] {
        let role = json!({
            "metadata": {"name": user},
            "rules": [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": verbs}],
        });
        let binding = json!({
            "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
        assert_eq!(post(&client, &format!("{rbac}/roles"), &role).await.0, 201);
        assert_eq!(post(&client, &format!("{rbac}/rolebindings"), &binding).await.0, 201);
    }
    let exec = async |user: &str| {
        let request =
            Request::get("/api/v1/namespaces/default/pods/none/exec?command=x").header("impersonate-user", user);
        let request = request.body(kube::client::Body::empty()).expect("a request");
        let response = client.send(request).await.expect("an answer");
        let code = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await.expect("a body");
        (code, serde_json::from_slice::<Value>(&bytes).expect("a Status")["message"].clone())
    };
    assert_eq!(exec("reader").await, (403, json!("pods \"none\" is forbidden: ")));
    assert_eq!(exec("runner").await, (404, json!("pods \"none\" not found")));
}
