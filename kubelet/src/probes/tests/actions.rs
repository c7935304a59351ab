//! One probe at a time, against real servers.

use super::servers::{Server, closed_port, response};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

async fn outcome(value: Value) -> Outcome {
    prober(Commands::exit(0)).probe(&probe(value), &plain(), SECOND).await.expect("an outcome")
}

fn http_get(server: &Server, path: &str) -> Value {
    json!({"httpGet": {"port": server.port, "path": path}})
}

fn failure(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failure(message) => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_http_probe_judges_by_the_status() {
    let server = Server::http(|head| {
        let ok = head.starts_with("GET /healthz?full=1 HTTP/1.1");
        response(if ok { "204 No Content" } else { "500 Oops" }, "", "secret")
    })
    .await;
    assert_eq!(outcome(http_get(&server, "/healthz?full=1")).await, Outcome::Success);
    assert_eq!(failure(outcome(http_get(&server, "/else")).await), "HTTP probe failed with statuscode: 500");
}

#[tokio::test]
async fn an_http_probe_sends_its_headers() {
    let server = Server::http(|head| {
        let head = head.to_lowercase();
        let wanted = ["host: example.test\r\n", "x-a: 1\r\n", "user-agent: kube-probe/1.37\r\n", "accept: */*\r\n"];
        let all = wanted.iter().all(|line| head.contains(line));
        response(if all { "200 OK" } else { "400 Bad" }, "", "")
    })
    .await;
    let headers = json!([{"name": "Host", "value": "example.test"}, {"name": "X-A", "value": "1"}]);
    let action = json!({"httpGet": {"port": server.port, "httpHeaders": headers}});
    assert_eq!(outcome(action).await, Outcome::Success);
}

#[tokio::test]
async fn a_redirect_is_followed_within_the_host() {
    let server = Server::http(|head| {
        if head.starts_with("GET /new ") {
            response("200 OK", "", "")
        } else {
            response("302 Found", "Location: new\r\n", "")
        }
    })
    .await;
    assert_eq!(outcome(http_get(&server, "/old")).await, Outcome::Success);
}

#[tokio::test]
async fn a_redirect_to_another_host_is_a_warning() {
    let server = Server::http(|_| response("301 Moved", "Location: http://example.test/\r\n", "gone")).await;
    let warning = "Probe terminated redirects, Response body: gone";
    assert_eq!(outcome(http_get(&server, "/")).await, Outcome::Warning(warning.to_owned()));
}

#[tokio::test]
async fn redirects_without_end_fail() {
    let server = Server::http(|_| response("302 Found", "Location: /\r\n", "")).await;
    assert_eq!(failure(outcome(http_get(&server, "/")).await), "Get \"/\": stopped after 10 redirects");
}

#[tokio::test]
async fn an_https_probe_takes_any_certificate() {
    let server = Server::https(|_| response("200 OK", "", "")).await;
    let action = json!({"httpGet": {"port": server.port, "scheme": "HTTPS"}});
    assert_eq!(outcome(action).await, Outcome::Success);
}

#[tokio::test]
async fn an_https_probe_of_a_plain_server_says_so() {
    let server = Server::hasty().await;
    let message = failure(outcome(json!({"httpGet": {"port": server.port, "scheme": "HTTPS"}})).await);
    assert!(http::is_plain_answer(&message), "{message}");
}

#[tokio::test]
async fn a_refused_connection_is_a_failure() {
    let port = closed_port().await;
    let http = outcome(json!({"httpGet": {"port": port, "path": "/a"}})).await;
    let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(failure(http), format!("Get \"http://127.0.0.1:{port}/a\": {refused}"));
    assert_eq!(failure(outcome(json!({"tcpSocket": {"port": port}})).await), refused);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_in_time_is_a_failure() {
    let server = Server::silent().await;
    let message = failure(outcome(http_get(&server, "/")).await);
    assert!(
        message.ends_with("context deadline exceeded (Client.Timeout exceeded while awaiting headers)"),
        "{message}"
    );
}

#[tokio::test]
async fn a_tcp_probe_only_connects() {
    let server = Server::silent().await;
    assert_eq!(outcome(json!({"tcpSocket": {"port": server.port}})).await, Outcome::Success);
}

#[tokio::test]
async fn a_port_may_be_named() {
    let server = Server::silent().await;
    let target = target(json!({"name": "main", "ports": [{"name": "web", "containerPort": server.port}]}));
    let prober = prober(Commands::exit(0));
    let named = |name: &str| probe(json!({"tcpSocket": {"port": name}}));
    assert_eq!(prober.probe(&named("web"), &target, SECOND).await, Ok(Outcome::Success));
    let unknown = prober.probe(&named("admin"), &target, SECOND).await;
    assert_eq!(unknown, Err(ProbeError("port \"admin\" not found".to_owned())));
}

#[tokio::test]
async fn a_grpc_probe_asks_for_health() {
    let grpc = |server: &Server| json!({"grpc": {"port": server.port, "service": "a"}});
    assert_eq!(outcome(grpc(&Server::grpc(Some(1)).await)).await, Outcome::Success);
    let ill = failure(outcome(grpc(&Server::grpc(Some(2)).await)).await);
    assert_eq!(ill, "service unhealthy (responded with \"NOT_SERVING\")");
    let none = failure(outcome(grpc(&Server::grpc(None).await)).await);
    assert!(none.starts_with("error: this server does not implement the grpc health protocol"), "{none}");
}

#[tokio::test(start_paused = true)]
async fn a_grpc_probe_without_a_server_times_out() {
    let port = closed_port().await;
    let message = failure(outcome(json!({"grpc": {"port": port}})).await);
    let expected =
        format!("timeout: failed to connect service \"127.0.0.1:{port}\" within 1s: context deadline exceeded");
    assert_eq!(message, expected);
}

#[tokio::test]
async fn a_command_is_judged_by_its_exit_code() {
    let run = async |commands: Arc<Commands>| {
        let target = target(json!({"name": "main", "env": [{"name": "A", "value": "x"}]}));
        prober(commands).probe(&probe(exec("check-$(A)-$(B)")), &target, SECOND).await
    };
    assert_eq!(run(Commands::exit(0)).await, Ok(Outcome::Success));
    assert_eq!(run(Commands::exit(1)).await, Ok(Outcome::Failure("ran check-x-$(B)".to_owned())));
    let slow = run(Commands::new(|_| Err(ExecError::TimedOut))).await;
    let message = "command timed out: \"check-x-$(B)\" timed out after 1s";
    assert_eq!(slow, Ok(Outcome::Failure(message.to_owned())));
    let broken = run(Commands::new(|_| Err(ExecError::Failed("no such container".to_owned())))).await;
    assert_eq!(broken, Err(ProbeError("no such container".to_owned())));
}
