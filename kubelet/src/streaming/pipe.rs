//! Byte streams made of messages: what a backend reads and writes, and what a connection carries.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::StreamExt;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;
use tokio_util::sync::PollSender;

use super::CHUNK;
use crate::server::{BoxAsyncRead, TerminalSize};

/// Parts of input that may wait for a backend to read them, each no longer than [`CHUNK`] bytes.
const INPUT_QUEUE: usize = 4;

/// A stream that a connection feeds: it ends when the sender is dropped.
pub(crate) fn input() -> (mpsc::Sender<Bytes>, BoxAsyncRead) {
    let (sender, receiver) = mpsc::channel(INPUT_QUEUE);
    let stream = ReceiverStream::new(receiver).map(Ok::<Bytes, io::Error>);
    (sender, Box::pin(StreamReader::new(stream)))
}

/// Hands bytes to a stream of [`input`], in parts, so that what waits is bounded however long the message was. `false` once nobody reads any more.
pub(crate) async fn feed(sender: &mpsc::Sender<Bytes>, mut bytes: Bytes) -> bool {
    while !bytes.is_empty() {
        let part = bytes.split_to(bytes.len().min(CHUNK));
        if sender.send(part).await.is_err() {
            return false;
        }
    }
    true
}

type Wrap<M> = Box<dyn Fn(Bytes) -> M + Send>;

/// A stream that becomes messages of a connection, each no longer than [`CHUNK`] bytes. A write waits while the connection's queue is full.
pub(crate) struct MessageWriter<M> {
    sender: PollSender<M>,
    wrap: Wrap<M>,
    end: Option<M>,
}

impl<M: Send + 'static> MessageWriter<M> {
    /// Sends to `sender` what `wrap` makes of the bytes, and `end` when the stream is shut down.
    pub(crate) fn new(sender: mpsc::Sender<M>, wrap: impl Fn(Bytes) -> M + Send + 'static, end: Option<M>) -> Self {
        Self { sender: PollSender::new(sender), wrap: Box::new(wrap), end }
    }
}

impl<M: Send + Unpin + 'static> AsyncWrite for MessageWriter<M> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.sender.poll_reserve(context)).map_err(|_| gone())?;
        let part = &bytes[..bytes.len().min(CHUNK)];
        let message = (self.wrap)(Bytes::copy_from_slice(part));
        self.sender.send_item(message).map_err(|_| gone())?;
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.end.is_some() {
            ready!(self.sender.poll_reserve(context)).map_err(|_| gone())?;
            if let Some(end) = self.end.take() {
                self.sender.send_item(end).map_err(|_| gone())?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the client is gone")
}

/// Reads terminal sizes out of a stream of JSON objects, `{"Width":80,"Height":24}` one after the other.
#[derive(Debug, Default)]
pub(crate) struct Resizes {
    pending: Vec<u8>,
}

#[derive(serde::Deserialize)]
struct Size {
    #[serde(rename = "Width", alias = "width")]
    width: u16,
    #[serde(rename = "Height", alias = "height")]
    height: u16,
}

impl Resizes {
    /// A size takes far less.
    const LIMIT: usize = 1024;

    /// The last size that is whole once `bytes` are added. What is no size is forgotten.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<TerminalSize> {
        if self.pending.len() + bytes.len() > Self::LIMIT {
            self.pending.clear();
        }
        self.pending.extend_from_slice(&bytes[..bytes.len().min(Self::LIMIT)]);
        let mut last = None;
        let mut sizes = serde_json::Deserializer::from_slice(&self.pending).into_iter::<Size>();
        let consumed = loop {
            match sizes.next() {
                Some(Ok(size)) => last = Some(TerminalSize { width: size.width, height: size.height }),
                Some(Err(error)) if error.is_eof() => break sizes.byte_offset(),
                None | Some(Err(_)) => break self.pending.len(),
            }
        };
        self.pending.drain(..consumed);
        last
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn the_newest_of_several_sizes_counts_and_a_part_waits_for_its_rest() {
        let mut resizes = Resizes::default();
        let size = resizes.feed(br#"{"Width":1,"Height":2}{"Width":3,"Height":4}{"Wid"#);
        assert_eq!(size, Some(TerminalSize { width: 3, height: 4 }));
        assert_eq!(resizes.feed(br#"th":5,"Height":6}"#), Some(TerminalSize { width: 5, height: 6 }));
    }

    #[test]
    fn what_is_no_size_is_forgotten() {
        let mut resizes = Resizes::default();
        assert_eq!(resizes.feed(&[b'{'; 5000]), None);
        assert_eq!(resizes.feed(b"{\"Width\":-1}"), None);
        assert_eq!(resizes.feed(br#"{"Width":1,"Height":2}"#), Some(TerminalSize { width: 1, height: 2 }));
    }

    #[tokio::test]
    async fn a_long_write_becomes_messages_of_bounded_size_and_then_an_end() {
        let (sender, mut receiver) = mpsc::channel(16);
        let mut writer = MessageWriter::new(sender, Some, Some(None));
        writer.write_all(&vec![1; CHUNK * 2 + 1]).await.unwrap();
        writer.shutdown().await.unwrap();
        drop(writer);
        let mut sizes = Vec::new();
        while let Some(message) = receiver.recv().await {
            sizes.push(message.map(|bytes: Bytes| bytes.len()));
        }
        assert_eq!(sizes, [Some(CHUNK), Some(CHUNK), Some(1), None]);
    }
}
