//! What protocol a request's headers ask for, and the answer that switches to it. Pure.

use http::{HeaderMap, HeaderName, StatusCode, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::channels::Encoding;
use super::spdy_command::Version;
use super::websocket_command::Protocol;

/// The protocols that a SPDY client offers, and the one chosen.
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// How exec and attach are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CommandProtocol {
    /// Over a WebSocket's channels.
    WebSocket(Protocol),
    /// Over SPDY's streams, in a version of the protocol.
    Spdy(Version),
}

/// How forwarded ports are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortForwardProtocol {
    /// Over a WebSocket's channels, the ports being named by the request.
    WebSocket(Encoding),
    /// Over SPDY's streams.
    Spdy,
    /// Over SPDY's streams, the connection being a WebSocket's binary messages (KEP-4006).
    Tunnel,
}

impl PortForwardProtocol {
    /// Whether the request has to name the ports; else each stream names its own.
    pub(crate) fn names_ports(self) -> bool {
        match self {
            Self::WebSocket(_) => true,
            Self::Spdy | Self::Tunnel => false,
        }
    }
}

/// A protocol, and the headers of the answer that switches to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Switch<P> {
    pub(crate) protocol: P,
    pub(crate) headers: Vec<(&'static str, String)>,
}

/// Why a request can't be upgraded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The protocols that there are, each in a header `X-Accepted-Stream-Protocol-Versions`.
    pub(crate) accepted: Vec<&'static str>,
}

/// A WebSocket's subprotocols for exec and attach. Versions 2 and 3 exist over SPDY only.
const COMMAND_WEBSOCKET: [(&str, Protocol); 6] = [
    ("", Protocol { encoding: Encoding::Binary, status: false, close: false }),
    ("channel.k8s.io", Protocol { encoding: Encoding::Binary, status: false, close: false }),
    ("base64.channel.k8s.io", Protocol { encoding: Encoding::Base64, status: false, close: false }),
    ("v4.channel.k8s.io", Protocol { encoding: Encoding::Binary, status: true, close: false }),
    ("v4.base64.channel.k8s.io", Protocol { encoding: Encoding::Base64, status: true, close: false }),
    ("v5.channel.k8s.io", Protocol { encoding: Encoding::Binary, status: true, close: true }),
];

const COMMAND_SPDY: [(&str, Version); 4] = [
    ("v4.channel.k8s.io", Version::V4),
    ("v3.channel.k8s.io", Version::V3),
    ("v2.channel.k8s.io", Version::V2),
    ("channel.k8s.io", Version::V1),
];

const PORT_FORWARD_SPDY: [(&str, PortForwardProtocol); 1] = [("portforward.k8s.io", PortForwardProtocol::Spdy)];

const PORT_FORWARD_WEBSOCKET: [(&str, PortForwardProtocol); 4] = [
    ("SPDY/3.1+portforward.k8s.io", PortForwardProtocol::Tunnel),
    ("", PortForwardProtocol::WebSocket(Encoding::Binary)),
    ("v4.channel.k8s.io", PortForwardProtocol::WebSocket(Encoding::Binary)),
    ("v4.base64.channel.k8s.io", PortForwardProtocol::WebSocket(Encoding::Base64)),
];

/// The protocol of an exec or attach request.
pub(crate) fn command_protocol(headers: &HeaderMap) -> Result<Switch<CommandProtocol>, Refusal> {
    match upgrade(headers)? {
        Upgrade::WebSocket { key } => {
            let Switch { protocol, headers } = websocket(headers, &key, &COMMAND_WEBSOCKET)?;
            Ok(Switch { protocol: CommandProtocol::WebSocket(protocol), headers })
        }
        Upgrade::Spdy => {
            let Switch { protocol, headers } = spdy(headers, &COMMAND_SPDY)?;
            Ok(Switch { protocol: CommandProtocol::Spdy(protocol), headers })
        }
    }
}

/// The protocol of a port-forward request.
pub(crate) fn forward_protocol(headers: &HeaderMap) -> Result<Switch<PortForwardProtocol>, Refusal> {
    match upgrade(headers)? {
        Upgrade::WebSocket { key } => websocket(headers, &key, &PORT_FORWARD_WEBSOCKET),
        Upgrade::Spdy => spdy(headers, &PORT_FORWARD_SPDY),
    }
}

enum Upgrade {
    WebSocket { key: String },
    Spdy,
}

fn upgrade(headers: &HeaderMap) -> Result<Upgrade, Refusal> {
    let wanted = tokens(headers, header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let protocol = headers.get(header::UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !wanted || protocol.is_empty() {
        return Err(refuse(StatusCode::BAD_REQUEST, "Upgrade request required"));
    }
    if protocol.eq_ignore_ascii_case("websocket") {
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(refuse(StatusCode::BAD_REQUEST, "missing or bad WebSocket Version"));
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()).unwrap_or_default();
        if key.is_empty() {
            return Err(refuse(StatusCode::BAD_REQUEST, "challenge response: missing Sec-WebSocket-Key"));
        }
        return Ok(Upgrade::WebSocket { key: key.to_owned() });
    }
    if protocol.eq_ignore_ascii_case("SPDY/3.1") {
        return Ok(Upgrade::Spdy);
    }
    Err(refuse(StatusCode::BAD_REQUEST, format!("unable to upgrade: upgrade to \"{protocol}\" is not supported")))
}

/// The first of the client's subprotocols that is known (wsstream's handshake).
fn websocket<P: Copy>(headers: &HeaderMap, key: &str, known: &[(&str, P)]) -> Result<Switch<P>, Refusal> {
    let mut offered: Vec<&str> = tokens(headers, header::SEC_WEBSOCKET_PROTOCOL).collect();
    if offered.is_empty() {
        offered.push("");
    }
    let chosen = offered.iter().find_map(|name| known.iter().find(|(known, _)| known == name));
    let Some((name, protocol)) = chosen else {
        let supported: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        return Err(refuse(
            StatusCode::FORBIDDEN,
            format!("requested protocol(s) are not supported: {offered:?}; supports {supported:?}"),
        ));
    };
    let mut answer = vec![
        ("connection", "Upgrade".to_owned()),
        ("upgrade", "websocket".to_owned()),
        ("sec-websocket-accept", derive_accept_key(key.as_bytes())),
    ];
    if !name.is_empty() {
        answer.push(("sec-websocket-protocol", (*name).to_owned()));
    }
    Ok(Switch { protocol: *protocol, headers: answer })
}

/// The first of the client's protocols that is known (httpstream.Handshake).
fn spdy<P: Copy>(headers: &HeaderMap, known: &[(&'static str, P)]) -> Result<Switch<P>, Refusal> {
    let offered: Vec<&str> = tokens(headers, PROTOCOL_VERSION).collect();
    if offered.is_empty() {
        let message = format!(
            "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with {} headers",
            headers.len()
        );
        return Err(refuse(StatusCode::BAD_REQUEST, message));
    }
    let Some((name, protocol)) = offered.iter().find_map(|name| known.iter().find(|(known, _)| known == name)) else {
        let accepted: Vec<&'static str> = known.iter().map(|(name, _)| *name).collect();
        let message = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
            offered.join(" "),
            accepted.join(" ")
        );
        return Err(Refusal { status: StatusCode::FORBIDDEN, message, accepted });
    };
    let headers = vec![
        ("connection", "Upgrade".to_owned()),
        ("upgrade", "SPDY/3.1".to_owned()),
        ("x-stream-protocol-version", (*name).to_owned()),
    ];
    Ok(Switch { protocol: *protocol, headers })
}

/// The comma-separated words of all headers of a name.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

fn refuse(status: StatusCode, message: impl Into<String>) -> Refusal {
    Refusal { status, message: message.into(), accepted: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    fn websocket_headers(protocol: &'static str) -> HeaderMap {
        headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocol),
        ])
    }

    #[test]
    fn the_first_known_subprotocol_of_the_client_is_taken() {
        let switch = command_protocol(&websocket_headers("v9.channel.k8s.io, v5.channel.k8s.io")).unwrap();
        let expected = Protocol { encoding: Encoding::Binary, status: true, close: true };
        assert_eq!(switch.protocol, CommandProtocol::WebSocket(expected));
        assert!(switch.headers.contains(&("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned())));
        assert!(switch.headers.contains(&("sec-websocket-protocol", "v5.channel.k8s.io".to_owned())));
    }

    #[test]
    fn a_tunnelled_port_forward_is_told_from_a_channelled_one() {
        let tunnel = forward_protocol(&websocket_headers("SPDY/3.1+portforward.k8s.io")).unwrap();
        assert_eq!(tunnel.protocol, PortForwardProtocol::Tunnel);
        let channels = forward_protocol(&websocket_headers("v4.channel.k8s.io")).unwrap();
        assert_eq!(channels.protocol, PortForwardProtocol::WebSocket(Encoding::Binary));
    }

    #[test]
    fn a_spdy_client_gets_the_version_it_asks_for_first() {
        let request = headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
        ]);
        assert_eq!(command_protocol(&request).unwrap().protocol, CommandProtocol::Spdy(Version::V4));
    }

    #[test]
    fn unknown_protocols_are_forbidden_and_told_what_there_is() {
        let request = headers(&[
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v9.channel.k8s.io"),
        ]);
        let refusal = forward_protocol(&request).unwrap_err();
        assert_eq!((refusal.status, refusal.accepted), (StatusCode::FORBIDDEN, vec!["portforward.k8s.io"]));
        let refusal = command_protocol(&websocket_headers("chat")).unwrap_err();
        assert_eq!(refusal.status, StatusCode::FORBIDDEN);
    }

    #[test]
    fn a_plain_request_is_told_to_upgrade() {
        let refusal = command_protocol(&HeaderMap::new()).unwrap_err();
        assert_eq!((refusal.status, refusal.message.as_str()), (StatusCode::BAD_REQUEST, "Upgrade request required"));
    }
}
