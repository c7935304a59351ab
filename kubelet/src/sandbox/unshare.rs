//! The one call that gives a thread namespaces of its own.
//!
//! Invariant: file descriptor tables are never unshared.

use std::io;

use rustix::thread::UnshareFlags;

/// Moves the calling thread into new network, IPC and UTS namespaces, those of `kinds`.
///
/// The thread stays in them: it must belong to the caller and end soon.
pub(super) fn unshare(kinds: UnshareFlags) -> io::Result<()> {
    let allowed = UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    // SAFETY: unsharing is unsound only for the file descriptor table (FILES), which the mask leaves out.
    unsafe { rustix::thread::unshare_unsafe(kinds & allowed) }?;
    Ok(())
}
