//! What work writes, against a server that follows a script.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use skep_client::EventRecorder;

use crate::core::tests::{pod, unchanged};
use crate::driver::state::{Condition, Work};
use crate::driver::{Outcome, perform};

type Log = Arc<Mutex<Vec<(String, Value)>>>;

/// A server that answers bindings with `code` and everything else with a pod, and keeps what it was asked.
fn server(code: u16) -> (Client, Log) {
    let log = Log::default();
    let kept = Arc::clone(&log);
    let service = tower::service_fn(move |request: Request<Body>| {
        let kept = Arc::clone(&kept);
        async move {
            let line = format!("{} {}", request.method(), request.uri().path());
            let is_binding = line.ends_with("/binding");
            let body = request.into_body().collect_bytes().await.expect("a body");
            kept.lock().expect("no panic").push((line, serde_json::from_slice(&body).unwrap_or_default()));
            let answer = match (is_binding, code) {
                (false, _) => json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}),
                (true, 201) => json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": code}),
                (true, _) => json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "reason": "x", "code": code,
                }),
            };
            let status = if is_binding { code } else { 200 };
            let response = Response::builder().status(status).body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, Infallible>(response.expect("a response"))
        }
    });
    (Client::new(service, "default"), log)
}

async fn bind(code: u16) -> (Outcome, Vec<(String, Value)>) {
    let (client, log) = server(code);
    let on_failure = Condition { generation: Some(3), since: None };
    let work = Work::Bind { pod: Arc::new(pod("a", json!({}), unchanged)), node: "node".into(), on_failure };
    let outcome = perform(client, EventRecorder::none(), work).await;
    let asked = log.lock().expect("no panic").clone();
    (outcome, asked)
}

#[tokio::test]
async fn a_binding_names_the_pod_by_uid_and_the_node() {
    let (outcome, asked) = bind(201).await;
    assert!(matches!(outcome, Outcome::Bound));
    let [(line, body)] = asked.as_slice() else { panic!("one request, not {asked:?}") };
    assert_eq!(line, "POST /api/v1/namespaces/n/pods/a/binding");
    assert_eq!(body["metadata"]["uid"], "a");
    assert_eq!(body["target"], json!({"kind": "Node", "name": "node"}));
}

#[tokio::test]
async fn a_refused_binding_is_written_into_the_pods_status() {
    let (outcome, asked) = bind(409).await;
    assert!(matches!(outcome, Outcome::BindFailed { .. }));
    let (line, body) = asked.last().expect("requests");
    assert_eq!(line, "PATCH /api/v1/namespaces/n/pods/a/status");
    let condition = &body["status"]["conditions"][0];
    assert_eq!(condition["reason"], "SchedulerError");
    assert_eq!(condition["message"], "running Bind plugin \"DefaultBinder\": no");
    assert_eq!(condition["observedGeneration"], 3);
}

#[tokio::test]
async fn nothing_is_written_about_a_pod_that_is_gone() {
    let (outcome, asked) = bind(404).await;
    assert!(matches!(outcome, Outcome::BindFailed { .. }));
    assert_eq!(asked.len(), 1);
}
