//! CustomResourceDefinitions over the real service: what a client sees from the definition to its end.

#![allow(clippy::unwrap_used, reason = "what can't be had fails the test")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use skep_apiserver::auth::User;
use skep_apiserver::pki::Pki;
use skep_apiserver::rest::Ranges;
use skep_apiserver::{ApiServer, Config, TrustedUser};
use skep_store::embedded::{Embedded, Options};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WEBS: &str = "/apis/example.com/v1/namespaces/default/webs";

struct Server {
    folder: TempDir,
    running: Option<(ApiServer, Arc<Embedded>)>,
}

impl Server {
    async fn start() -> Self {
        let mut server = Self { folder: TempDir::new().unwrap(), running: None };
        server.launch().await;
        server
    }

    async fn launch(&mut self) {
        let store = Arc::new(Embedded::open(self.folder.path().join("store"), Options::default()).unwrap());
        let pki = Pki::open_or_create(&self.folder.path().join("pki"), &[], jiff::Timestamp::now()).unwrap();
        let config = Config {
            store: store.clone(),
            pki: Arc::new(pki),
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            advertise: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ranges: Ranges::new("10.96.0.0/16", 30000..=32767).unwrap(),
        };
        let server = ApiServer::start(config, CancellationToken::new()).await.unwrap();
        server.ready().await;
        self.running = Some((server, store));
    }

    async fn restart(&mut self) {
        let (server, store) = self.running.take().unwrap();
        server.stop().await;
        store.close().await;
        drop(store);
        self.launch().await;
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        type_: &str,
        body: Vec<u8>,
    ) -> http::Response<skep_apiserver::http::body::Body> {
        let user = User::authenticated("admin", vec!["system:masters".to_owned()]);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", type_)
            .extension(TrustedUser(user))
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        self.running.as_ref().unwrap().0.service().oneshot(request).await.unwrap()
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        self.call_as(
            method,
            path,
            if method == "PATCH" { "application/merge-patch+json" } else { "application/json" },
            body,
        )
        .await
    }

    async fn call_as(&self, method: &str, path: &str, type_: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let response = self.send(method, path, type_, body).await;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, Value::Null).await
    }

    /// Waits until what a path shows is as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(u16, &Value) -> bool) -> Value {
        let waited = async {
            loop {
                let (code, value) = self.get(path).await;
                if wanted(code, &value) {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waited).await.expect("it comes in time")
    }

    async fn define(&self, definition: &Value) {
        let (code, answer) = self.call("POST", DEFINITIONS, definition.clone()).await;
        assert_eq!(code, 201, "{answer}");
        let path = format!("{DEFINITIONS}/{}", definition["metadata"]["name"].as_str().unwrap());
        self.until(&path, |_, definition| condition(definition, "Established") == "True").await;
    }
}

fn condition(definition: &Value, type_: &str) -> String {
    let conditions = definition["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == type_);
    found.map(|condition| condition["status"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "webs.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "webs", "singular": "web", "kind": "Web", "shortNames": ["wb"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
                "selectableFields": [{"jsonPath": ".spec.color"}],
                "additionalPrinterColumns": [{"name": "Color", "type": "string", "jsonPath": ".spec.color"}, {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}],
                "schema": {"openAPIV3Schema": {"type": "object", "description": "A web", "properties": {
                    "spec": {"type": "object", "required": ["color"], "properties": {
                        "color": {"type": "string", "enum": ["red", "blue"]},
                        "replicas": {"type": "integer", "default": 1, "minimum": 0},
                        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}}}}},
            }],
        },
    })
}

fn web(name: &str, color: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Web", "metadata": {"name": name}, "spec": {"color": color}})
}

#[tokio::test]
async fn objects_of_a_new_kind_are_created_defaulted_pruned_and_judged() {
    let server = Server::start().await;
    server.define(&definition()).await;
    let mut object = web("a", "red");
    object["spec"]["unknown"] = 1.into();
    object["spec"]["free"] = json!({"x": {"y": null}});
    let (code, made) = server.call("POST", WEBS, object.clone()).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["spec"], json!({"color": "red", "replicas": 1, "free": {"x": {"y": null}}}));
    assert_eq!(made["metadata"]["generation"], 1);
    let (code, told) = server.call("POST", &format!("{WEBS}?fieldValidation=Strict"), object).await;
    assert_eq!(
        (code, told["message"].as_str().unwrap().contains("strict decoding error: unknown field \"spec.unknown\"")),
        (400, true),
        "{told}"
    );
    let (code, told) = server.call("POST", WEBS, web("b", "green")).await;
    assert_eq!(code, 422);
    assert_eq!(
        told["message"],
        "Web.example.com \"b\" is invalid: spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\""
    );
    let (code, _) = server.call("PATCH", &format!("{WEBS}/a"), json!({"spec": {"replicas": 3}})).await;
    assert_eq!(code, 200);
    let (_, scale) = server.get(&format!("{WEBS}/a/scale")).await;
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    let (code, _) = server.call("PATCH", &format!("{WEBS}/a/scale"), json!({"spec": {"replicas": 5}})).await;
    assert_eq!(code, 200);
    let (code, changed) = server
        .call("PATCH", &format!("{WEBS}/a/status"), json!({"spec": {"color": "blue"}, "status": {"replicas": 5}}))
        .await;
    assert_eq!(code, 200, "{changed}");
    assert_eq!((&changed["spec"]["color"], &changed["status"]["replicas"]), (&json!("red"), &json!(5)));
    assert_eq!((&changed["spec"]["replicas"], &changed["metadata"]["generation"]), (&json!(5), &json!(3)));
    let (code, _) = server
        .call_as("PATCH", &format!("{WEBS}/a"), "application/strategic-merge-patch+json", json!({"spec": {}}))
        .await;
    assert_eq!(code, 415);
    server.call("POST", WEBS, web("c", "blue")).await;
    let (_, list) = server.get(&format!("{WEBS}?fieldSelector=spec.color%3Dblue")).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!((&list["kind"], &list["items"][0]["kind"]), (&json!("WebList"), &json!("Web")));
}

#[tokio::test]
async fn a_new_kind_is_discovered_explained_and_gone_with_its_definition() {
    let server = Server::start().await;
    server.define(&definition()).await;
    let (_, resources) = server.get("/apis/example.com/v1").await;
    let names: Vec<&str> =
        resources["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["webs", "webs/status", "webs/scale"]);
    assert_eq!(resources["resources"][0]["shortNames"], json!(["wb"]));
    let (_, document) = server.get("/openapi/v3/apis/example.com/v1").await;
    assert_eq!(document["components"]["schemas"]["com.example.v1.Web"]["description"], "A web");
    let (_, document) = server.get("/openapi/v2").await;
    assert_eq!(document["definitions"]["com.example.v1.Web"]["properties"]["spec"]["required"], json!(["color"]));
    server.call("POST", WEBS, web("a", "red")).await;
    let mut held = web("held", "red");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.call("POST", WEBS, held).await;
    let watch = server.send("GET", &format!("{WEBS}?watch=true"), "", Vec::new()).await;
    let (code, _) = server.call("DELETE", &format!("{DEFINITIONS}/webs.example.com"), Value::Null).await;
    assert_eq!(code, 200);
    server.until(&format!("{WEBS}/a"), |code, _| code == 404).await;
    let (code, told) = server.call("POST", WEBS, web("b", "red")).await;
    assert_eq!(code, 405);
    assert_eq!(told["message"], "create not allowed while custom resource definition is terminating");
    let (code, _) = server.call("PATCH", &format!("{WEBS}/held"), json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(code, 200);
    server.until(&format!("{DEFINITIONS}/webs.example.com"), |code, _| code == 404).await;
    let events = watch.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&events).contains("DELETED"), "the watch ends, and told of the deletions");
    assert_eq!(server.get("/apis/example.com/v1").await.0, 404);
    assert_eq!(server.get("/openapi/v3/apis/example.com/v1").await.0, 404);
}

#[tokio::test]
async fn a_restart_finds_the_kinds_and_their_objects_again() {
    let mut server = Server::start().await;
    let mut definition = definition();
    // Its keys come before those of the definitions.
    definition["metadata"]["name"] = "webs.a.example.com".into();
    definition["spec"]["group"] = "a.example.com".into();
    server.define(&definition).await;
    let path = "/apis/a.example.com/v1/namespaces/default/webs";
    let mut object = web("a", "red");
    object["apiVersion"] = "a.example.com/v1".into();
    let (code, made) = server.call("POST", path, object).await;
    assert_eq!(code, 201);
    server.restart().await;
    let (code, there) = server.get(&format!("{path}/a")).await;
    assert_eq!((code, there), (200, made));
}

#[tokio::test]
async fn objects_are_seen_by_the_schema_of_now_and_in_each_version() {
    let server = Server::start().await;
    let mut definition = definition();
    server.define(&definition).await;
    server.call("POST", WEBS, web("a", "red")).await;
    let mut second = definition["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    second["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] =
        json!({"type": "string", "default": "small"});
    definition["spec"]["versions"].as_array_mut().unwrap().push(second);
    let (code, told) =
        server.call("PATCH", &format!("{DEFINITIONS}/webs.example.com"), json!({"spec": definition["spec"]})).await;
    assert_eq!(code, 200, "{told}");
    let path = "/apis/example.com/v2/namespaces/default/webs/a";
    let seen = server.until(path, |code, _| code == 200).await;
    assert_eq!((&seen["apiVersion"], &seen["spec"]["size"]), (&json!("example.com/v2"), &json!("small")));
    let (_, list) = server.get("/apis/example.com/v2/webs").await;
    assert_eq!(list["items"][0]["apiVersion"], "example.com/v2");
    let (code, changed) = server.call("PATCH", path, json!({"spec": {"color": "blue"}})).await;
    assert_eq!((code, &changed["apiVersion"]), (200, &json!("example.com/v2")), "{changed}");
    let (_, first) = server.get(&format!("{WEBS}/a")).await;
    assert_eq!((&first["apiVersion"], &first["spec"]["color"]), (&json!("example.com/v1"), &json!("blue")));
    assert_eq!(first["spec"]["size"], Value::Null, "v1 does not know it");
}
