//! The agent's side of CNI: a unix socket, one request a connection, answered by [`Pods`].

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::wire::{Answer, LONGEST, Request};
use crate::pods::Pods;

/// How many calls are served at once; more wait in the socket's backlog.
const CALLS: usize = 64;
/// How long a caller may take to say its request or to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves `socket` until `stop`; calls that run then are ended first. A socket that an earlier agent left is replaced.
///
/// # Errors
/// When the socket can't be made.
pub async fn run(socket: &Path, pods: Arc<Pods>, stop: CancellationToken) -> io::Result<()> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    info!(socket = %socket.display(), "CNI calls are served");
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = calls.join_next() => {}
            accepted = listener.accept(), if calls.len() < CALLS => match accepted {
                Ok((stream, _)) => {
                    let pods = Arc::clone(&pods);
                    calls.spawn(async move {
                        if let Err(error) = serve(stream, &pods).await {
                            warn!(%error, "a CNI call broke off");
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "a CNI call could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    while calls.join_next().await.is_some() {}
    Ok(())
}

async fn serve(mut stream: UnixStream, pods: &Pods) -> io::Result<()> {
    let body = tokio::time::timeout(PATIENCE, read(&mut stream)).await??;
    let request: Request = serde_json::from_slice(&body)?;
    let answer: Answer = pods.answer(request).await;
    let body = serde_json::to_vec(&answer)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let write = async {
        stream.write_all(&length.to_be_bytes()).await?;
        stream.write_all(&body).await
    };
    tokio::time::timeout(PATIENCE, write).await?
}

async fn read(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the request is too long"));
    }
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await?;
    Ok(body)
}
