//! Admission policies by requests, against a whole API server in this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use serde_json::{Value, json};
use skep_apiserver::auth::User;
use skep_apiserver::pki::Pki;
use skep_apiserver::rest::Ranges;
use skep_apiserver::{ApiServer, Config, TrustedUser};
use skep_store::embedded::{Embedded, Options};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

struct Server {
    _folder: TempDir,
    server: ApiServer,
}

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

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .expect("a request");
        request.extensions_mut().insert(TrustedUser(User::system("admin")));
        let response = self.server.service().oneshot(request).await.expect("it always answers");
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// A policy and its binding. A later write of any kind sees both.
    async fn bind(&self, prefix: &str, spec: Value, binding: Value) {
        let policies = format!("{GROUP}/{}admissionpolicies", prefix.to_lowercase());
        let version = "admissionregistration.k8s.io/v1";
        let policy = json!({
            "apiVersion": version, "kind": format!("{prefix}AdmissionPolicy"), "metadata": {"name": "p"}, "spec": spec,
        });
        let (code, answer) = self.post(&policies, &policy).await;
        assert_eq!(code, 201, "{answer}");
        let binding = json!({
            "apiVersion": version, "kind": format!("{prefix}AdmissionPolicyBinding"), "metadata": {"name": "b"},
            "spec": binding,
        });
        let (code, answer) = self.post(&policies.replace("policies", "policybindings"), &binding).await;
        assert_eq!(code, 201, "{answer}");
    }
}

fn constraints(group: &str, resource: &str) -> Value {
    json!({"resourceRules": [
        {"operations": ["CREATE"], "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]},
    ]})
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deployment(replicas: i64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "d"}},
            "template": {
                "metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    })
}

#[tokio::test]
async fn a_policy_denies_what_its_rules_do_not_hold_for() {
    let server = Server::start().await;
    let spec = json!({
        "matchConstraints": constraints("apps", "deployments"),
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"}],
        "validations": [
            {"expression": "variables.replicas > 1", "messageExpression": "'wants more than ' + string(variables.replicas)"},
            {"expression": "namespaceObject.metadata.name == 'default'"},
        ],
    });
    server.bind("Validating", spec, json!({"policyName": "p", "validationActions": ["Deny"]})).await;
    let (code, status) = server.post(DEPLOYMENTS, &deployment(1)).await;
    assert_eq!((code, status["reason"].as_str()), (422, Some("Invalid")));
    assert_eq!(
        status["message"],
        "deployments.apps \"d\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: wants more than 1"
    );
    assert_eq!(server.post(DEPLOYMENTS, &deployment(2)).await.0, 201);
}

#[tokio::test]
async fn parameters_come_from_the_object_that_the_binding_names() {
    let server = Server::start().await;
    assert_eq!(server.post(MAPS, &map("limits", json!({"most": "3"}))).await.0, 201);
    let spec = json!({
        "matchConstraints": constraints("apps", "deployments"),
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "object.spec.replicas <= int(params.data.most)", "reason": "Forbidden"}],
    });
    let binding = json!({
        "policyName": "p", "validationActions": ["Deny"],
        "paramRef": {"name": "limits", "parameterNotFoundAction": "Deny"},
    });
    server.bind("Validating", spec, binding).await;
    let (code, status) = server.post(DEPLOYMENTS, &deployment(4)).await;
    assert_eq!((code, status["reason"].as_str()), (403, Some("Forbidden")));
    assert_eq!(server.post(DEPLOYMENTS, &deployment(3)).await.0, 201);
}

#[tokio::test]
async fn a_policy_changes_an_object_by_a_configuration_that_is_applied() {
    let server = Server::start().await;
    let spec = json!({
        "matchConstraints": constraints("apps", "deployments"), "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {
            "expression": "Object{metadata: Object.metadata{annotations: {'by': 'policy'}}, spec: Object.spec{replicas: 1337}}",
        }}],
    });
    server.bind("Mutating", spec, json!({"policyName": "p"})).await;
    let (code, object) = server.post(DEPLOYMENTS, &deployment(1)).await;
    assert_eq!(code, 201, "{object}");
    assert_eq!(
        (&object["spec"]["replicas"], &object["metadata"]["annotations"]["by"]),
        (&json!(1337), &json!("policy"))
    );
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["image"], "i");
}

#[tokio::test]
async fn a_policy_changes_an_object_by_a_json_patch() {
    let server = Server::start().await;
    let spec = json!({
        "matchConstraints": constraints("", "configmaps"), "reinvocationPolicy": "Never",
        "matchConditions": [{"name": "marked", "expression": "'mark' in object.data"}],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {
            "expression": "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('added'), value: object.data.mark}]",
        }}],
    });
    server.bind("Mutating", spec, json!({"policyName": "p"})).await;
    let (_, object) = server.post(MAPS, &map("a", json!({"mark": "x"}))).await;
    assert_eq!(object["data"], json!({"mark": "x", "added": "x"}));
    let (_, object) = server.post(MAPS, &map("b", json!({"other": "x"}))).await;
    assert_eq!(object["data"], json!({"other": "x"}));
}
