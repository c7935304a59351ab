//! Container logs in the CRI format, written by a process that lives as long as the container's shim.
//!
//! containerd's shim starts [`driver`] for each container (`binary://` IO) and gives it both ends of the output as
//! pipes. The kubelet is no part of that path, so that its death loses no line and blocks no container.

pub mod driver;
mod inherited_fd;
pub mod writer;
