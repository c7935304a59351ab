//! A kubelet without containers.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use skep_kubelet::server::{
    AsyncReadWrite, Backend, BoxAsyncRead, BoxAsyncWrite, ContainerRef, Exit, LogError, LogQuery, Metrics, PodRef,
    StreamError, Streams,
};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::cluster::{POD, read};

/// A kubelet without containers: a command is a process of this machine in a folder of its own, a port is one of this machine's.
pub(crate) struct Processes {
    pub(crate) folder: PathBuf,
}

#[async_trait]
impl Backend for Processes {
    async fn locate(&self, pod: &PodRef, container: Option<&str>) -> Result<(), StreamError> {
        match container {
            _ if pod.pod != POD => Err(StreamError::NotFound("pod does not exist".to_owned())),
            Some("broken") => Err(StreamError::NotFound("container not found (\"broken\")".to_owned())),
            _ => Ok(()),
        }
    }

    async fn exec(&self, _: &ContainerRef, command: Vec<String>, mut streams: Streams) -> Result<Exit, StreamError> {
        if command[0] == "report-size" {
            let size = streams.take_resize().recv().await.expect("a terminal has a size");
            let line = format!("{}x{} tty={}\r\n", size.width, size.height, streams.tty);
            let mut stdout = streams.stdout.expect("a terminal has output");
            stdout.write_all(line.as_bytes()).await.expect("the client reads");
            return Ok(Exit { code: 0 });
        }
        let piped = |wanted: bool| if wanted { Stdio::piped() } else { Stdio::null() };
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .current_dir(&self.folder)
            .stdin(piped(streams.stdin.is_some()))
            .stdout(piped(streams.stdout.is_some()))
            .stderr(piped(streams.stderr.is_some()))
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| StreamError::Internal(error.to_string()))?;
        let stdin = child.stdin.take().map(|pipe| Box::pin(pipe) as BoxAsyncWrite);
        let stdout = child.stdout.take().map(|pipe| Box::pin(pipe) as BoxAsyncRead);
        let stderr = child.stderr.take().map(|pipe| Box::pin(pipe) as BoxAsyncRead);
        streams.carry(stdin, stdout, stderr).await.map_err(|error| StreamError::Internal(error.to_string()))?;
        let status = child.wait().await.expect("the process is ours");
        Ok(Exit { code: status.code().unwrap_or(255).unsigned_abs() })
    }

    /// The container greets, says back one line, and ends.
    async fn attach(&self, _: &ContainerRef, streams: Streams) -> Result<(), StreamError> {
        let mut stdout = streams.stdout.expect("the client takes output");
        stdout.write_all(b"hello\n").await.expect("the client reads");
        if let Some(stdin) = streams.stdin {
            let mut line = String::new();
            BufReader::new(stdin).read_line(&mut line).await.expect("the client sends");
            stdout.write_all(format!("got {line}").as_bytes()).await.expect("the client reads");
        }
        Ok(())
    }

    async fn port_forward(&self, _: &PodRef, port: u16) -> Result<Box<dyn AsyncReadWrite>, StreamError> {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(StreamError::Internal(error.to_string())),
        }
    }

    async fn logs(
        &self,
        of: &ContainerRef,
        query: LogQuery,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, LogError> {
        if query.previous {
            let message = format!("previous terminated container \"{}\" in pod \"{}\" not found", of.container, of.pod);
            return Err(StreamError::BadRequest(message));
        }
        let lines = vec![format!("{query:?}\n"), "second\n".to_owned()];
        let lines = futures::stream::iter(lines).map(|line| Ok(Bytes::from(line)));
        // A container that runs on and says no more.
        Ok(if query.follow { lines.chain(futures::stream::pending()).boxed() } else { lines.boxed() })
    }

    async fn pods(&self) -> Vec<Pod> {
        vec![read(json!({"metadata": {"name": POD}}))]
    }

    async fn running_pods(&self) -> Vec<Pod> {
        Vec::new()
    }

    fn healthy(&self) -> Result<(), String> {
        Ok(())
    }

    async fn stats_summary(&self, _: bool) -> Result<serde_json::Value, StreamError> {
        Err(StreamError::Unsupported("nothing is measured".to_owned()))
    }

    async fn metrics(&self, _: Metrics) -> Result<String, StreamError> {
        Ok("up 1\n".to_owned())
    }
}
