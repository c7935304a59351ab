//! The runtime against a real containerd and runc, started privately; needs root and busybox-static.

mod private;

mod exec;
mod streams;
mod tasks;
