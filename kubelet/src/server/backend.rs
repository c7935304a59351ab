//! What the server asks of the kubelet behind it: containers, their output, and what is known of the node.
//!
//! Invariant: nothing here knows HTTP, WebSocket or SPDY. The server turns every protocol into plain byte streams before it calls, and turns answers
//! back after.

use std::fmt;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

/// Bytes that come from the client.
pub type BoxAsyncRead = Pin<Box<dyn AsyncRead + Send>>;
/// Bytes that go to the client.
pub type BoxAsyncWrite = Pin<Box<dyn AsyncWrite + Send>>;

/// Both directions of one connection, as of a socket.
pub trait AsyncReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> AsyncReadWrite for T {}

/// The pod that a request is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID when the path names one: then a pod of the same name with another UID is not it.
    pub uid: Option<String>,
}

/// The container that a request is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ContainerRef {
    /// The namespace of its pod.
    pub namespace: String,
    /// The name of its pod.
    pub pod: String,
    /// The UID of its pod when the path names one.
    pub uid: Option<String>,
    /// Its name: a container, an init container or an ephemeral container.
    pub container: String,
}

impl ContainerRef {
    /// The pod that it is of.
    #[must_use]
    pub fn pod(&self) -> PodRef {
        PodRef { namespace: self.namespace.clone(), pod: self.pod.clone(), uid: self.uid.clone() }
    }
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// The client's side of a command: what it asked for is there, the rest is `None`.
///
/// `stdin` ends when the client closes it. A writer takes bytes only as fast as the client does. All that is written before the backend's call returns
/// reaches the client before the call's outcome does. When the client goes away the backend's call is dropped.
pub struct Streams {
    /// What the client sends.
    pub stdin: Option<BoxAsyncRead>,
    /// Where the output goes; all of it with a terminal.
    pub stdout: Option<BoxAsyncWrite>,
    /// Where the errors go; never with a terminal.
    pub stderr: Option<BoxAsyncWrite>,
    /// Sizes of the client's terminal as they change; older ones may be skipped. Closed at once without a terminal.
    pub resize: mpsc::Receiver<TerminalSize>,
    /// Whether the command gets a terminal.
    pub tty: bool,
}

impl Streams {
    /// The terminal's sizes, apart from the rest.
    pub fn take_resize(&mut self) -> mpsc::Receiver<TerminalSize> {
        std::mem::replace(&mut self.resize, mpsc::channel(1).1)
    }

    /// Carries bytes between the client and a process until the process's outputs have ended, and all of them is on its way to the client.
    ///
    /// The process's input is closed when the client ends its own, which does not end this: a process may go on after its input. What the client still sends
    /// when the outputs have ended is dropped. An output that the client did not ask for is read and thrown away, so that the process does not block on it.
    ///
    /// # Errors
    /// When the process's outputs can't be read, or the client takes no more.
    pub async fn carry(
        self,
        stdin: Option<BoxAsyncWrite>,
        stdout: Option<BoxAsyncRead>,
        stderr: Option<BoxAsyncRead>,
    ) -> std::io::Result<()> {
        let input = async {
            if let (Some(mut from), Some(mut to)) = (self.stdin, stdin) {
                // A process that reads no more may still write.
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            }
            std::future::pending::<()>().await;
        };
        let outputs = async { tokio::try_join!(output(stdout, self.stdout), output(stderr, self.stderr)) };
        tokio::select! {
            ended = outputs => ended.map(|_| ()),
            () = input => Ok(()),
        }
    }
}

async fn output(from: Option<BoxAsyncRead>, to: Option<BoxAsyncWrite>) -> std::io::Result<()> {
    match (from, to) {
        (Some(mut from), Some(mut to)) => {
            tokio::io::copy(&mut from, &mut to).await?;
            to.flush().await
        }
        (Some(mut from), None) => tokio::io::copy(&mut from, &mut tokio::io::sink()).await.map(|_| ()),
        (None, _) => Ok(()),
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("tty", &self.tty)
            .finish()
    }
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its exit status, 128 + the signal's number when one ended it.
    pub code: u32,
}

/// Why a stream or a log can't be had. The texts are for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// No such pod or container on this node.
    #[error("{0}")]
    NotFound(String),
    /// The request can't be fulfilled as it is, as the log of a container that has not started.
    #[error("{0}")]
    BadRequest(String),
    /// What the kubelet does not do.
    #[error("{0}")]
    Unsupported(String),
    /// The runtime or the system failed.
    #[error("{0}")]
    Internal(String),
}

/// Why a log can't be had.
pub type LogError = StreamError;

/// Which of a container's outputs a log request wants (KEP-3288).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogStream {
    /// Both, in the order written.
    #[default]
    All,
    /// Standard output only.
    Stdout,
    /// Standard error only.
    Stderr,
}

/// What a log request asks for (PodLogOptions).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// Stay and send what is written until the container ends.
    pub follow: bool,
    /// The log of the instance before the current one.
    pub previous: bool,
    /// Put the time before each line, RFC 3339 with nanoseconds.
    pub timestamps: bool,
    /// Only lines not older than this.
    pub since: Option<Timestamp>,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// No more bytes than this.
    pub limit_bytes: Option<u64>,
    /// Which output.
    pub stream: LogStream,
}

/// Which of the metrics pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metrics {
    /// `/metrics`: the kubelet's own.
    Kubelet,
    /// `/metrics/resource`: CPU and memory of node, pods and containers.
    Resource,
    /// `/metrics/cadvisor`: containers in depth.
    Cadvisor,
    /// `/metrics/probes`: results of probes.
    Probes,
}

/// The kubelet as its server sees it.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Whether the pod, and the container if one is named, is here and may be streamed to; asked before a connection is upgraded, so that the client
    /// gets an HTTP status.
    ///
    /// # Errors
    /// [`StreamError::NotFound`] as `pod does not exist` or `container not found ("name")`; [`StreamError::BadRequest`] for one that does not run.
    async fn locate(&self, pod: &PodRef, container: Option<&str>) -> Result<(), StreamError>;

    /// Runs a command in a running container until it ends.
    ///
    /// # Errors
    /// When it can't be started, or its end can't be learned.
    async fn exec(&self, of: &ContainerRef, command: Vec<String>, streams: Streams) -> Result<Exit, StreamError>;

    /// Joins the input and output of a running container until it ends or the client leaves.
    ///
    /// # Errors
    /// When the container takes no clients, or the connection to it breaks.
    async fn attach(&self, of: &ContainerRef, streams: Streams) -> Result<(), StreamError>;

    /// Dials a port of the pod, on its own loopback (in its network namespace).
    ///
    /// # Errors
    /// When nothing answers there.
    async fn port_forward(&self, pod: &PodRef, port: u16) -> Result<Box<dyn AsyncReadWrite>, StreamError>;

    /// The log of a container, newest options applied; the stream ends where the log does, or with the container when followed.
    ///
    /// # Errors
    /// As upstream: a container that waits to start, or has no previous instance, is a [`StreamError::BadRequest`].
    async fn logs(
        &self,
        of: &ContainerRef,
        query: LogQuery,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, LogError>;

    /// The pods bound to this node, with the status last known.
    async fn pods(&self) -> Vec<Pod>;

    /// The pods that run now, as the runtime knows them.
    async fn running_pods(&self) -> Vec<Pod>;

    /// Whether the kubelet's own work goes on.
    ///
    /// # Errors
    /// What does not.
    fn healthy(&self) -> Result<(), String>;

    /// The Summary API (`/stats/summary`, stats.k8s.io v1alpha1) as JSON.
    ///
    /// # Errors
    /// [`StreamError::Unsupported`] where nothing is measured.
    async fn stats_summary(&self, only_cpu_and_memory: bool) -> Result<serde_json::Value, StreamError>;

    /// One metrics page in Prometheus' text format.
    ///
    /// # Errors
    /// [`StreamError::Unsupported`] where nothing is measured.
    async fn metrics(&self, which: Metrics) -> Result<String, StreamError>;
}
