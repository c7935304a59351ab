use async_trait::async_trait;
use serde_json::{Value, json};

use super::*;
use crate::probes::{ExecError, ExecRunner};

/// Ends with this exit code, or never.
struct Command(Option<i32>);

#[async_trait]
impl ExecRunner for Command {
    async fn run(&self, _: &str, command: &[String], _: Option<Duration>) -> Result<ExecOutput, ExecError> {
        match self.0 {
            Some(exit_code) => Ok(ExecOutput { exit_code, output: command.join("+") }),
            None => std::future::pending().await,
        }
    }
}

fn hooks(exit_code: Option<i32>) -> Hooks {
    Hooks::new(Arc::new(Prober::new(Arc::new(Command(exit_code))).expect("a prober")), EventRecorder::none())
}

fn pod(lifecycle: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "u1"},
        "spec": {"containers": [{"name": "main", "lifecycle": lifecycle}]},
    }))
    .expect("pod")
}

fn target(pod: &Pod) -> HookTarget<'_> {
    let container = &pod.spec.as_ref().expect("spec").containers[0];
    HookTarget { pod, container, container_id: "c0", address: None }
}

const GRACE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_container_without_hooks_waits_for_none() {
    let pod = pod(json!({}));
    assert_eq!(hooks(Some(1)).post_start(target(&pod)).await, Ok(()));
    assert_eq!(hooks(Some(1)).pre_stop(target(&pod), GRACE).await, Duration::ZERO);
}

#[tokio::test]
async fn a_post_start_hook_that_fails_says_what_it_did() {
    let pod = pod(json!({"postStart": {"exec": {"command": ["sh", "-c"]}}}));
    assert_eq!(hooks(Some(0)).post_start(target(&pod)).await, Ok(()));
    let error = hooks(Some(3)).post_start(target(&pod)).await.expect_err("a failure");
    assert_eq!(
        error.to_string(),
        "Exec lifecycle hook ([sh -c]) for Container \"main\" in Pod \"p_default(u1)\" failed - error: command 'sh -c' exited with 3: sh+-c, message: \"sh+-c\""
    );
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_takes_its_time_from_the_grace_period() {
    let pod = pod(json!({"preStop": {"sleep": {"seconds": 10}}}));
    assert_eq!(hooks(None).pre_stop(target(&pod), GRACE).await.as_secs(), 10);
    assert_eq!(hooks(None).pre_stop(target(&pod), Duration::from_secs(4)).await, Duration::from_secs(4));
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_is_cut_off_at_the_end_of_the_grace_period() {
    let pod = pod(json!({"preStop": {"exec": {"command": ["sleep", "inf"]}}}));
    assert_eq!(hooks(None).pre_stop(target(&pod), GRACE).await, GRACE);
}

#[tokio::test]
async fn a_hook_that_reaches_nobody_fails() {
    let pod = pod(json!({"postStart": {"httpGet": {"host": "127.0.0.1", "port": 1, "path": "/warm"}}}));
    let error = hooks(None).post_start(target(&pod)).await.expect_err("a failure");
    assert!(error.to_string().starts_with("HTTP lifecycle hook (/warm) for Container \"main\""), "{error}");
}

#[tokio::test]
async fn a_tcp_hook_is_refused() {
    let pod = pod(json!({"postStart": {"tcpSocket": {"port": 80}}}));
    let error = hooks(None).post_start(target(&pod)).await.expect_err("a refusal");
    assert!(matches!(error, HookError::Invalid(_)), "{error}");
}
