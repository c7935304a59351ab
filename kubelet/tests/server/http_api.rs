//! Plain requests: who may, what there is, and how refusals read.

use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use skep_apiserver::pki::Pki;
use skep_tests::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::cluster::{Cluster, read};

/// What the kubelet answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Cluster {
    /// Asks the kubelet, as the API server if `certified`, else with no certificate.
    pub(crate) async fn ask(
        &self,
        certified: bool,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Answer {
        request(self.connect(certified).await, method, path, headers).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(true, Method::GET, path, &[]).await
    }

    async fn status_with_token(&self, path: &str, token: &str) -> StatusCode {
        self.ask(false, Method::GET, path, &[("authorization", &format!("Bearer {token}"))]).await.status
    }
}

async fn request(stream: TlsStream<TcpStream>, method: Method, path: &str, headers: &[(&'static str, &str)]) -> Answer {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let driver = tokio::spawn(connection);
    let mut request = http::Request::builder().method(method).uri(path).header("host", "kubelet");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response =
        sender.send_request(request.body(Empty::<bytes::Bytes>::new()).expect("a request")).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    driver.abort();
    Answer { status: parts.status, headers: parts.headers, text: String::from_utf8_lossy(&body).into_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_may_read_pods_and_health() {
    let cluster = Cluster::start().await;
    let pods: Value = serde_json::from_str(&cluster.get("/pods").await.text).unwrap();
    assert_eq!((&pods["kind"], &pods["items"][0]["metadata"]["name"]), (&json!("PodList"), &json!("web")));
    assert_eq!(cluster.get("/healthz").await.text, "ok");
    let metrics = cluster.get("/metrics").await;
    assert_eq!(metrics.text, "up 1\n");
    assert_eq!(metrics.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_credentials_may_nothing() {
    let cluster = Cluster::start().await;
    let answer = cluster.ask(false, Method::GET, "/pods", &[]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let expected = "Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[pods proxy])\n";
    assert_eq!(answer.text, expected);
    assert_eq!(cluster.status_with_token("/pods", "no-token-of-this-cluster").await, StatusCode::UNAUTHORIZED);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_cluster_gives_no_rights_by_itself() {
    let cluster = Cluster::start().await;
    for (name, group, status) in [("bob", Some("guests"), 403), ("ann", Some("system:masters"), 200)] {
        let stream = cluster.connect_with(Some(cluster.pki.client(name, group).unwrap())).await;
        assert_eq!(request(stream, Method::GET, "/pods", &[]).await.status.as_u16(), status, "{name}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_turned_away() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().unwrap();
    let stranger = Pki::open_or_create(&folder.path().join("pki"), &[], Timestamp::now()).unwrap();
    let mut stream = cluster.connect_with(Some(stranger.client("ann", Some("system:masters")).unwrap())).await;
    // In TLS 1.3 the client learns of it with the first answer.
    let _ = stream.write_all(b"GET /pods HTTP/1.1\r\nhost: kubelet\r\n\r\n").await;
    assert!(stream.read_u8().await.is_err());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_reads_what_its_role_lets_it() {
    let cluster = Cluster::start().await;
    let role: ClusterRole = read(json!({
        "metadata": {"name": "metrics"},
        "rules": [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}],
    }));
    let binding: ClusterRoleBinding = read(json!({
        "metadata": {"name": "metrics"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "metrics"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
    }));
    let parameters = PostParams::default();
    Api::all(cluster.client.clone()).create(&parameters, &role).await.unwrap();
    Api::all(cluster.client.clone()).create(&parameters, &binding).await.unwrap();
    let accounts = Api::<ServiceAccount>::namespaced(cluster.client.clone(), "default");
    let request: TokenRequest = read(json!({"spec": {"audiences": []}}));
    let issued = accounts.create_token_request("default", &parameters, &request).await.unwrap();
    let token = issued.status.unwrap().token.unwrap();
    eventually("the role lets the account read metrics", || async {
        (cluster.status_with_token("/metrics/resource", &token).await == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(cluster.status_with_token("/pods", &token).await, StatusCode::FORBIDDEN);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_done_says_so() {
    let cluster = Cluster::start().await;
    let main = "/exec/default/web/main?output=1&command=true";
    let upgrade =
        [("connection", "Upgrade"), ("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", "v4.channel.k8s.io")];
    for (method, path, headers, status, text) in [
        (Method::GET, "/nowhere", &[][..], 404, "404 page not found\n"),
        (Method::POST, "/pods", &[], 405, "Method Not Allowed"),
        (
            Method::POST,
            "/run/default/web/main",
            &[],
            405,
            "commands are run by exec; run is not served by this kubelet",
        ),
        (Method::GET, "/stats/summary", &[], 501, "nothing is measured"),
        (Method::GET, "/containerLogs/default/web/main?tailLines=-1", &[], 422, r#"{"message": "Invalid request."}"#),
        (
            Method::GET,
            "/containerLogs/default/web/main?previous=true",
            &[],
            400,
            "previous terminated container \"main\" in pod \"web\" not found",
        ),
        (Method::GET, main, &[], 400, "Upgrade request required"),
        (Method::POST, "/exec/default/other/main?output=1&command=true", &upgrade, 404, "pod does not exist"),
        (
            Method::POST,
            "/exec/default/web/main?command=true",
            &upgrade,
            400,
            "you must specify at least 1 of stdin, stdout, stderr",
        ),
        (
            Method::POST,
            "/exec/default/web/main?output=1",
            &upgrade,
            400,
            "you must specify at least one command for the container",
        ),
    ] {
        let answer = cluster.ask(true, method, path, headers).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (status, text), "{path}");
    }
    cluster.stop().await;
}
