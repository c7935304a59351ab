//! Attaching a client to a running container's own streams (`kubectl attach`, `kubectl run -it`).
//!
//! The output comes from the container's log driver ([`crate::logs::attach`]); the size of a terminal, and the shim's
//! end of stdin, are containerd's. Invariant: with `stdinOnce`, the first client's end of stdin is the container's, also
//! when that client merely goes away.

use std::path::Path;

use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::OwnedWriteHalf;
use tokio::runtime::Handle;

use super::containerd::{Containerd, RuntimeError};
use super::tasks::WindowSize;
use crate::logs::attach::{self, Output};
use crate::logs::writer::Stream as LogStream;

/// How a container was made, as far as its stdin goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachOptions {
    /// `stdinOnce`.
    pub stdin_once: bool,
    /// `tty`.
    pub tty: bool,
}

impl Containerd {
    /// Connects a client with a container's streams until the container's output ends, the client is gone, or its stdin
    /// ends; but the end of stdin closes the container's instead, with `stdinOnce` and no terminal.
    ///
    /// `socket` is its driver's ([`crate::logs::driver::Target::attach`]).
    ///
    /// # Errors
    /// When no driver listens there (the container ended), or its connection breaks.
    #[allow(clippy::too_many_arguments)]
    pub async fn attach(
        &self,
        container: &str,
        socket: &Path,
        options: AttachOptions,
        stdin: Option<impl AsyncRead + Unpin>,
        stdout: Option<impl AsyncWrite + Unpin>,
        stderr: Option<impl AsyncWrite + Unpin>,
        resizes: impl Stream<Item = WindowSize> + Unpin,
    ) -> Result<(), RuntimeError> {
        let io = |source| RuntimeError::Io { doing: "attaching to the container's log driver", source };
        let mut attached = attach::connect(socket, stdin.is_some()).await.map_err(io)?;
        let closes = options.stdin_once && !options.tty;
        let close = (closes && stdin.is_some()).then(|| CloseStdin { containerd: self, container });
        let resizing = resizes.for_each(async |size| {
            if let Err(error) = self.resize(container, size).await {
                tracing::debug!(container, %error, "terminal not resized");
            }
        });
        let beside = async {
            let feeding = async {
                if let (Some(client), Some(stdin)) = (stdin, attached.stdin.take()) {
                    feed(container, client, stdin).await;
                    drop(close);
                    if !closes {
                        return;
                    }
                }
                std::future::pending().await
            };
            tokio::pin!(feeding, resizing);
            tokio::select! {
                () = &mut feeding => (),
                () = &mut resizing => feeding.await,
            }
        };
        tokio::select! {
            passed = pass_on(&mut attached.output, stdout, stderr) => passed.map_err(io),
            _ = beside => Ok(()),
        }
    }
}

/// Closes the shim's end of a container's stdin when a client leaves, in whichever way.
struct CloseStdin<'a> {
    containerd: &'a Containerd,
    container: &'a str,
}

impl Drop for CloseStdin<'_> {
    fn drop(&mut self) {
        // Without a runtime the program itself is at its end.
        let Ok(runtime) = Handle::try_current() else { return };
        let (containerd, container) = (self.containerd.clone(), self.container.to_owned());
        let close = async move {
            if let Err(error) = containerd.close_stdin(&container).await {
                tracing::debug!(container, %error, "stdin not closed");
            }
        };
        self.containerd.abandoned.spawn_on(close, &runtime);
    }
}

/// Copies a client's stdin to the driver; the end of it is the end of the client's to the driver.
async fn feed(container: &str, mut client: impl AsyncRead + Unpin, mut stdin: OwnedWriteHalf) {
    if let Err(error) = tokio::io::copy(&mut client, &mut stdin).await {
        tracing::debug!(container, %error, "stdin ended early");
    }
}

/// Copies the container's output to a client until either ends.
async fn pass_on(
    output: &mut Output,
    mut stdout: Option<impl AsyncWrite + Unpin>,
    mut stderr: Option<impl AsyncWrite + Unpin>,
) -> std::io::Result<()> {
    while let Some((stream, piece)) = output.next().await? {
        let written = match stream {
            LogStream::Stdout => write(stdout.as_mut(), &piece).await,
            LogStream::Stderr => write(stderr.as_mut(), &piece).await,
        };
        if written.is_err() {
            return Ok(());
        }
    }
    end(stdout).await;
    end(stderr).await;
    Ok(())
}

async fn write(client: Option<&mut (impl AsyncWrite + Unpin)>, piece: &[u8]) -> std::io::Result<()> {
    let Some(client) = client else { return Ok(()) };
    client.write_all(piece).await?;
    client.flush().await
}

async fn end(client: Option<impl AsyncWrite + Unpin>) {
    if let Some(mut client) = client {
        // The client may have closed its side first.
        let _ = client.shutdown().await;
    }
}
