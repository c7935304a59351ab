//! The CNI plugin's two halves: `plugin` runs in the runtime's process, `server` in the agent's, with `wire` between them.
//!
//! ```text
//! runtime ──env, stdin──▶ plugin ──Request, length-prefixed JSON, unix socket──▶ server ──▶ pods
//! ```
//!
//! Invariant: the plugin keeps no state and changes nothing itself; without an agent each call but VERSION fails with CNI's own
//! error form. Source: the CNI specification 1.1.

pub mod plugin;
pub mod server;
pub mod wire;
