//! A log over a WebSocket: each part of it a message, for clients in browsers (upstream: `wsstream.Reader`).
//!
//! Invariant: the kubelet is asked for a plain log; nothing that a client sends after its handshake is read but to see it leave.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::{SinkExt as _, StreamExt as _};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use skep_api::Status;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tracing::debug;

use crate::http::body::{Body, BoxError};

/// How a log's bytes become messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Binary,
    Base64,
}

/// A client's wish for a log by messages.
#[derive(Debug)]
pub(super) struct LogSocket {
    upgrade: OnUpgrade,
    answer: HeaderMap,
    encoding: Encoding,
}

impl LogSocket {
    /// Takes the wish out of a request, which is a plain one then; none when it is one already.
    ///
    /// # Errors
    /// 400 when the handshake is not one, or asks for protocols that are not known here.
    pub(super) fn of(parts: &mut Parts) -> Result<Option<Self>, Status> {
        let says = |name, word: &str| {
            let values = parts.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
        };
        if !says(header::CONNECTION, "upgrade") || !says(header::UPGRADE, "websocket") {
            return Ok(None);
        }
        let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() else {
            return Err(Status::bad_request("the connection can't be upgraded"));
        };
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY);
        let key = key.ok_or_else(|| Status::bad_request("the header Sec-WebSocket-Key is missing"))?;
        let mut answer = HeaderMap::new();
        answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        let accepted = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(Status::internal)?;
        answer.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
        let encoding = choose(&parts.headers, &mut answer)?;
        let names = [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_KEY];
        let names = names.into_iter().chain([header::SEC_WEBSOCKET_PROTOCOL, header::SEC_WEBSOCKET_VERSION]);
        names.chain([header::SEC_WEBSOCKET_EXTENSIONS]).for_each(|name| drop(parts.headers.remove(name)));
        Ok(Some(Self { upgrade, answer, encoding }))
    }

    /// The answer to the client, and what brings `log` to it once it has it.
    pub(super) fn answer(self, log: Body) -> (Response<Body>, impl Future<Output = ()> + Send) {
        let Self { upgrade, answer, encoding } = self;
        let body: Body = Empty::new().map_err(|never| -> BoxError { match never {} }).boxed_unsync();
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *response.headers_mut() = answer;
        let copy = async move {
            if let Err(error) = copy(upgrade, log, encoding).await {
                debug!(%error, "a log's WebSocket ended");
            }
        };
        (response, copy)
    }
}

/// The first of the client's protocols that is known; one who asks for none gets bytes.
fn choose(headers: &HeaderMap, answer: &mut HeaderMap) -> Result<Encoding, Status> {
    let asked = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
    let asked: Vec<&str> = asked.flat_map(|value| value.split(',')).map(str::trim).collect();
    if asked.is_empty() {
        return Ok(Encoding::Binary);
    }
    let known = asked.iter().find_map(|name| match *name {
        "binary.k8s.io" => Some(("binary.k8s.io", Encoding::Binary)),
        "base64.binary.k8s.io" => Some(("base64.binary.k8s.io", Encoding::Base64)),
        _ => None,
    });
    let Some((name, encoding)) = known else {
        return Err(Status::bad_request(format!(
            "requested protocol(s) are not supported: {asked:?}; supports [binary.k8s.io base64.binary.k8s.io]"
        )));
    };
    answer.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    Ok(encoding)
}

async fn copy(upgrade: OnUpgrade, mut log: Body, encoding: Encoding) -> Result<(), BoxError> {
    let io = TokioIo::new(upgrade.await?);
    let (mut client, mut heard) = WebSocketStream::from_raw_socket(io, Role::Server, None).await.split();
    // An empty message tells that the log begins.
    client.send(message(Bytes::new(), encoding)).await?;
    loop {
        tokio::select! {
            frame = log.frame() => match frame {
                None => break,
                Some(frame) => if let Ok(data) = frame?.into_data() {
                    client.send(message(data, encoding)).await?;
                },
            },
            word = heard.next() => match word {
                None | Some(Err(_) | Ok(Message::Close(_))) => break,
                Some(Ok(_)) => {}
            },
        }
    }
    client.close().await?;
    Ok(())
}

fn message(data: Bytes, encoding: Encoding) -> Message {
    match encoding {
        Encoding::Binary => Message::Binary(data),
        Encoding::Base64 => Message::text(STANDARD.encode(data)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(asked: &str) -> Result<(Encoding, String), String> {
        let mut headers = HeaderMap::new();
        if !asked.is_empty() {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(asked).expect("a header"));
        }
        let mut answer = HeaderMap::new();
        let encoding = choose(&headers, &mut answer).map_err(|status| status.message)?;
        let name = answer.get(header::SEC_WEBSOCKET_PROTOCOL).map_or("", |name| name.to_str().unwrap_or_default());
        Ok((encoding, name.to_owned()))
    }

    #[test]
    fn the_first_known_protocol_is_chosen() {
        assert_eq!(chosen(""), Ok((Encoding::Binary, String::new())));
        assert_eq!(
            chosen("a, base64.binary.k8s.io, binary.k8s.io"),
            Ok((Encoding::Base64, "base64.binary.k8s.io".to_owned()))
        );
        assert!(chosen("v5.channel.k8s.io").is_err_and(|message| message.contains("not supported")));
    }
}
