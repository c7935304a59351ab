//! The HTTP side: TLS connections in, routing, negotiation, answers out. It knows no kind by name; the REST engine does the work.

pub mod body;
mod compress;
mod handler;
mod health;
mod negotiate;
mod protobuf;
mod respond;
mod route;
mod server;

pub use body::Body;
pub use handler::{Connection, Handler, TrustedUser};
pub use health::Health;
pub(crate) use negotiate::essence;
pub use route::{ResourcePath, Route};
pub use server::{Bound, serve};
