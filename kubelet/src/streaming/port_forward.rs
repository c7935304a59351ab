//! One forwarded connection: bytes between a client's stream and a port of a pod.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::server::{Backend, PodRef};

/// Connections to one pod.
#[derive(Clone)]
pub(crate) struct Forward {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) pod: PodRef,
}

impl Forward {
    /// Connects to `port` and carries bytes both ways until both sides ended, or the pod's side did.
    ///
    /// # Errors
    /// The message for the client's error stream.
    pub(crate) async fn carry(
        &self,
        port: u16,
        mut from_client: impl AsyncRead + Unpin,
        mut to_client: impl AsyncWrite + Unpin,
    ) -> Result<(), String> {
        let describe = |error: &dyn std::fmt::Display| {
            let uid = self.pod.uid.as_deref().unwrap_or_default();
            format!("error forwarding port {port} to pod {}, uid {uid}: {error}", self.pod.pod)
        };
        let connection = self.backend.port_forward(&self.pod, port).await.map_err(|error| describe(&error))?;
        let (mut from_pod, mut to_pod) = tokio::io::split(connection);
        let upload = async {
            tokio::io::copy(&mut from_client, &mut to_pod).await?;
            to_pod.shutdown().await
        };
        let download = async {
            tokio::io::copy(&mut from_pod, &mut to_client).await?;
            to_client.shutdown().await
        };
        tokio::pin!(upload, download);
        // Once the pod has said all it is over, as nobody is left to answer what the client may still send.
        tokio::select! {
            ended = &mut download => ended.map_err(|error| describe(&error)),
            ended = &mut upload => match ended {
                Ok(()) => download.await.map_err(|error| describe(&error)),
                // A pod that reads no more may still have something to say.
                Err(_) => download.await.map_err(|error| describe(&error)),
            },
        }
    }
}
