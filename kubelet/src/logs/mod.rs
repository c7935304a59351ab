//! Container logs in the CRI format, written by a process that lives as long as the container.
//!
//! containerd's shim starts [`driver`] for each container (`binary://` IO) and gives it the output as pipes; for a
//! container that reads its stdin, [`launch`] starts it, over FIFOs. The kubelet is no part of either path, so that its
//! death loses no line and blocks no container. [`reader`] reads the files back for `kubectl logs`; [`attach`] is the
//! way to a driver's live streams.

pub mod attach;
mod clients;
pub mod driver;
mod format;
mod inherited_fd;
pub mod launch;
mod lines;
pub mod reader;
mod tail;
pub mod writer;
