//! The API server: HTTP, authentication, authorization, admission, one generic REST engine over declarations of kinds, and the watch cache.
//!
//! Data flow: request → [`http`] (TLS, negotiation) → [`auth`] → [`rest`] (with [`admission`] on writes) → store; store → [`cache`] → reads and watches.
//! Invariant: no code here names a kind but where upstream's behaviour is the kind's own (pods' streams, Services' addresses, namespaces' end).

pub mod admission;
pub mod auth;
pub mod bootstrap;
pub mod cache;
mod custom;
pub mod discovery;
mod flow_objects;
pub mod http;
mod keys;
mod metrics;
mod object;
mod openapi;
pub mod pki;
pub mod proxy;
pub mod registry;
pub mod rest;
mod server;
#[cfg(test)]
mod testing;
mod version;
pub mod webhook_client;

pub use self::http::TrustedUser;
pub use server::{ApiServer, Config};
pub use version::KUBERNETES;
