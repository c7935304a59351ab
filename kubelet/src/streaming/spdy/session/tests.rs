use bytes::{Buf, BufMut};
use tokio::io::{AsyncReadExt, DuplexStream};

use super::super::headers::Deflate;
use super::*;

/// A client that writes frames by hand.
struct Client {
    io: DuplexStream,
    deflate: Deflate,
}

impl Client {
    fn new(io: DuplexStream) -> Self {
        Self { io, deflate: Deflate::new() }
    }

    async fn frame(&mut self, kind: u16, body: &[u8]) {
        let mut bytes = BytesMut::new();
        bytes.put_u16(0x8003);
        bytes.put_u16(kind);
        bytes.put_u32(u32::try_from(body.len()).unwrap());
        bytes.put_slice(body);
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn open(&mut self, stream: u32) {
        let mut body = BytesMut::new();
        body.put_u32(stream);
        body.put_u32(0);
        body.put_u16(0);
        body.put_slice(&self.deflate.write(&[("streamtype", "stdin")]));
        self.frame(1, &body).await;
    }

    async fn data(&mut self, stream: u32, fin: bool, data: &[u8]) {
        let mut bytes = BytesMut::new();
        bytes.put_u32(stream);
        bytes.put_u32(u32::try_from(data.len()).unwrap() | u32::from(fin) << 24);
        bytes.put_slice(data);
        self.io.write_all(&bytes).await.unwrap();
    }

    async fn reset(&mut self, stream: u32) {
        let mut body = BytesMut::new();
        body.put_u32(stream);
        body.put_u32(CANCEL);
        self.frame(3, &body).await;
    }

    /// The next frame: the kind of a control frame or `None` for data, and what is in it.
    async fn next(&mut self) -> (Option<u16>, Vec<u8>) {
        let mut head = [0; 8];
        self.io.read_exact(&mut head).await.unwrap();
        let mut head = &head[..];
        let (first, length) = (head.get_u32(), head.get_u32() & 0x00ff_ffff);
        let mut body = vec![0; length as usize];
        self.io.read_exact(&mut body).await.unwrap();
        ((first & 0x8000_0000 != 0).then_some((first & 0xffff) as u16), body)
    }
}

/// Serves each stream by saying back what comes on it.
async fn echo(mut streams: mpsc::Receiver<NewStream>) {
    while let Some(mut stream) = streams.recv().await {
        stream.outlet.accept().await;
        let mut writer = stream.outlet.writer();
        let _ = tokio::io::copy(&mut stream.input, &mut writer).await;
        let _ = writer.shutdown().await;
    }
}

fn session<F>(serve: impl FnOnce(mpsc::Receiver<NewStream>) -> F + Send + 'static) -> Client
where
    F: Future<Output = ()> + Send + 'static,
{
    let (client, server) = tokio::io::duplex(64 * 1024);
    tokio::spawn(run(server, serve));
    Client::new(client)
}

#[tokio::test]
async fn a_stream_is_answered_before_its_data_and_ended_after_it() {
    let mut client = session(echo);
    client.open(1).await;
    client.data(1, true, b"hello").await;
    assert_eq!(client.next().await.0, Some(2));
    assert_eq!(client.next().await, (None, b"hello".to_vec()));
    assert_eq!(client.next().await, (None, Vec::new()));
}

#[tokio::test]
async fn a_ping_is_answered_with_its_number() {
    let mut client = session(echo);
    client.frame(6, &7_u32.to_be_bytes()).await;
    assert_eq!(client.next().await, (Some(6), vec![0, 0, 0, 7]));
}

#[tokio::test]
async fn a_stream_whose_number_is_not_the_clients_to_take_is_reset() {
    let mut client = session(echo);
    for stream in [2_u32, 0] {
        client.open(stream).await;
        let (kind, body) = client.next().await;
        assert_eq!((kind, &body[..4], body[7]), (Some(3), &stream.to_be_bytes()[..], 1));
    }
    client.open(5).await;
    assert_eq!(client.next().await.0, Some(2));
    client.open(3).await;
    assert_eq!(client.next().await.0, Some(3));
}

#[tokio::test]
async fn a_reset_ends_the_input_and_is_told() {
    let mut client = session(|mut streams| async move {
        let mut stream = streams.recv().await.unwrap();
        stream.outlet.accept().await;
        let mut rest = Vec::new();
        stream.input.read_to_end(&mut rest).await.unwrap();
        stream.reset.cancelled().await;
        let mut writer = stream.outlet.writer();
        writer.write_all(&rest).await.unwrap();
    });
    client.open(1).await;
    client.data(1, false, b"before").await;
    client.reset(1).await;
    client.data(1, false, b"after").await;
    assert_eq!(client.next().await.0, Some(2));
    assert_eq!(client.next().await, (None, b"before".to_vec()));
}

#[tokio::test]
async fn a_session_that_is_served_says_good_bye() {
    let mut client = session(|_| std::future::ready(()));
    assert_eq!(client.next().await.0, Some(7));
    assert_eq!(client.io.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_leaves_ends_what_serves_it() {
    let (ended, wait) = tokio::sync::oneshot::channel::<()>();
    let client = session(|streams| async move {
        let _ended = ended;
        let _streams = streams;
        std::future::pending::<()>().await;
    });
    drop(client);
    // The sender is dropped with the future that holds it.
    assert!(wait.await.is_err());
}

#[tokio::test]
async fn a_reader_that_is_slow_stops_the_client() {
    let mut client = session(|mut streams| async move {
        let _stream = streams.recv().await;
        std::future::pending::<()>().await;
    });
    client.open(1).await;
    let all = vec![0; 4 * 1024 * 1024];
    let sent = std::sync::atomic::AtomicUsize::new(0);
    let send = async {
        for part in all.chunks(CHUNK) {
            client.data(1, false, part).await;
            sent.fetch_add(part.len(), std::sync::atomic::Ordering::Relaxed);
        }
    };
    // Whoever else could run has run when the timer fires under paused time.
    tokio::time::pause();
    assert!(tokio::time::timeout(std::time::Duration::from_secs(1), send).await.is_err());
    assert!(sent.into_inner() < 1024 * 1024);
}
