//! Every kubectl: to 1.29 they speak SPDY, from 1.30 on exec and attach go over a WebSocket, from 1.31 on port-forward tunnels SPDY
//! through one.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;

use skep_tests::kubectls;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::cluster::{Cluster, NODE, POD};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_has_its_output_its_errors_and_its_exit_status() {
    let cluster = Cluster::start().await;
    for kubectl in kubectls() {
        let script = ["exec", POD, "-c", "main", "--", "sh", "-c", "echo out; echo err >&2; exit 3"];
        let output = cluster.kubectl(&kubectl, &script, "").await;
        assert!(!output.success, "{kubectl:?}");
        assert_eq!(output.stdout, "out\n", "{kubectl:?}");
        assert_eq!(output.stderr, "err\ncommand terminated with exit code 3\n", "{kubectl:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reads_the_clients_input_to_its_end() {
    let cluster = Cluster::start().await;
    let input = "0123456789abcde\n".repeat(100_000);
    for kubectl in kubectls() {
        let count = ["exec", "-i", POD, "-c", "main", "--", "wc", "-c"];
        assert_eq!(cluster.kubectl(&kubectl, &count, &input).await.ok().trim(), "1600000", "{kubectl:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ignores_its_input_still_delivers_all_its_output() {
    let cluster = Cluster::start().await;
    let input = "0123456789abcde\n".repeat(100_000);
    for kubectl in kubectls() {
        let script = ["exec", "-i", POD, "-c", "main", "--", "seq", "1", "300000"];
        let output = cluster.kubectl(&kubectl, &script, &input).await.ok();
        assert_eq!(output.lines().count(), 300_000, "{kubectl:?}");
        assert!(output.ends_with("\n300000\n"), "{kubectl:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_copied_both_ways() {
    let cluster = Cluster::start().await;
    let content: Vec<u8> = (0..1_500_000_u32).map(|number| (number * 7 % 251) as u8).collect();
    let source = cluster.folder.path().join("source");
    std::fs::write(&source, &content).unwrap();
    for (number, kubectl) in kubectls().iter().enumerate() {
        let (inside, back) = (format!("inside-{number}"), cluster.folder.path().join(format!("back-{number}")));
        let into = format!("{POD}:{inside}");
        let from = source.to_str().unwrap();
        cluster.kubectl(kubectl, &["cp", "-c", "main", from, &into], "").await.ok();
        assert!(std::fs::read(cluster.root().join(&inside)).unwrap() == content, "{kubectl:?}");
        cluster.kubectl(kubectl, &["cp", "-c", "main", &into, back.to_str().unwrap()], "").await.ok();
        assert!(std::fs::read(&back).unwrap() == content, "{kubectl:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_the_clients_size() {
    let cluster = Cluster::start().await;
    for kubectl in kubectls() {
        let command = format!(
            "stty rows 33 cols 101; exec timeout 60 {} --kubeconfig {} exec -it {POD} -c main -- report-size",
            kubectl.display(),
            cluster.kubeconfig().display()
        );
        let output = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .expect("script starts");
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(stdout.contains("101x33 tty=true"), "{kubectl:?}: {stdout}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_joins_a_running_container() {
    let cluster = Cluster::start().await;
    for kubectl in kubectls() {
        let output = cluster.kubectl(&kubectl, &["attach", "-i", POD, "-c", "main"], "there\n").await;
        assert!(output.success, "{kubectl:?}: {output:?}");
        assert_eq!(output.stdout, "hello\ngot there\n", "{kubectl:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_not_there_is_named_to_the_client() {
    let cluster = Cluster::start().await;
    for kubectl in kubectls() {
        let stderr = cluster.kubectl(&kubectl, &["exec", POD, "-c", "broken", "--", "true"], "").await.fails();
        assert!(stderr.contains("container not found (\"broken\")"), "{kubectl:?}: {stderr}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_can_not_start_says_why() {
    let cluster = Cluster::start().await;
    for kubectl in kubectls() {
        let stderr = cluster.kubectl(&kubectl, &["exec", POD, "-c", "main", "--", "no-such-binary"], "").await.fails();
        assert!(stderr.contains("error executing command in container: No such file"), "{kubectl:?}: {stderr}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_comes_with_the_options_that_were_asked_for() {
    let cluster = Cluster::start().await;
    for kubectl in kubectls() {
        let arguments = ["logs", POD, "-c", "main", "--tail=5", "--timestamps", "--limit-bytes=1000"];
        let log = cluster.kubectl(&kubectl, &arguments, "").await.ok();
        assert!(log.contains("tail_lines: Some(5)") && log.contains("timestamps: true"), "{kubectl:?}: {log}");
        assert!(log.contains("limit_bytes: Some(1000)") && log.ends_with("second\n"), "{kubectl:?}: {log}");
        let refused = cluster.kubectl(&kubectl, &["logs", "--previous", POD, "-c", "main"], "").await.fails();
        let wanted = format!("previous terminated container \"main\" in pod \"{POD}\" not found");
        assert!(refused.contains(&wanted), "{kubectl:?}: {refused}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_log_comes_as_it_is_written() {
    let cluster = Cluster::start().await;
    for kubectl in kubectls() {
        let mut child = cluster.command(&kubectl).args(["logs", "-f", POD, "-c", "main"]).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        assert!(lines.next_line().await.unwrap().expect("a line").contains("follow: true"), "{kubectl:?}");
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("second"), "{kubectl:?}");
        child.kill().await.unwrap();
    }
    // Logs that are still followed end with the server.
    let mut child = cluster.command(&kubectls()[0]).args(["logs", "-f", POD, "-c", "main"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert!(lines.next_line().await.unwrap().is_some());
    cluster.stop().await;
    child.wait().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_own_pages_are_reached_through_the_api_server() {
    let cluster = Cluster::start().await;
    for kubectl in kubectls() {
        for (page, expected) in [("healthz", "ok"), ("metrics/resource", "up 1\n")] {
            let path = format!("/api/v1/nodes/{NODE}/proxy/{page}");
            assert_eq!(cluster.kubectl(&kubectl, &["get", "--raw", &path], "").await.ok(), expected, "{kubectl:?}");
        }
    }
    cluster.stop().await;
}

/// A `kubectl port-forward` that has said where it listens.
async fn forwarder(cluster: &Cluster, kubectl: &Path, port: u16) -> (tokio::process::Child, u16) {
    let arguments = ["port-forward", POD, &format!(":{port}"), "--address", "127.0.0.1"];
    let mut child = cluster.command(kubectl).args(arguments).spawn().expect("kubectl starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("readable").expect("kubectl says where it listens");
    let local = line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next());
    let local = local.expect("an address").parse().expect("a port");
    // The pipe has to be read for as long as kubectl writes to it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (child, local)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_forwarded_port_reach_the_pod_side_by_side() {
    let cluster = Cluster::start().await;
    // Says back everything until the client has no more, then ends.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let echo = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.into_split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    for kubectl in kubectls() {
        let (mut child, local) = forwarder(&cluster, &kubectl, port).await;
        let talk = |letter: u8| async move {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, local)).await.unwrap();
            let (mut read, mut write) = stream.into_split();
            let sent = vec![letter; 700_000];
            let (received, ()) = tokio::join!(
                async {
                    let mut received = vec![0; sent.len()];
                    read.read_exact(&mut received).await.unwrap();
                    received
                },
                async { write.write_all(&sent).await.unwrap() },
            );
            assert!(received == sent);
        };
        tokio::join!(talk(b'a'), talk(b'b'), talk(b'c'));
        child.kill().await.unwrap();
    }
    echo.abort();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_where_nothing_listens_closes_the_connection_and_is_reported() {
    let cluster = Cluster::start().await;
    let port = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    for kubectl in kubectls() {
        let (mut child, local) = forwarder(&cluster, &kubectl, port).await;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, local)).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        let mut errors = BufReader::new(child.stderr.take().expect("piped")).lines();
        let line = errors.next_line().await.unwrap().expect("kubectl reports");
        let expected = format!("error forwarding port {port} to pod {POD}, uid ");
        assert!(line.contains(&expected) && line.contains("Connection refused"), "{kubectl:?}: {line}");
        child.kill().await.unwrap();
    }
    cluster.stop().await;
}
