//! Exec and attach over a WebSocket: `channel.k8s.io` in its versions 1, 4 and 5 (KEP-4006).
//!
//! Channels: 0 input, 1 output, 2 errors, 3 outcome, 4 terminal sizes; 255 is version 5's "this channel is closed".

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::SplitStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;

use super::channels::{self, Encoding, Outgoing};
use super::command::Command;
use super::pipe::{MessageWriter, Resizes, feed, input};
use super::{QUEUE, Wants, conduct};
use crate::server::{BoxAsyncWrite, Streams, TerminalSize};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// Sizes that may wait for a backend.
pub(super) const RESIZES: usize = 16;

/// What the subprotocol's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Protocol {
    /// How messages are written.
    pub(crate) encoding: Encoding,
    /// Whether the outcome is a metav1.Status (from version 4 on).
    pub(crate) status: bool,
    /// Whether the client can close its input alone (from version 5 on).
    pub(crate) close: bool,
}

/// Runs the command until it ends or the client leaves.
pub(crate) async fn serve<S>(io: S, protocol: Protocol, wants: Wants, command: Command)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (sink, stream) = channels::accept(io).await.split();
    let (frames, queue) = mpsc::channel(QUEUE);
    let (stdin, stdin_reader) = wants.stdin.then(input).unzip();
    let (resize, resizes) = mpsc::channel(RESIZES);
    let writer = |wanted: bool, channel: u8| -> Option<BoxAsyncWrite> {
        wanted.then(|| -> BoxAsyncWrite {
            Box::pin(MessageWriter::new(frames.clone(), move |data| Outgoing::Data(channel, data), None))
        })
    };
    let streams = Streams {
        stdin: stdin_reader,
        stdout: writer(wants.stdout, STDOUT),
        stderr: writer(wants.stderr, STDERR),
        resize: resizes,
        tty: wants.tty,
    };
    let running = async {
        // Tells the client that it may start.
        let first = if wants.stdout { STDOUT } else { [ERROR, STDERR][usize::from(wants.stderr)] };
        let _ = frames.send(Outgoing::Data(first, Bytes::new())).await;
        let outcome = command.run(streams).await;
        if let Some(report) = outcome.report(protocol.status) {
            let _ = frames.send(Outgoing::Data(ERROR, report.into())).await;
        }
        let _ = frames.send(Outgoing::End).await;
    };
    let sending = channels::send(sink, queue, protocol.encoding);
    let receiving = receive(stream, protocol, stdin, wants.tty.then_some(resize));
    conduct(running, sending, receiving).await;
}

/// Passes on what the client sends, until the connection ends.
async fn receive<S>(
    mut stream: SplitStream<WebSocketStream<S>>,
    protocol: Protocol,
    mut stdin: Option<mpsc::Sender<Bytes>>,
    resize: Option<mpsc::Sender<TerminalSize>>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut sizes = Resizes::default();
    while let Some((channel, data)) = channels::next(&mut stream, protocol.encoding).await {
        match channel {
            STDIN => {
                if let Some(sender) = &stdin
                    && !feed(sender, data).await
                {
                    // The command reads no more; it may still write.
                    stdin = None;
                }
            }
            RESIZE => {
                if let (Some(resize), Some(size)) = (&resize, sizes.feed(&data)) {
                    // A backend that is behind gets the next one.
                    let _ = resize.try_send(size);
                }
            }
            CLOSE if protocol.close => match *data {
                [STDIN] => stdin = None,
                [STDOUT..=RESIZE] => {}
                _ => return tracing::debug!("a close signal for no channel"),
            },
            _ => tracing::debug!(channel, "a message for no channel"),
        }
    }
}
