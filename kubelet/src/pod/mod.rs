//! What a pod needs next: decisions without I/O.

pub mod expansion;
pub mod lifecycle;
pub mod observation;
pub mod plan;
pub mod references;
pub mod resize;
pub mod resolve;
pub mod status;
