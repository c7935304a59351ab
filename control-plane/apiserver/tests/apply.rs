//! Owners and server-side apply by requests, against a whole API server in this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

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

const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

struct Server {
    _folder: TempDir,
    server: ApiServer,
}

/// A status code and a body.
type Answer = (u16, Value);

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

    async fn as_user(&self, user: User, method: Method, path: &str, type_: &str, body: impl ToString) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, type_)
            .header(header::USER_AGENT, "tester/1.0 (test)")
            .body(Full::new(bytes::Bytes::from(body.to_string())))
            .expect("a request");
        request.extensions_mut().insert(TrustedUser(user));
        let response = self.server.service().oneshot(request).await.expect("it always answers");
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (code, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    async fn call(&self, method: Method, path: &str, type_: &str, body: impl ToString) -> Answer {
        self.as_user(User::system("admin"), method, path, type_, body).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path, "application/json", body).await
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path, "application/json", body).await
    }

    async fn get(&self, path: &str) -> Value {
        self.call(Method::GET, path, "application/json", "").await.1
    }

    async fn apply(&self, path: &str, query: &str, body: &Value) -> Answer {
        self.call(Method::PATCH, &format!("{path}?{query}"), APPLY, body).await
    }
}

fn map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": data})
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "d"}},
        "spec": {
            "selector": {"matchLabels": {"app": "d"}},
            "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]},
            },
        },
    })
}

/// The entry of a manager, and its fields.
fn entry<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap_or_else(|| panic!("no owners in {object}"));
    entries
        .iter()
        .find(|entry| entry["manager"] == manager)
        .unwrap_or_else(|| panic!("{manager} is not in {entries:?}"))
}

#[tokio::test]
async fn a_creator_is_named_by_its_user_agent_and_owns_defaults_as_well() {
    let server = Server::start().await;
    let (code, created) = server.post(DEPLOYMENTS, &deployment()).await;
    assert_eq!(code, 201, "{created}");
    let owner = entry(&created, "tester");
    assert_eq!((&owner["operation"], &owner["apiVersion"]), (&json!("Update"), &json!("apps/v1")));
    assert_eq!(owner["time"], created["metadata"]["creationTimestamp"]);
    assert_eq!(
        owner["fieldsV1"],
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {
                        "f:containers": {
                            "k:{\"name\":\"c\"}": {
                                ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
                                "f:ports": {
                                    ".": {},
                                    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}},
                                },
                                "f:resources": {}, "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {},
                            },
                        },
                        "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {},
                        "f:terminationGracePeriodSeconds": {},
                    },
                },
            },
        })
    );
    server.server.stop().await;
}

#[tokio::test]
async fn a_status_is_owned_by_who_wrote_it_and_the_scale_by_who_scaled() {
    let server = Server::start().await;
    server.post(DEPLOYMENTS, &deployment()).await;
    let path = format!("{DEPLOYMENTS}/d");
    let (code, _) = server
        .call(
            Method::PATCH,
            &format!("{path}/status?fieldManager=controller"),
            MERGE,
            json!({"status": {"replicas": 1}}),
        )
        .await;
    assert_eq!(code, 200);
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d", "namespace": "default"}, "spec": {"replicas": 3}});
    let (code, _) = server.put(&format!("{path}/scale?fieldManager=scaler"), &scale).await;
    assert_eq!(code, 200);
    let object = server.get(&path).await;
    assert_eq!(entry(&object, "controller")["subresource"], "status");
    assert_eq!(entry(&object, "controller")["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
    let scaler = entry(&object, "scaler");
    assert_eq!((&scaler["subresource"], &scaler["apiVersion"]), (&json!("scale"), &json!("apps/v1")));
    assert_eq!(scaler["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert!(entry(&object, "tester")["fieldsV1"]["f:spec"].get("f:replicas").is_none());

    let applied = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d", "namespace": "default"}, "spec": {"replicas": 5}});
    let (code, refused) = server.apply(&format!("{path}/scale"), "fieldManager=hpa", &applied).await;
    assert_eq!(code, 409, "{refused}");
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using autoscaling/v1: .spec.replicas"
    );
    let (code, scaled) = server.apply(&format!("{path}/scale"), "fieldManager=hpa&force=true", &applied).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (200, &json!(5)), "{scaled}");
    let object = server.get(&path).await;
    assert_eq!(object["spec"]["replicas"], 5);
    assert_eq!(entry(&object, "hpa")["operation"], "Apply");
    server.server.stop().await;
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_none() {
    let server = Server::start().await;
    let path = format!("{MAPS}/m");
    let (_, created) = server.apply(&path, "fieldManager=a", &map(json!({"x": "1"}))).await;
    let (code, again) = server.apply(&path, "fieldManager=a", &map(json!({"x": "1"}))).await;
    assert_eq!((code, &again), (200, &created));
    let (code, put) = server.put(&format!("{path}?fieldManager=b"), &created).await;
    assert_eq!((code, &put), (200, &created));
    let (code, patched) = server.call(Method::PATCH, &path, MERGE, json!({"data": {"x": "1"}})).await;
    assert_eq!((code, &patched), (200, &created));
    server.server.stop().await;
}

#[tokio::test]
async fn an_apply_creates_changes_and_removes() {
    let server = Server::start().await;
    let path = format!("{MAPS}/m");
    let (code, created) = server.apply(&path, "fieldManager=a", &map(json!({"x": "1", "y": "1"}))).await;
    assert_eq!(code, 201, "{created}");
    assert_eq!(entry(&created, "a")["fieldsV1"], json!({"f:data": {"f:x": {}, "f:y": {}}}));
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\ndata:\n  x: \"2\"\n";
    let (code, changed) = server.call(Method::PATCH, &format!("{path}?fieldManager=a"), APPLY, yaml).await;
    assert_eq!((code, &changed["data"]), (200, &json!({"x": "2"})), "{changed}");
    let (code, refused) = server.apply(&path, "fieldManager=b", &map(json!({"x": "3"}))).await;
    assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")));
    assert_eq!(refused["message"], "Apply failed with 1 conflict: conflict with \"a\": .data.x");
    assert_eq!(
        refused["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"a\"", "field": ".data.x"}])
    );
    let (code, forced) = server.apply(&path, "fieldManager=b&force=true", &map(json!({"x": "3"}))).await;
    assert_eq!((code, &forced["data"]), (200, &json!({"x": "3"})));
    assert_eq!(forced["metadata"]["managedFields"].as_array().unwrap().len(), 1);
    let (code, dry) = server.apply(&path, "fieldManager=b&dryRun=All", &map(json!({"x": "4"}))).await;
    assert_eq!((code, &dry["data"]["x"]), (200, &json!("4")));
    assert_eq!(server.get(&path).await["data"]["x"], "3");
    server.server.stop().await;
}

#[tokio::test]
async fn what_an_apply_may_not_say_is_refused_in_upstreams_words() {
    let server = Server::start().await;
    let path = format!("{MAPS}/m");
    let good = map(json!({"x": "1"}));
    let mut other_kind = good.clone();
    other_kind["kind"] = "Secret".into();
    let mut owned = good.clone();
    owned["metadata"]["managedFields"] = json!([]);
    let mut unknown = good.clone();
    unknown["foo"] = 1.into();
    let mut with_uid = good.clone();
    with_uid["metadata"]["uid"] = "u".into();
    let mut other_name = good.clone();
    other_name["metadata"]["name"] = "n".into();
    for (query, body, code, message) in [
        (
            "",
            good.to_string(),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        ("fieldManager=a", other_kind.to_string(), 400, "invalid object type: /v1, Kind=Secret"),
        ("fieldManager=a", owned.to_string(), 400, "metadata.managedFields must be nil"),
        (
            "fieldManager=a",
            unknown.to_string(),
            500,
            "failed to create typed patch object (/m; /v1, Kind=ConfigMap): .foo: field not declared in schema",
        ),
        (
            "fieldManager=a",
            with_uid.to_string(),
            409,
            "Operation cannot be fulfilled on configmaps \"m\": uid mismatch: the provided object specified uid u, and no existing object was found",
        ),
        (
            "fieldManager=a",
            other_name.to_string(),
            400,
            "the name of the object (n) does not match the name on the URL (m)",
        ),
        (
            "fieldManager=a",
            "[1]".to_owned(),
            400,
            "error decoding patch: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
    ] {
        let (given, status) = server.call(Method::PATCH, &format!("{path}?{query}"), APPLY, body).await;
        assert_eq!((given, status["message"].as_str()), (code, Some(message)), "{status}");
    }
    let (code, status) = server.call(Method::PATCH, &format!("{path}?force=true"), MERGE, "{}").await;
    assert_eq!(code, 422);
    assert_eq!(
        status["message"],
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
    );
    let (code, _) =
        server.call(Method::PATCH, &format!("{path}?fieldManager=a"), "application/apply-patch+cbor", "").await;
    assert_eq!(code, 415);
    let long = "a".repeat(129);
    let (code, _) = server.post(&format!("{MAPS}?fieldManager={long}"), &good).await;
    assert_eq!(code, 422);
    server.server.stop().await;
}

#[tokio::test]
async fn who_may_patch_but_not_create_can_not_create_by_applying() {
    let server = Server::start().await;
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "p"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["patch", "get"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "p"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "p"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    assert_eq!(server.post(&format!("{rbac}/roles"), &role).await.0, 201);
    assert_eq!(server.post(&format!("{rbac}/rolebindings"), &binding).await.0, 201);
    // What was written before is seen by who asks after: a read waits for it, and authorization is fed with it.
    server.get(&format!("{rbac}/rolebindings/p")).await;
    let path = format!("{MAPS}/m?fieldManager=a");
    let body = map(json!({"x": "1"}));
    let (code, status) =
        server.as_user(User::authenticated("ann", Vec::new()), Method::PATCH, &path, APPLY, &body).await;
    assert_eq!(code, 403, "{status}");
    assert!(status["message"].as_str().unwrap().contains("cannot create resource \"configmaps\""), "{status}");
    server.post(MAPS, &map(json!({}))).await;
    let (code, status) =
        server.as_user(User::authenticated("ann", Vec::new()), Method::PATCH, &path, APPLY, &body).await;
    assert_eq!(code, 200, "{status}");
    server.server.stop().await;
}

#[tokio::test]
async fn owners_can_be_reset_and_replaced_by_an_update() {
    let server = Server::start().await;
    let path = format!("{MAPS}/m");
    server.post(MAPS, &map(json!({"x": "1"}))).await;
    let mut object = server.get(&path).await;
    object["metadata"]["managedFields"] = json!([{}]);
    let (code, reset) = server.put(&path, &object).await;
    assert_eq!((code, reset["metadata"].get("managedFields")), (200, None), "{reset}");
    // Nobody owns what is there, until the first apply says who did.
    let (_, applied) = server.apply(&path, "fieldManager=a", &map(json!({"y": "1"}))).await;
    assert_eq!(entry(&applied, "before-first-apply")["fieldsV1"], json!({"f:data": {".": {}, "f:x": {}}}));
    server.server.stop().await;
}

#[tokio::test]
async fn a_status_is_applied_by_its_own_path() {
    let server = Server::start().await;
    server.post(DEPLOYMENTS, &deployment()).await;
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 9}, "status": {"replicas": 2, "conditions": [{"type": "Available", "status": "True"}]}});
    let (code, applied) = server.apply(&format!("{DEPLOYMENTS}/d/status"), "fieldManager=s", &status).await;
    // The spec is another's, but what is set back is not looked at.
    assert_eq!((code, &applied["status"]["replicas"], &applied["spec"]["replicas"]), (200, &json!(2), &json!(1)));
    let owner = entry(&applied, "s");
    assert_eq!(owner["subresource"], "status");
    assert_eq!(
        owner["fieldsV1"],
        json!({"f:status": {"f:conditions": {"k:{\"type\":\"Available\"}": {".": {}, "f:status": {}, "f:type": {}}}, "f:replicas": {}}})
    );
    server.server.stop().await;
}

#[tokio::test]
async fn owners_in_one_version_lose_what_is_written_in_another() {
    let server = Server::start().await;
    let event = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default", "labels": {"x": "1", "y": "1"}},
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "reason": "R", "message": "one", "type": "Normal"});
    let (code, created) = server.post("/api/v1/namespaces/default/events?fieldManager=old", &event).await;
    assert_eq!(code, 201, "{created}");
    let path = "/apis/events.k8s.io/v1/namespaces/default/events/e";
    let (code, patched) = server
        .call(Method::PATCH, &format!("{path}?fieldManager=new"), MERGE, json!({"metadata": {"labels": {"x": "2"}}}))
        .await;
    assert_eq!(code, 200, "{patched}");
    assert_eq!(entry(&patched, "new")["fieldsV1"], json!({"f:metadata": {"f:labels": {"f:x": {}}}}));
    assert_eq!(entry(&patched, "new")["apiVersion"], "events.k8s.io/v1");
    let old = entry(&patched, "old");
    assert_eq!(old["apiVersion"], "v1");
    assert_eq!(old["fieldsV1"]["f:metadata"], json!({"f:labels": {".": {}, "f:y": {}}}));
    assert_eq!(old["fieldsV1"]["f:message"], json!({}), "what the other version calls note");
    server.server.stop().await;
}
