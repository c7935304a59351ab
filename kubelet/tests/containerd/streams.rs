//! A container's own streams: attaching to them, and following its log.

use std::io;
use std::path::Path;

use futures::TryStreamExt;
use skep_kubelet::logs::attach;
use skep_kubelet::logs::driver::{Fifos, Target};
use skep_kubelet::logs::reader::{self, LogOptions};
use skep_kubelet::logs::writer::Stream;
use skep_kubelet::runtime::attach::AttachOptions;
use skep_kubelet::runtime::process::WindowSize;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, Empty, Sink};
use tokio::sync::watch;

use crate::private::{Private, eventually, within};

fn with_stdin(private: &Private, id: &str, stdin_once: bool, terminal: bool) -> Target {
    let directory = private.path("run").join(id).join("io");
    Target { fifos: Some(Fifos { directory, stdin_once }), terminal, ..private.target(id) }
}

fn socket(target: &Target) -> &Path {
    target.attach.as_deref().expect("a socket")
}

async fn read_until(client: &mut DuplexStream, end: &str) {
    let mut text = String::new();
    while !text.contains(end) {
        let mut buffer = [0; 256];
        let read = client.read(&mut buffer).await.expect("read");
        assert!(read > 0, "the end came before {end:?}: {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..read]).expect("text"));
    }
}

#[tokio::test]
async fn an_attached_client_sees_both_streams_to_the_containers_end() {
    let private = Private::start().await;
    private.run("a", "while [ ! -e /go ]; do echo tick; /bin/busybox sleep 0.02; done; echo last >&2; echo done").await;
    let target = private.target("a");
    let mut output = attach::connect(socket(&target), false).await.expect("attach").output;
    let (stream, piece) = output.next().await.expect("piece").expect("output");
    assert_eq!((stream, &piece[..5]), (Stream::Stdout, &b"tick\n"[..]));
    let root = private.client.mounts("a").await.expect("mounts")[0].source.clone();
    std::fs::write(Path::new(&root).join("go"), "").expect("go");
    within("an end", private.client.wait("a")).await.expect("wait");
    private.client.reap("a").await.expect("reap");
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some((stream, piece)) = within("output", output.next()).await.expect("piece") {
        match stream {
            Stream::Stdout => stdout.extend_from_slice(&piece),
            Stream::Stderr => stderr.extend_from_slice(&piece),
        }
    }
    assert!(stdout.ends_with(b"done\n"), "{}", stdout.escape_ascii());
    assert_eq!(stderr, b"last\n");
    private.end("a").await;
    assert!(!socket(&target).exists());
}

#[tokio::test]
async fn the_first_clients_end_of_stdin_is_that_of_a_container_with_stdin_once() {
    let private = Private::start().await;
    private.create("a", "exec /bin/busybox cat", false).await;
    let mut target = with_stdin(&private, "a", true, false);
    target.rotation.max_bytes = 1 << 30;
    private.start_with("a", &target).await;
    let input: Vec<u8> = (0..200_000u32).flat_map(|number| [b'0' + (number % 10) as u8, b'\n']).collect();
    let options = AttachOptions { stdin_once: true, tty: false };
    let mut output = Vec::new();
    let none = futures::stream::pending::<WindowSize>();
    let attached =
        private.client.attach("a", socket(&target), options, Some(&input[..]), Some(&mut output), None::<Sink>, none);
    within("an end", attached).await.expect("attach");
    assert!(output == input, "{} bytes came back", output.len());
    assert_eq!(within("an end", private.client.wait("a")).await.expect("wait"), 0);
    private.end("a").await;
    assert_eq!(private.log("a").lines().count(), 200_000);
    eventually("the FIFOs are removed", async || !private.path("run/a/io").exists()).await;
}

#[tokio::test]
async fn clients_come_and_go_at_a_shell_on_a_terminal() {
    let private = Private::start().await;
    private.create("a", "exec /bin/busybox sh", true).await;
    let target = with_stdin(&private, "a", false, true);
    private.start_with("a", &target).await;
    let options = AttachOptions { stdin_once: false, tty: true };
    for (line, answer) in [("echo $((6*7))\n", "\r\n42\r\n"), ("x=7; echo ke''pt\n", "\r\nkept\r\n")] {
        let (client, server) = tokio::io::duplex(4096);
        let (reader, writer) = tokio::io::split(server);
        let (mut client, resizes) = (client, futures::stream::pending::<WindowSize>());
        let attached =
            private.client.attach("a", socket(&target), options, Some(reader), Some(writer), None::<Sink>, resizes);
        let talk = async {
            client.write_all(line.as_bytes()).await.expect("write");
            within("an answer", read_until(&mut client, answer)).await;
        };
        tokio::select! {
            ended = attached => panic!("{ended:?}"),
            () = talk => (),
        }
    }
    let mut attached = attach::connect(socket(&target), true).await.expect("attach");
    attached.stdin.as_mut().expect("stdin").write_all(b"exit $x\n").await.expect("write");
    assert_eq!(within("an end", private.client.wait("a")).await.expect("wait"), 7);
    private.end("a").await;
}

#[tokio::test]
async fn a_terminal_without_stdin_is_logged_by_a_driver_that_ends_with_it() {
    let private = Private::start().await;
    private.create("a", "[ -t 1 ] && echo terminal", true).await;
    let target = Target { terminal: true, ..private.target("a") };
    private.start_with("a", &target).await;
    within("an end", private.client.wait("a")).await.expect("wait");
    private.end("a").await;
    eventually("the driver ends", async || !socket(&target).exists()).await;
    assert!(private.log("a").ends_with(" stdout F terminal\n"), "{}", private.log("a"));
}

#[tokio::test]
async fn a_driver_ends_when_its_container_is_never_started() {
    let private = Private::start().await;
    let target = with_stdin(&private, "a", true, false);
    let launch = target.launch(Path::new(env!("CARGO_BIN_EXE_skep-kubelet"))).await.expect("launch");
    assert!(socket(&target).exists());
    drop(launch);
    eventually("the driver ends", async || !socket(&target).exists() && !private.path("run/a/io").exists()).await;
}

#[tokio::test]
async fn nobody_can_attach_to_an_ended_container() {
    let private = Private::start().await;
    private.run("a", "true").await;
    private.end("a").await;
    let target = private.target("a");
    let error = attach::connect(socket(&target), false).await.expect_err("ended");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    let none = futures::stream::pending::<WindowSize>();
    let options = AttachOptions::default();
    let attached =
        private.client.attach("a", socket(&target), options, None::<Empty>, None::<Sink>, None::<Sink>, none);
    assert!(attached.await.is_err());
}

#[tokio::test]
async fn following_a_log_gives_all_that_a_container_prints_over_rotations() {
    let private = Private::start().await;
    private.create("a", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done", false).await;
    let mut target = private.target("a");
    target.rotation.max_bytes = 100_000;
    target.rotation.max_files = 100;
    private.start_with("a", &target).await;
    let (runs, running) = watch::channel(true);
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let following = tokio::spawn(reader::stream(target.log, options, running).try_collect::<Vec<_>>());
    within("an end", private.client.wait("a")).await.expect("wait");
    drop(runs);
    private.client.reap("a").await.expect("reap");
    let pieces = within("the log's end", following).await.expect("joined").expect("read");
    let expected: String = (0..20_000).map(|number| format!("line {number}\n")).collect();
    let seen = pieces.concat();
    let same = seen.iter().zip(expected.as_bytes()).take_while(|(seen, expected)| seen == expected).count();
    let near = seen[same.saturating_sub(30)..].iter().take(90).copied().collect::<Vec<_>>();
    let lengths = (seen.len(), expected.len());
    assert_eq!(lengths, (same, same), "they differ after {:?}", near.escape_ascii().to_string());
    private.end("a").await;
}
