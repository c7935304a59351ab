//! Further processes in a running container.

use std::time::Duration;

use skep_kubelet::runtime::containerd::{RuntimeError, TaskStatus};
use skep_kubelet::runtime::process::{ExecOptions, WindowSize};
use tokio::io::AsyncReadExt;

use crate::private::{Private, eventually, within};

const SLEEP: &str = "exec /bin/busybox sleep 1000";
const MINUTE: Duration = Duration::from_secs(60);

fn shell(script: &str) -> Vec<String> {
    ["/bin/busybox", "sh", "-c", script].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn a_command_runs_with_the_containers_environment_and_gives_output_and_exit_code() {
    let private = Private::start().await;
    private.run("a", SLEEP).await;
    let fifos = private.path("fifos");
    let args = shell("echo $HOME; echo err >&2; exit 7");
    let ran = private.client.run_collect(&fifos, "a", args, 1000, MINUTE).await.expect("run");
    assert_eq!(ran.exit_code, 7);
    let mut lines: Vec<_> = std::str::from_utf8(&ran.output).expect("text").lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["/", "err"]);
    let ran = private.client.run_collect(&fifos, "a", shell("echo 123456"), 4, MINUTE).await.expect("run");
    assert_eq!(ran.output, b"1234");
    within("the processes are cleared away", private.client.drained()).await;
    assert_eq!(std::fs::read_dir(fifos).expect("directory").count(), 0);
    private.end("a").await;
}

#[tokio::test]
async fn what_goes_in_comes_out_whole_and_the_end_of_stdin_is_passed_on() {
    let private = Private::start().await;
    private.run("a", SLEEP).await;
    let args = ["/bin/busybox", "cat"].map(str::to_owned).to_vec();
    let options = ExecOptions { args, stdin: true, ..ExecOptions::default() };
    let exec = private.client.exec(&private.path("fifos"), "a", options).await.expect("exec");
    let input: Vec<u8> = (0..1_000_000u32).map(|number| number as u8).collect();
    let mut output = Vec::new();
    let resizes = futures::stream::pending();
    let code = within("an end", exec.relay(Some(&input[..]), Some(&mut output), None::<tokio::io::Sink>, resizes))
        .await
        .expect("relay");
    assert_eq!(code, 0);
    assert!(output == input, "{} bytes came back", output.len());
    private.end("a").await;
}

#[tokio::test]
async fn a_terminal_has_the_size_that_it_was_given() {
    let private = Private::start().await;
    private.run("a", SLEEP).await;
    let script = "while [ \"$(/bin/busybox stty size 2>/dev/null)\" != '40 100' ]; do :; done; echo sized";
    let options = ExecOptions { args: shell(script), tty: true, stdin: true, ..ExecOptions::default() };
    let exec = private.client.exec(&private.path("fifos"), "a", options).await.expect("exec");
    exec.resize(WindowSize { width: 100, height: 40 }).await.expect("resize");
    let mut output = Vec::new();
    let none = None::<tokio::io::Sink>;
    let stdin = None::<tokio::io::Empty>;
    let code =
        within("an end", exec.relay(stdin, Some(&mut output), none, futures::stream::pending())).await.expect("relay");
    assert_eq!((code, output.as_slice()), (0, &b"sized\r\n"[..]));
    private.end("a").await;
}

#[tokio::test]
async fn a_process_in_the_background_does_not_hold_the_command() {
    let private = Private::start().await;
    private.run("a", SLEEP).await;
    let args = shell("/bin/busybox sleep 1000 & echo done");
    let ran = private.client.run_collect(&private.path("fifos"), "a", args, 1000, MINUTE).await.expect("run");
    assert_eq!((ran.exit_code, ran.output.as_slice()), (0, &b"done\n"[..]));
    private.end("a").await;
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed() {
    let private = Private::start().await;
    private.run("a", SLEEP).await;
    let args = shell("echo $$ > /pid; exec /bin/busybox sleep 1000");
    let timeout = Duration::from_millis(500);
    let error =
        private.client.run_collect(&private.path("fifos"), "a", args, 1000, timeout).await.expect_err("timeout");
    assert!(matches!(error, RuntimeError::TimedOut { .. }), "{error}");
    within("the process is cleared away", private.client.drained()).await;
    assert_eq!(std::fs::read_dir(private.path("fifos")).expect("directory").count(), 0);
    private.end("a").await;
}

#[tokio::test]
async fn a_shell_whose_client_went_away_is_hung_up() {
    let private = Private::start().await;
    private.run("a", SLEEP).await;
    let args = ["/bin/busybox", "sh"].map(str::to_owned).to_vec();
    let options = ExecOptions { args, tty: true, stdin: true, ..ExecOptions::default() };
    let mut exec = private.client.exec(&private.path("fifos"), "a", options).await.expect("exec");
    let mut prompt = [0; 1];
    within("a prompt", exec.stdout.as_mut().expect("stdout").read_exact(&mut prompt)).await.expect("a prompt");
    drop(exec);
    within("the process is cleared away", private.client.drained()).await;
    eventually("its FIFOs are removed", async || {
        std::fs::read_dir(private.path("fifos")).expect("directory").count() == 0
    })
    .await;
    private.end("a").await;
}

#[tokio::test]
async fn a_command_that_is_not_there_fails() {
    let private = Private::start().await;
    private.run("a", SLEEP).await;
    let fifos = private.path("fifos");
    let error = private.client.run_collect(&fifos, "a", vec!["/none".to_owned()], 10, MINUTE).await.expect_err("none");
    assert!(error.to_string().contains("no such file or directory"), "{error}");
    within("the process is cleared away", private.client.drained()).await;
    assert_eq!(std::fs::read_dir(fifos).expect("directory").count(), 0);
    private.end("a").await;
}

/// A probe's time may be over before its command has begun: the shim then opens FIFOs that nobody waits for.
#[tokio::test]
async fn commands_given_up_at_their_start_never_block_the_shim() {
    let private = Private::start().await;
    private.run("a", SLEEP).await;
    let fifos = private.path("fifos");
    for given in (0..60).step_by(4) {
        let command = vec!["/bin/busybox".to_owned(), "true".to_owned()];
        let given = Duration::from_millis(given);
        // Both ends are right: some commands are given up before they begin, some run.
        let _ = private.client.run_collect(&fifos, "a", command, 100, given).await;
    }
    within("the processes are cleared away", private.client.drained()).await;
    let task = private.client.task("a").await.expect("the shim answers").expect("a task");
    assert_eq!(task.status, TaskStatus::Running);
    assert_eq!(std::fs::read_dir(fifos).expect("directory").count(), 0);
    private.end("a").await;
}
