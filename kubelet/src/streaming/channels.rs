//! WebSocket messages that carry numbered channels: the first byte is the channel's number, the rest its data (`channel.k8s.io`).

use std::io;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};

/// The longest message taken, as the library of upstream's server has it.
const MESSAGE_LIMIT: usize = 32 << 20;

/// How a message's data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As it is, in binary messages.
    Binary,
    /// In base64, in text messages; the channel is a digit.
    Base64,
}

/// What is to be sent.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Data of a channel.
    Data(u8, Bytes),
    /// No more: close the connection.
    End,
}

/// A WebSocket over an upgraded connection, the server's side.
pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(io: S) -> WebSocketStream<S> {
    let mut config = WebSocketConfig::default();
    config.max_message_size = Some(MESSAGE_LIMIT);
    config.max_frame_size = Some(MESSAGE_LIMIT);
    config.read_buffer_size = 32 * 1024;
    config.write_buffer_size = 64 * 1024;
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

impl Encoding {
    fn message(self, channel: u8, data: &[u8]) -> Message {
        match self {
            Self::Binary => {
                let mut message = BytesMut::with_capacity(data.len() + 1);
                message.extend_from_slice(&[channel]);
                message.extend_from_slice(data);
                Message::Binary(message.freeze())
            }
            Self::Base64 => {
                let mut message = String::with_capacity(data.len() / 3 * 4 + 5);
                message.push(char::from(b'0'.wrapping_add(channel) & 0x7f));
                BASE64_STANDARD.encode_string(data, &mut message);
                Message::Text(message.into())
            }
        }
    }

    /// The channel and the data of a message; `None` when it is empty or its base64 is broken.
    fn parse(self, mut message: Bytes) -> Option<(u8, Bytes)> {
        if message.is_empty() {
            return None;
        }
        let channel = message.split_to(1)[0];
        match self {
            Self::Binary => Some((channel, message)),
            Self::Base64 => {
                let data = BASE64_STANDARD.decode(&message).ok()?;
                Some((channel.wrapping_sub(b'0'), data.into()))
            }
        }
    }
}

/// The next message that carries anything; `None` at the end of the connection, orderly or not.
pub(crate) async fn next<S>(stream: &mut SplitStream<WebSocketStream<S>>, encoding: Encoding) -> Option<(u8, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let data = match stream.next().await? {
            Ok(Message::Binary(data)) => data,
            Ok(Message::Text(text)) => Bytes::from(text),
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
            // The answer to a close is sent while reading on; then the stream ends.
            Ok(Message::Close(_)) => continue,
            Err(error) => {
                tracing::debug!(%error, "a WebSocket ended");
                return None;
            }
        };
        if let Some(message) = encoding.parse(data) {
            return Some(message);
        }
    }
}

/// Sends what is queued until the end, then says good-bye. Messages that wait together leave together.
///
/// # Errors
/// When the connection is gone.
pub(crate) async fn send<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut queue: mpsc::Receiver<Outgoing>,
    encoding: Encoding,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let broken = |error: Error| io::Error::new(io::ErrorKind::BrokenPipe, error);
    while let Some(mut outgoing) = queue.recv().await {
        loop {
            match outgoing {
                Outgoing::Data(channel, data) => {
                    sink.feed(encoding.message(channel, &data)).await.map_err(broken)?;
                }
                Outgoing::End => {
                    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                    sink.send(Message::Close(Some(frame))).await.map_err(broken)?;
                    return sink.flush().await.map_err(broken);
                }
            }
            match queue.try_recv() {
                Ok(next) => outgoing = next,
                Err(_) => break,
            }
        }
        sink.flush().await.map_err(broken)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_message_says_back_what_it_was_made_of(channel in 0_u8..5, data: Vec<u8>) {
            for encoding in [Encoding::Binary, Encoding::Base64] {
                let message = encoding.message(channel, &data);
                let parsed = encoding.parse(message.into_data());
                prop_assert_eq!(parsed, Some((channel, Bytes::from(data.clone()))));
            }
        }

        #[test]
        fn no_message_is_too_odd_to_be_read(data: Vec<u8>) {
            for encoding in [Encoding::Binary, Encoding::Base64] {
                let _ = encoding.parse(Bytes::from(data.clone()));
            }
        }
    }
}
