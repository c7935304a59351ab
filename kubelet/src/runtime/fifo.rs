//! The FIFOs through which containerd's shim passes a process's streams.
//!
//! The shim opens both ends of an output FIFO, so that it never sees a broken pipe when its reader goes away; a reader
//! gets the end of file when the shim closes it, after the process ended.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};

/// How long the shim may take, after a start, to open its end of a stdin FIFO.
const SHIM_OPENS: Duration = Duration::from_secs(5);

/// Makes a FIFO that only root may open.
pub(crate) fn make(path: &Path) -> io::Result<()> {
    rustix::fs::mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR)?;
    Ok(())
}

/// Opens an output FIFO. Nothing may be read before the shim has opened it as well: its end would be seen.
pub(crate) fn output(path: &Path) -> io::Result<Receiver> {
    OpenOptions::new().open_receiver(path)
}

/// Opens a stdin FIFO once the shim reads from it.
pub(crate) async fn input(path: &Path) -> io::Result<Sender> {
    let opened = async {
        let mut pause = Duration::from_millis(1);
        loop {
            match OpenOptions::new().open_sender(path) {
                // Nobody reads yet; the kernel has nothing to await it by.
                Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                outcome => return outcome,
            }
        }
    };
    tokio::time::timeout(SHIM_OPENS, opened).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
