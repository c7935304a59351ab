//! Streams between a client and a container: exec, attach and port-forward, over WebSocket and SPDY/3.1.
//!
//! A request is first judged by its headers alone ([`negotiate`]); then the connection is upgraded and one of the protocols carries plain byte streams
//! between it and the [`Backend`](crate::server::Backend). Invariant: every queue is bounded, so that a slow side slows the other down (TCP's flow control
//! does the rest); all that a session starts lives in its one future and ends with it.

mod channels;
mod command;
mod idle;
mod negotiate;
mod pipe;
mod port_forward;
mod spdy;
mod spdy_command;
mod spdy_port_forward;
mod tunnel;
mod websocket_command;
mod websocket_port_forward;

use std::time::Duration;

pub(crate) use command::{Command, Kind};
pub(crate) use idle::IdleLimit;
pub(crate) use negotiate::{CommandProtocol, PortForwardProtocol, Refusal, Switch, command_protocol, forward_protocol};
pub(crate) use port_forward::Forward;

/// Bytes of one message or frame that carries output.
const CHUNK: usize = 32 * 1024;

/// Messages that wait to be sent in one session.
const QUEUE: usize = 32;

/// How long a client may take to end its side after the server ended its own. Without the wait, what the client still sends would reset the connection
/// under the last output.
const LINGER: Duration = Duration::from_secs(10);

/// The streams that a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wants {
    /// It sends input.
    pub(crate) stdin: bool,
    /// It takes output.
    pub(crate) stdout: bool,
    /// It takes errors apart from the output.
    pub(crate) stderr: bool,
    /// It has a terminal.
    pub(crate) tty: bool,
}

/// Carries a command over an upgraded connection until either side ends.
pub(crate) async fn serve_command<S>(io: S, protocol: CommandProtocol, wants: Wants, command: Command)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
{
    match protocol {
        CommandProtocol::WebSocket(protocol) => websocket_command::serve(io, protocol, wants, command).await,
        CommandProtocol::Spdy(version) => spdy_command::serve(io, version, wants, command).await,
    }
}

/// Carries forwarded ports over an upgraded connection until the client leaves.
pub(crate) async fn serve_port_forward<S>(io: S, protocol: PortForwardProtocol, ports: Vec<u16>, forward: Forward)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send,
{
    match protocol {
        PortForwardProtocol::WebSocket(encoding) => {
            websocket_port_forward::serve(io, encoding, &ports, &forward).await;
        }
        PortForwardProtocol::Spdy => spdy_port_forward::serve(io, &forward).await,
        PortForwardProtocol::Tunnel => {
            spdy_port_forward::serve(tunnel::Tunnel::new(channels::accept(io).await), &forward).await;
        }
    }
}

/// Conducts a session: `serving` makes messages of which the last says that it is the end, `sending` sends them and returns after that, `receiving` reads
/// what the client sends and returns when it leaves.
async fn conduct(
    serving: impl Future<Output = ()>,
    sending: impl Future<Output = std::io::Result<()>>,
    receiving: impl Future<Output = ()>,
) {
    tokio::pin!(sending, receiving);
    tokio::select! {
        () = serving => {}
        _ = &mut sending => return,
        () = &mut receiving => return,
    }
    // The client may leave as soon as it has the outcome: then there is nobody to say good-bye to.
    tokio::select! {
        sent = &mut sending => if sent.is_err() { return },
        () = &mut receiving => return,
    }
    let _ = tokio::time::timeout(LINGER, receiving).await;
}
