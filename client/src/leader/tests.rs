//! The election against an API of one Lease in memory.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// A server of one Lease with optimistic concurrency.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    refuses: Arc<Mutex<bool>>,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let bytes = body.collect().await.expect("a body").to_bytes();
                let (status, body) = server.answer(&parts.method, &bytes);
                let mut response = Response::new(Body::from(body.to_string().into_bytes()));
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }
        });
        Client::new(service, "default")
    }

    fn answer(&self, method: &Method, bytes: &[u8]) -> (StatusCode, Value) {
        let failure = |code: StatusCode, reason: &str| {
            (
                code,
                json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": ""}),
            )
        };
        if *self.refuses.lock().expect("lock") {
            return failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError");
        }
        let mut lease = self.lease.lock().expect("lock");
        let version = |value: &Value| value["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned();
        match (method, lease.as_ref()) {
            (&Method::GET, None) => failure(StatusCode::NOT_FOUND, "NotFound"),
            (&Method::GET, Some(found)) => (StatusCode::OK, found.clone()),
            (&Method::POST, Some(_)) => failure(StatusCode::CONFLICT, "AlreadyExists"),
            (_, found) => {
                let mut sent: Value = serde_json::from_slice(bytes).expect("JSON");
                let current = found.map_or_else(|| "0".to_owned(), version);
                if version(&sent) != current {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                let next: u64 = current.parse::<u64>().expect("a number") + 1;
                sent["metadata"]["resourceVersion"] = json!(next.to_string());
                *lease = Some(sent.clone());
                (StatusCode::OK, sent)
            }
        }
    }

    fn holder(&self) -> String {
        let lease = self.lease.lock().expect("lock");
        lease.as_ref().and_then(|l| l["spec"]["holderIdentity"].as_str()).unwrap_or_default().to_owned()
    }
}

fn election(identity: &str) -> LeaderElection {
    LeaderElection {
        lease_duration: Duration::from_secs(3600),
        renew_deadline: Duration::from_millis(50),
        retry_period: Duration::from_millis(5),
        ..LeaderElection::new("kube-system", "kube-controller-manager", identity)
    }
}

#[tokio::test]
async fn the_second_replica_leads_only_after_the_first_released_the_lease() {
    let server = Server::default();
    let shutdown = CancellationToken::new();
    let first = election("a").acquire(&server.client(), &shutdown).await.expect("leads");
    assert_eq!(server.holder(), "a");
    let client = server.client();
    let token = shutdown.clone();
    let second = tokio::spawn(async move { election("b").acquire(&client, &token).await });
    first.release().await;
    let second = second.await.expect("task").expect("leads");
    assert_eq!(server.holder(), "b");
    assert!(!second.lost().is_cancelled());
}

#[tokio::test]
async fn a_leader_that_cannot_renew_within_the_deadline_loses_the_lease() {
    let server = Server::default();
    let leadership = election("a").acquire(&server.client(), &CancellationToken::new()).await.expect("leads");
    *server.refuses.lock().expect("lock") = true;
    leadership.lost().cancelled().await;
}

#[tokio::test]
async fn a_shutdown_ends_the_wait_for_the_lease() {
    let server = Server::default();
    let _first = election("a").acquire(&server.client(), &CancellationToken::new()).await.expect("leads");
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    assert!(election("b").acquire(&server.client(), &shutdown).await.is_none());
}
