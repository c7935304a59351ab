//! The only place that takes over file descriptors which the shim left open for the log driver.
//!
//! Invariant: called once a descriptor, at the start of a process that has opened nothing with these numbers.

use std::fs::File;
use std::os::fd::FromRawFd;

/// The three descriptors of containerd's logging-binary contract (`runtime/v2/logging` upstream).
pub(super) struct Inherited {
    pub(super) stdout: File,
    pub(super) stderr: File,
    /// Closing it tells the shim that the container may start.
    pub(super) ready: File,
}

/// Takes descriptors 3 to 5, or nothing when the process was not started by a shim.
pub(super) fn take() -> Option<Inherited> {
    let open = |number: i32| std::fs::exists(format!("/proc/self/fd/{number}")).unwrap_or(false);
    if !(open(3) && open(4) && open(5)) {
        return None;
    }
    // SAFETY: the descriptors are open (checked above) and, by the shim's contract, this process is their only owner:
    // it calls this first, before anything else could have opened a file.
    let adopt = |number| unsafe { File::from_raw_fd(number) };
    Some(Inherited { stdout: adopt(3), stderr: adopt(4), ready: adopt(5) })
}
