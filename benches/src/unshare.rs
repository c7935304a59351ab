//! A network namespace of a thread's own: the one unsafe call that makes it.

#![allow(unsafe_code)]

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread into a new network namespace.
pub(crate) fn network() -> io::Result<()> {
    // SAFETY: what is unsafe is a table of file descriptors of the thread's own (`UnshareFlags::FILES`), and that stays shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(Into::into)
}
