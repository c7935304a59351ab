//! The kubelet's own API on port 10250: logs, exec, attach, port-forward, pods, health and metrics, as upstream's pkg/kubelet/server serves them.
//!
//! A connection is TLS, with or without a client certificate. Each request is authenticated ([`auth`]), authorized, routed by its path alone, and
//! answered by the [`Backend`]; streams are upgraded and handed to the module `streaming`. Invariant: nothing but the TLS handshake happens for a client
//! that is not authenticated, and connections, header sizes and queues are bounded.

pub mod auth;
mod backend;
mod handler;
mod listener;
mod route;
pub mod tls;

pub use auth::{Auth, AuthSettings, Authorization};
pub use backend::{
    AsyncReadWrite, Backend, BoxAsyncRead, BoxAsyncWrite, ContainerRef, Exit, LogError, LogQuery, LogStream, Metrics,
    PodRef, StreamError, Streams, TerminalSize,
};
pub use listener::serve;
