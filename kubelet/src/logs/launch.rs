//! Where a container's streams go: what to give containerd, with a driver started beforehand when the container reads
//! its stdin, which a shim-started one can't feed.
//!
//! Invariant: a started driver outlives the kubelet, and doesn't outlive a container that was never made.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{ChildStdin, Command};

use super::driver::Target;
use crate::runtime::fifo;
use crate::runtime::tasks::TaskIo;

/// What a driver writes to its stdout once the shim may open the FIFOs.
pub(super) const READY: &[u8] = b"ready\n";
const STARTS: Duration = Duration::from_secs(10);

/// A container's streams, prepared. Keep it until the task was started or that has failed: a driver whose FIFOs nobody
/// has opened by then ends.
#[derive(Debug)]
pub struct Launch {
    /// For [`crate::runtime::containerd::Containerd::start`].
    pub io: TaskIo,
    _driver: Option<ChildStdin>,
}

impl Target {
    /// Prepares a container's streams; `kubelet_binary` is this program, at a path that containerd sees as well.
    ///
    /// # Errors
    /// When the FIFOs can't be made, or the driver doesn't start.
    pub async fn launch(&self, kubelet_binary: &Path) -> io::Result<Launch> {
        let Some(fifos) = &self.fifos else {
            let stdout = self.io_uri(kubelet_binary);
            let stderr = if self.terminal { String::new() } else { stdout.clone() };
            return Ok(Launch { io: TaskIo { stdin: None, stdout, stderr, terminal: self.terminal }, _driver: None });
        };
        // What an earlier, failed start left has no reader.
        if let Err(error) = std::fs::remove_dir_all(&fifos.directory)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        std::fs::create_dir_all(&fifos.directory)?;
        fifo::make(&fifos.stdin())?;
        fifo::make(&fifos.stdout())?;
        let mut stderr = String::new();
        if !self.terminal {
            fifo::make(&fifos.stderr())?;
            stderr = fifos.stderr().display().to_string();
        }
        let driver = self.start_driver(kubelet_binary).await?;
        let stdout = fifos.stdout().display().to_string();
        let io = TaskIo { stdin: Some(fifos.stdin()), stdout, stderr, terminal: self.terminal };
        Ok(Launch { io, _driver: Some(driver) })
    }

    async fn start_driver(&self, kubelet_binary: &Path) -> io::Result<ChildStdin> {
        let mut child = Command::new(kubelet_binary)
            .arg("log-driver")
            .arg(self.argument())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(mut stdout), Some(mut stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("the log driver has no pipes"));
        };
        let mut ready = [0; READY.len()];
        if tokio::time::timeout(STARTS, stdout.read_exact(&mut ready)).await.is_ok_and(|read| read.is_ok()) {
            return Ok(stdin);
        }
        child.start_kill()?;
        let mut reason = String::new();
        // Its words are only a help; without them, that it failed is said all the same.
        let _ = (&mut stderr).take(4096).read_to_string(&mut reason).await;
        child.wait().await?;
        Err(io::Error::other(format!("the log driver didn't start: {}", reason.trim())))
    }
}
