//! The WebSocket protocols by themselves, for the clients that are no kubectl: dashboards and libraries.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use skep_tests::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::cluster::Cluster;

type Socket = WebSocketStream<TlsStream<TcpStream>>;

impl Cluster {
    async fn websocket(&self, path: &str, protocol: &str) -> Socket {
        let mut request = format!("wss://kubelet{path}").into_client_request().expect("a request");
        request.headers_mut().insert("sec-websocket-protocol", protocol.parse().expect("a header"));
        let (socket, response) =
            tokio_tungstenite::client_async(request, self.connect(true).await).await.expect("an upgrade");
        assert_eq!(response.headers()["sec-websocket-protocol"], protocol);
        socket
    }
}

/// All data of one channel until the connection's end, of all channels.
async fn drain(socket: &mut Socket) -> [Vec<u8>; 5] {
    let mut channels: [Vec<u8>; 5] = Default::default();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Binary(data) = message {
            channels[usize::from(data[0])].extend_from_slice(&data[1..]);
        }
    }
    channels
}

fn script(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn version_4_carries_the_outcome_as_a_status() {
    let cluster = Cluster::start().await;
    let path = format!(
        "/exec/default/web/main?output=1&error=1&command=sh&command=-c&command={}",
        script("echo out; echo err >&2; exit 7")
    );
    let mut socket = cluster.websocket(&path, "v4.channel.k8s.io").await;
    let [_, output, errors, status, _] = drain(&mut socket).await;
    assert_eq!((output.as_slice(), errors.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "7");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_1_carries_the_outcome_as_text_and_nothing_when_all_is_well() {
    let cluster = Cluster::start().await;
    for (command, expected) in [
        ("true", ""),
        ("false", "command terminated with non-zero exit code: error executing command [false], exit code 1"),
    ] {
        let path = format!("/exec/default/web/some-uid/main?output=1&command={command}");
        let [_, _, _, status, _] = drain(&mut cluster.websocket(&path, "channel.k8s.io").await).await;
        assert_eq!(String::from_utf8(status).unwrap(), expected);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn version_5_ends_the_input_alone() {
    let cluster = Cluster::start().await;
    let mut socket =
        cluster.websocket("/exec/default/web/main?input=1&output=1&command=cat", "v5.channel.k8s.io").await;
    socket.send(Message::Binary(Bytes::from_static(b"\x00hello"))).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.unwrap();
    let [_, output, _, status, _] = drain(&mut socket).await;
    assert_eq!(output, b"hello");
    assert_eq!(serde_json::from_slice::<Value>(&status).unwrap()["status"], "Success");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn base64_goes_both_ways_as_text() {
    let cluster = Cluster::start().await;
    let path = "/exec/default/web/main?input=1&output=1&command=head&command=-c5";
    let mut socket = cluster.websocket(path, "base64.channel.k8s.io").await;
    socket.send(Message::Text("0aGVsbG8gdGhlcmU=".into())).await.unwrap();
    let mut texts = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message {
            texts.push(text.to_string());
        }
    }
    assert_eq!(texts, ["1", "1aGVsbG8="]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarded_port_has_a_channel_for_data_and_one_for_errors() {
    let cluster = Cluster::start().await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let open = listener.local_addr().unwrap().port();
    let closed = {
        let closed = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        closed.local_addr().unwrap().port()
    };
    let pod = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(&request, b"ping");
        stream.write_all(b"pong").await.unwrap();
    });
    let path = format!("/portForward/default/web?port={open}&port={closed}");
    let mut socket = cluster.websocket(&path, "v4.channel.k8s.io").await;
    socket.send(Message::Binary(Bytes::from_static(b"\x00ping"))).await.unwrap();
    let [data, errors, closed_data, closed_errors, _] = drain(&mut socket).await;
    pod.await.unwrap();
    assert_eq!(data, [&open.to_le_bytes()[..], b"pong"].concat());
    assert_eq!(errors, open.to_le_bytes());
    assert_eq!(closed_data, closed.to_le_bytes());
    let message = String::from_utf8_lossy(&closed_errors[2..]).into_owned();
    assert!(message.starts_with(&format!("error forwarding port {closed} to pod web, uid ")), "{message}");
    cluster.stop().await;
}

/// Starts a command that would run for long, and waits until it says its process's number.
async fn sleeper(cluster: &Cluster) -> (Socket, String) {
    let path =
        format!("/exec/default/web/main?output=1&command=sh&command=-c&command={}", script("echo $$; exec sleep 1000"));
    let mut socket = cluster.websocket(&path, "v4.channel.k8s.io").await;
    let mut process = String::new();
    while !process.ends_with('\n') {
        let message = socket.next().await.expect("output").expect("a message");
        process.push_str(std::str::from_utf8(&message.into_data()[1..]).expect("text"));
    }
    (socket, format!("/proc/{}", process.trim()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_ends_when_its_client_leaves() {
    let cluster = Cluster::start().await;
    let (socket, process) = sleeper(&cluster).await;
    drop(socket);
    eventually("the process ends", || async { (!std::path::Path::new(&process).exists()).then_some(()) }).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_its_streams() {
    let cluster = Cluster::start().await;
    let (_socket, process) = sleeper(&cluster).await;
    cluster.stop().await;
    eventually("the process ends", || async { (!std::path::Path::new(&process).exists()).then_some(()) }).await;
}
