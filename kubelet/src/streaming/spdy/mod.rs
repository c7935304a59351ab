//! SPDY/3.1, the server's side, as far as Kubernetes uses it: streams that the client opens, with headers that say what each is for.
//!
//! Bytes go through [`frame`] (framing, pure), [`session`] (streams and their ends), and out to what serves the streams. Flow control is TCP's, as in the
//! library of every Kubernetes client: it neither sends window updates nor waits for them, so that a server that waited would hang. A stream whose reader
//! is slow stops the session's reading.

mod dictionary;
mod frame;
mod headers;
mod session;

pub(super) use session::{NewStream, Outlet, run};
