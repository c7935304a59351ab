//! Every kind over HTTP: a minimal object of it is created, read as a table, replaced, has its status written, and is deleted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use serde_json::{Value, json};
use skep_api::kinds::{Kind, Scope, Subresource, Verb, builtin};
use skep_apiserver::auth::User;
use skep_apiserver::pki::Pki;
use skep_apiserver::rest::Ranges;
use skep_apiserver::{ApiServer, Config, TrustedUser};
use skep_store::embedded::{Embedded, Options};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

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

    async fn call(&self, method: Method, path: &str, accept: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, accept)
            .body(Full::new(bytes::Bytes::from(body)))
            .expect("a request");
        request.extensions_mut().insert(TrustedUser(User::system("admin")));
        let response = self.server.service().oneshot(request).await.expect("it always answers");
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn json(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        self.call(method, path, "application/json", body).await
    }
}

fn template(policy: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "x" } },
        "spec": { "containers": [{ "name": "c", "image": "i" }], "restartPolicy": policy },
    })
}

/// A certificate of an authority, as PEM.
fn authority() -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("a certificate").pem()
}

/// An empty PKCS#10 request, as base64 of its DER.
fn key_request() -> String {
    let params = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    let request = params.serialize_request(&rcgen::KeyPair::generate().expect("a key")).expect("a request");
    base64::engine::general_purpose::STANDARD.encode(request.der())
}

/// What an object of a kind must have besides its name; none for kinds that other tests create.
fn minimal(kind: &Kind) -> Option<Value> {
    let selector = json!({ "matchLabels": { "app": "x" } });
    let claim = json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } });
    let scaled = json!({ "kind": "Deployment", "name": "d", "apiVersion": "apps/v1" });
    let request = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlHYk1FTUNBUUF3RURFT01Bd0dBMVVFQXd3RllXUnRhVzR3S2pBRkJnTXJaWEFESVFDRU1mdVFYbkJhCktpL1gyVnpRbUY0TFdGeUlHWXp5MW5NS3FGVT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUgUkVRVUVTVC0tLS0tCg==";
    Some(match (&*kind.group_version.group, &*kind.plural) {
        ("" | "events.k8s.io", "events") | ("", "bindings" | "endpoints" | "componentstatuses") => return None,
        ("admissionregistration.k8s.io" | "apiextensions.k8s.io" | "apiregistration.k8s.io", _) => return None,
        ("", "pods") => json!({ "spec": template("Always")["spec"] }),
        ("", "podtemplates") => json!({ "template": template("Always") }),
        ("", "replicationcontrollers") => json!({ "spec": { "template": template("Always") } }),
        ("", "persistentvolumes") => json!({ "spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "1Gi" }, "hostPath": { "path": "/d" },
        }}),
        ("", "persistentvolumeclaims") => json!({ "spec": claim }),
        ("", "services") => json!({ "spec": { "ports": [{ "port": 80 }] } }),
        ("", "limitranges") => json!({ "spec": { "limits": [{ "type": "Container", "max": { "cpu": "9" } }] } }),
        ("", "resourcequotas") => json!({ "spec": { "hard": { "services": "900" } } }),
        ("apps", "controllerrevisions") => json!({ "data": { "a": 1 }, "revision": 1 }),
        ("apps", _) => json!({ "spec": { "selector": selector, "template": template("Always") } }),
        ("batch", "jobs") => json!({ "spec": { "template": template("Never") } }),
        ("batch", _) => json!({ "spec": {
            "schedule": "0 0 * * *", "jobTemplate": { "spec": { "template": template("Never") } },
        }}),
        ("autoscaling", _) => json!({ "spec": { "maxReplicas": 2, "scaleTargetRef": scaled } }),
        ("certificates.k8s.io", "clustertrustbundles") => json!({ "spec": { "trustBundle": authority() } }),
        ("certificates.k8s.io", "podcertificaterequests") => json!({ "spec": {
            "signerName": "example.com/s", "podName": "p", "podUID": "1", "serviceAccountName": "default",
            "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3", "stubPKCS10Request": key_request(),
        }}),
        ("certificates.k8s.io", _) => json!({ "spec": {
            "request": request, "signerName": "example.com/s", "usages": ["client auth"],
        }}),
        ("discovery.k8s.io", _) => json!({ "addressType": "IPv4", "endpoints": [] }),
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => json!({ "spec": {
            "priorityLevelConfiguration": { "name": "x" }, "matchingPrecedence": 500,
        }}),
        ("flowcontrol.apiserver.k8s.io", _) => json!({ "spec": {
            "type": "Limited", "limited": { "limitResponse": { "type": "Reject" } },
        }}),
        ("networking.k8s.io", "ingresses") => json!({ "spec": { "defaultBackend": { "service": {
            "name": "s", "port": { "number": 80 },
        }}}}),
        ("networking.k8s.io", "ingressclasses") => json!({ "spec": { "controller": "example.com/c" } }),
        ("networking.k8s.io", "networkpolicies") => json!({ "spec": { "podSelector": {} } }),
        ("networking.k8s.io", "ipaddresses") => json!({ "metadata": { "name": "10.96.9.9" }, "spec": { "parentRef": {
            "resource": "services", "namespace": "default", "name": "s",
        }}}),
        ("networking.k8s.io", _) => json!({ "spec": { "cidrs": ["10.200.0.0/24"] } }),
        ("node.k8s.io", _) => json!({ "handler": "runc" }),
        ("policy", _) => json!({ "spec": { "minAvailable": 1, "selector": selector } }),
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => json!({
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view" },
        }),
        ("resource.k8s.io", "resourceslices") => json!({ "spec": {
            "driver": "d.example.com", "nodeName": "n", "pool": { "name": "p", "resourceSliceCount": 1 },
        }}),
        ("resource.k8s.io", "resourceclaimtemplates") => json!({ "spec": { "spec": { "devices": {} } } }),
        ("resource.k8s.io", "devicetaintrules") => json!({ "spec": {
            "taint": { "key": "example.com/broken", "effect": "NoSchedule" },
        }}),
        ("resource.k8s.io", _) => json!({ "spec": {} }),
        ("scheduling.k8s.io", _) => json!({ "value": 5 }),
        ("storage.k8s.io", "storageclasses") => json!({ "provisioner": "example.com/p" }),
        ("storage.k8s.io", "volumeattributesclasses") => json!({ "driverName": "d", "parameters": { "a": "b" } }),
        ("storage.k8s.io", "volumeattachments") => json!({ "spec": {
            "attacher": "a", "nodeName": "n", "source": { "persistentVolumeName": "v" },
        }}),
        ("storage.k8s.io", "csistoragecapacities") => json!({ "storageClassName": "c" }),
        ("storage.k8s.io", "csinodes") => json!({ "spec": { "drivers": [] } }),
        ("storage.k8s.io", _) => json!({ "spec": {} }),
        ("storagemigration.k8s.io", _) => json!({ "spec": { "resource": { "resource": "configmaps" } } }),
        _ => json!({}),
    })
}

fn collection(kind: &Kind) -> String {
    let gv = &kind.group_version;
    let root = if gv.group.is_empty() { format!("/api/{}", gv.version) } else { format!("/apis/{gv}") };
    match kind.scope {
        Scope::Namespaced => format!("{root}/namespaces/default/{}", kind.plural),
        Scope::Cluster => format!("{root}/{}", kind.plural),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_every_kind_lives_and_dies() {
    let server = Server::start().await;
    let account = json!({ "metadata": { "name": "default" } });
    server.json(Method::POST, "/api/v1/namespaces/default/serviceaccounts", &account).await;
    let mut tried = 0;
    for kind in builtin().iter().filter(|kind| kind.is_stored() && kind.verbs.contains(&Verb::Create)) {
        let Some(mut object) = minimal(kind) else { continue };
        tried += 1;
        let what = format!("{} {}", kind.group_version, kind.kind);
        object["apiVersion"] = kind.group_version.to_string().into();
        object["kind"] = kind.kind.to_string().into();
        if object["metadata"]["name"].is_null() {
            object["metadata"]["name"] = "minimal".into();
        }
        let all = collection(kind);
        let (code, created) = server.json(Method::POST, &all, &object).await;
        assert_eq!(code, 201, "{what}: {created}");
        let path = format!("{all}/{}", object["metadata"]["name"].as_str().expect("a name"));
        let as_table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        let (code, table) = server.call(Method::GET, &path, as_table, &Value::Null).await;
        assert_eq!((code, &table["kind"]), (200, &json!("Table")), "{what}");
        assert_eq!(table["rows"][0]["cells"].as_array().expect("cells").len(), kind.columns.len(), "{what}");
        let (_, mut there) = server.json(Method::GET, &path, &Value::Null).await;
        there["metadata"]["labels"]["changed"] = "yes".into();
        let (code, updated) = server.json(Method::PUT, &path, &there).await;
        assert_eq!(code, 200, "{what}: {updated}");
        assert_eq!(updated["metadata"]["labels"]["changed"], "yes", "{what}");
        if kind.has(Subresource::Status) {
            let (code, answer) = server.json(Method::PUT, &format!("{path}/status"), &updated).await;
            assert_eq!(code, 200, "{what}: {answer}");
        }
        let (code, answer) = server.json(Method::DELETE, &path, &Value::Null).await;
        assert!(matches!(code, 200 | 202), "{what}: {code} {answer}");
    }
    assert!(tried > 40, "{tried} kinds were tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_refuses_what_exceeds_it() {
    let server = Server::start().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let maps = "/api/v1/namespaces/default/configmaps";
    let quota = json!({ "metadata": { "name": "q" }, "spec": { "hard": { "configmaps": "2" } } });
    let (_, mut quota) = server.json(Method::POST, quotas, &quota).await;
    quota["status"] = json!({ "hard": { "configmaps": "2" }, "used": { "configmaps": "1" } });
    let (code, answer) = server.json(Method::PUT, &format!("{quotas}/q/status"), &quota).await;
    assert_eq!(code, 200, "{answer}");
    let (code, answer) = server.json(Method::POST, maps, &json!({ "metadata": { "name": "a" } })).await;
    assert_eq!(code, 201, "{answer}");
    let (code, answer) = server.json(Method::POST, maps, &json!({ "metadata": { "name": "b" } })).await;
    assert_eq!(code, 403);
    assert_eq!(
        answer["message"],
        "configmaps \"b\" is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=2, limited: configmaps=2"
    );
    let (_, quota) = server.json(Method::GET, &format!("{quotas}/q"), &Value::Null).await;
    assert_eq!(quota["status"]["used"]["configmaps"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disruption_budget_refuses_an_eviction_and_counts_one() {
    let server = Server::start().await;
    let root = "/api/v1/namespaces/default";
    server.json(Method::POST, &format!("{root}/serviceaccounts"), &json!({ "metadata": { "name": "default" } })).await;
    let pod = json!({
        "metadata": { "name": "p", "labels": { "app": "x" } },
        "spec": { "nodeName": "n", "containers": [{ "name": "c", "image": "i" }] },
    });
    let (code, mut pod) = server.json(Method::POST, &format!("{root}/pods"), &pod).await;
    assert_eq!(code, 201, "{pod}");
    pod["status"] = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
    server.json(Method::PUT, &format!("{root}/pods/p/status"), &pod).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({
        "metadata": { "name": "b" }, "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "x" } } },
    });
    let (_, mut budget) = server.json(Method::POST, budgets, &budget).await;
    budget["status"] = json!({
        "observedGeneration": 1, "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1,
    });
    let (_, mut budget) = server.json(Method::PUT, &format!("{budgets}/b/status"), &budget).await;
    let eviction = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "p" } });
    let path = format!("{root}/pods/p/eviction");
    let (code, refused) = server.json(Method::POST, &path, &eviction).await;
    assert_eq!(code, 429, "{refused}");
    assert_eq!(refused["details"]["causes"][0]["reason"], "DisruptionBudget");
    assert_eq!(
        refused["details"]["causes"][0]["message"],
        "The disruption budget b needs 1 healthy pods and has 1 currently"
    );
    budget["status"]["disruptionsAllowed"] = 1.into();
    server.json(Method::PUT, &format!("{budgets}/b/status"), &budget).await;
    let (code, answer) = server.json(Method::POST, &path, &eviction).await;
    assert_eq!(code, 201, "{answer}");
    let (_, budget) = server.json(Method::GET, &format!("{budgets}/b"), &Value::Null).await;
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert!(budget["status"]["disruptedPods"]["p"].is_string());
}
