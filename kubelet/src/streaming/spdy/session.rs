//! The streams of one SPDY session: opened by the client, ended by either side, and gone when both sides ended.

use std::collections::HashMap;
use std::io;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::mpsc;
use tokio_util::codec::FramedRead;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::frame::{CANCEL, FrameDecoder, FrameEncoder, Incoming, Outgoing, PROTOCOL_ERROR, REFUSED_STREAM};
use super::headers::Headers;
use crate::server::BoxAsyncRead;
use crate::streaming::pipe::{MessageWriter, feed, input};
use crate::streaming::{CHUNK, QUEUE, conduct};

/// Streams that may be open at a time.
const STREAMS: usize = 1024;

/// New streams that wait to be served.
const NEW: usize = 16;

/// Bytes that are gathered before they are written.
const WRITE: usize = 2 * CHUNK;

/// A stream that the client opened and that waits to be accepted.
pub(crate) struct NewStream {
    headers: Headers,
    /// What the client sends on it; ends when the client ends its side, resets the stream, or leaves.
    pub(crate) input: BoxAsyncRead,
    /// Cancelled when the client resets the stream.
    pub(crate) reset: CancellationToken,
    /// Our side of it.
    pub(crate) outlet: Outlet,
}

impl NewStream {
    /// A header by its name in lower case; the first value of several.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known == name)?;
        value.split('\0').next()
    }
}

/// Our side of a stream.
#[derive(Clone)]
pub(crate) struct Outlet {
    /// The stream's number.
    pub(crate) id: u32,
    outgoing: mpsc::Sender<Outgoing>,
}

impl Outlet {
    /// Tells the client that it may go on: before this, clients throw away what is sent.
    pub(crate) async fn accept(&self) {
        let _ = self.outgoing.send(Outgoing::Reply(self.id)).await;
    }

    /// Tells the client that the stream is not wanted.
    pub(crate) async fn refuse(&self) {
        let _ = self.outgoing.send(Outgoing::Reset(self.id, REFUSED_STREAM)).await;
    }

    /// A writer whose shutting down ends our side.
    pub(crate) fn writer(&self) -> MessageWriter<Outgoing> {
        let id = self.id;
        MessageWriter::new(self.outgoing.clone(), move |data| Outgoing::Data(id, data), Some(Outgoing::Fin(id)))
    }

    /// A writer that leaves the end to [`Self::finish`].
    pub(crate) fn open_writer(&self) -> MessageWriter<Outgoing> {
        let id = self.id;
        MessageWriter::new(self.outgoing.clone(), move |data| Outgoing::Data(id, data), None)
    }

    /// Ends our side: nothing follows.
    pub(crate) async fn finish(&self) {
        let _ = self.outgoing.send(Outgoing::Fin(self.id)).await;
    }

    /// Ends both sides at once.
    pub(crate) async fn cancel(&self) {
        let _ = self.outgoing.send(Outgoing::Reset(self.id, CANCEL)).await;
    }
}

/// Serves the streams of a connection with `serve`, until that ends or the client leaves.
pub(crate) async fn run<S, F>(io: S, serve: impl FnOnce(mpsc::Receiver<NewStream>) -> F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    F: Future<Output = ()>,
{
    let (read, write) = tokio::io::split(io);
    let (outgoing, queue) = mpsc::channel(QUEUE);
    let (new, streams) = mpsc::channel(NEW);
    let serving = async {
        serve(streams).await;
        let _ = outgoing.send(Outgoing::GoAway(0)).await;
        let _ = outgoing.send(Outgoing::End).await;
    };
    let receiving = receive(read, outgoing.clone(), new);
    conduct(serving, send(write, queue), receiving).await;
}

/// A stream as the reader knows it.
struct Entry {
    /// Where its data goes; `None` once nobody reads or the client ended its side.
    input: Option<mpsc::Sender<Bytes>>,
    reset: CancellationToken,
}

async fn receive<R>(read: R, outgoing: mpsc::Sender<Outgoing>, new: mpsc::Sender<NewStream>)
where
    R: AsyncRead + Unpin,
{
    let mut frames = FramedRead::with_capacity(read, FrameDecoder::new(), CHUNK);
    let mut streams: HashMap<u32, Entry> = HashMap::new();
    let mut last = 0;
    while let Some(frame) = frames.next().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => return debug!(%error, "a SPDY session ended"),
        };
        match frame {
            Incoming::Open { stream, fin, headers } => {
                // A client's streams are odd and count upwards.
                if stream <= last || stream % 2 == 0 {
                    let _ = outgoing.send(Outgoing::Reset(stream, PROTOCOL_ERROR)).await;
                    continue;
                }
                last = stream;
                if streams.len() >= STREAMS {
                    let _ = outgoing.send(Outgoing::Reset(stream, REFUSED_STREAM)).await;
                    continue;
                }
                let (sender, reader) = input();
                let reset = CancellationToken::new();
                let outlet = Outlet { id: stream, outgoing: outgoing.clone() };
                let new_stream = NewStream { headers, input: reader, reset: reset.clone(), outlet };
                if !fin {
                    streams.insert(stream, Entry { input: Some(sender), reset });
                }
                // Once nobody serves streams, the session is about to end.
                let _ = new.send(new_stream).await;
            }
            Incoming::Data { stream, fin, data } => {
                let Some(entry) = streams.get_mut(&stream) else { continue };
                if let Some(sender) = &entry.input
                    && !feed(sender, data).await
                {
                    entry.input = None;
                }
                if fin {
                    finish(&mut streams, stream);
                }
            }
            Incoming::Fin { stream } => finish(&mut streams, stream),
            Incoming::Reset { stream } => {
                if let Some(entry) = streams.remove(&stream) {
                    entry.reset.cancel();
                }
            }
            // Even numbers are answers to pings of ours, of which there are none.
            Incoming::Ping { id } if id % 2 == 1 => {
                let _ = outgoing.send(Outgoing::Pong(id)).await;
            }
            Incoming::Ping { .. } | Incoming::GoAway | Incoming::Ignored => {}
        }
    }
}

/// The client ended its side: the reader gets its end, and only a reset may follow.
fn finish(streams: &mut HashMap<u32, Entry>, stream: u32) {
    if let Some(entry) = streams.get_mut(&stream) {
        entry.input = None;
        if entry.reset.is_cancelled() {
            streams.remove(&stream);
        }
    }
}

async fn send<W>(mut write: WriteHalf<W>, mut queue: mpsc::Receiver<Outgoing>) -> io::Result<()>
where
    W: AsyncWrite + Unpin,
{
    let (mut encoder, mut buffer) = (FrameEncoder::new(), BytesMut::with_capacity(WRITE));
    while let Some(mut frame) = queue.recv().await {
        // Frames that wait together leave together.
        let end = loop {
            if matches!(frame, Outgoing::End) {
                break true;
            }
            encoder.encode(&frame, &mut buffer);
            match queue.try_recv() {
                Ok(next) if buffer.len() < WRITE => frame = next,
                Ok(next) => {
                    write.write_all(&buffer).await?;
                    buffer.clear();
                    frame = next;
                }
                Err(_) => break false,
            }
        };
        write.write_all(&buffer).await?;
        buffer.clear();
        write.flush().await?;
        if end {
            return write.shutdown().await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
