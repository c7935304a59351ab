//! A container's streams: where they go when it starts, and how clients read and join them later.
//!
//! Invariant: the log and the socket for attaching belong to the container's log driver, and outlive this kubelet.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Container;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

use super::node::Node;
use crate::logs::driver::{Fifos, Target};
use crate::logs::reader::{self, LogOptions};
use crate::logs::{attach, writer};
use crate::runtime::process::WindowSize;
use crate::server::{LogError, LogQuery, LogStream, StreamError, Streams};

/// How much of a container's id names its socket: a socket's path has little room.
const NAME_LENGTH: usize = 24;

impl Node {
    /// Where the streams of a container's run go.
    pub(super) fn target(&self, container: &Container, id: &str, log: &Path) -> Target {
        let terminal = container.tty == Some(true);
        let reads = container.stdin == Some(true);
        let fifos = reads.then(|| Fifos {
            directory: self.run.join("stdio").join(short(id)),
            stdin_once: container.stdin_once == Some(true),
        });
        Target { log: log.to_owned(), rotation: self.rotation, terminal, attach: Some(self.attach_socket(id)), fifos }
    }

    fn attach_socket(&self, id: &str) -> PathBuf {
        self.run.join("attach").join(short(id))
    }

    /// Joins a client's streams with a running container's until it ends or the client leaves.
    pub(super) async fn join(&self, id: &str, mut streams: Streams) -> Result<(), StreamError> {
        let internal = |error: std::io::Error| StreamError::Internal(error.to_string());
        let attached = attach::connect(&self.attach_socket(id), streams.stdin.is_some()).await.map_err(internal)?;
        let attach::Attached { stdin: to_container, mut output } = attached;
        let input = async {
            if let (Some(mut from), Some(mut to)) = (streams.stdin.take(), to_container) {
                // The end of either is the end of the input; the output tells the rest.
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            }
        };
        let resizing = async {
            while let Some(size) = streams.resize.recv().await {
                let size = WindowSize { width: size.width, height: size.height };
                if let Err(error) = self.containerd.resize(id, size).await {
                    tracing::debug!(container = id, %error, "terminal not resized");
                }
            }
        };
        let (mut stdout, mut stderr) = (streams.stdout.take(), streams.stderr.take());
        let passing = async {
            while let Some((stream, piece)) = output.next().await? {
                let to = if stream == writer::Stream::Stdout { &mut stdout } else { &mut stderr };
                if let Some(to) = to {
                    to.write_all(&piece).await?;
                    to.flush().await?;
                }
            }
            Ok(())
        };
        let beside = futures::future::join(input, resizing);
        tokio::pin!(passing, beside);
        tokio::select! {
            done = &mut passing => done.map_err(internal),
            _ = &mut beside => passing.await.map_err(internal),
        }
    }

    /// The log at `path` of a container that runs, or has ended.
    pub(super) fn log(
        &self,
        path: PathBuf,
        query: &LogQuery,
        runs: Option<&str>,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, LogError> {
        let options = LogOptions {
            follow: query.follow,
            tail_lines: query.tail_lines,
            since: query.since,
            timestamps: query.timestamps,
            limit_bytes: query.limit_bytes,
            stream: match query.stream {
                LogStream::All => None,
                LogStream::Stdout => Some(writer::Stream::Stdout),
                LogStream::Stderr => Some(writer::Stream::Stderr),
            },
        };
        let (sender, running) = watch::channel(runs.is_some());
        if let Some(id) = runs.filter(|_| query.follow) {
            let (containerd, id) = (self.containerd.clone(), id.to_owned());
            self.followers.spawn(async move {
                tokio::select! {
                    _ = containerd.wait(&id) => drop(sender.send(false)),
                    () = sender.closed() => {}
                }
            });
        }
        Ok(reader::stream(path, options, running).boxed())
    }
}

fn short(id: &str) -> &str {
    id.get(..NAME_LENGTH).unwrap_or(id)
}
