//! An etcd of our own, and the part of its API that a creation takes.
//!
//! Messages are declared by hand after etcd's `api/etcdserverpb/rpc.proto`: only the fields that are used.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// Writers that share a connection.
const SHARED: usize = 64;

/// A running etcd. Dropping it ends it.
pub(crate) struct Etcd {
    process: Child,
    endpoint: String,
    version: String,
}

/// A connection.
#[derive(Clone)]
pub(crate) struct Client(Channel);

#[derive(Clone, PartialEq, prost::Message)]
struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    success: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Compare {
    /// 0: equal.
    #[prost(int32, tag = "1")]
    result: i32,
    /// 2: the revision of the last write.
    #[prost(int32, tag = "2")]
    target: i32,
    #[prost(bytes = "bytes", tag = "3")]
    key: Bytes,
    #[prost(oneof = "TargetUnion", tags = "6")]
    target_union: Option<TargetUnion>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum TargetUnion {
    #[prost(int64, tag = "6")]
    ModRevision(i64),
}

#[derive(Clone, PartialEq, prost::Message)]
struct RequestOp {
    #[prost(oneof = "Request", tags = "2")]
    request: Option<Request>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Request {
    #[prost(message, tag = "2")]
    Put(PutRequest),
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TxnResponse {
    #[prost(bool, tag = "2")]
    succeeded: bool,
}

impl Etcd {
    /// Starts it in a directory, and waits until it answers.
    pub(crate) async fn start(directory: &Path) -> Result<Self> {
        let binary = std::env::var("ETCD").unwrap_or_else(|_| "/usr/bin/etcd".to_owned());
        let said = Command::new(&binary).arg("--version").output().with_context(|| format!("can't run {binary}"))?;
        let version = String::from_utf8_lossy(&said.stdout).lines().next().unwrap_or("etcd").to_owned();
        let (client, peer) = (free_address()?, free_address()?);
        let endpoint = format!("http://{client}");
        let process = Command::new(&binary)
            .arg("--data-dir")
            .arg(directory)
            .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
            .args([
                "--listen-peer-urls",
                &format!("http://{peer}"),
                "--initial-advertise-peer-urls",
                &format!("http://{peer}"),
            ])
            .args(["--initial-cluster", &format!("default=http://{peer}"), "--quota-backend-bytes", "8589934592"])
            .args(["--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("can't start {binary}"))?;
        let etcd = Self { process, endpoint, version };
        let mut attempts = 0;
        loop {
            let answered = async { etcd.client().await?.create("/ready".into(), Bytes::new()).await };
            match answered.await {
                Ok(()) => return Ok(etcd),
                Err(error) if attempts == 200 => return Err(error).context("etcd does not answer"),
                Err(_) => attempts += 1,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// A client for each of a number of writers.
    pub(crate) async fn clients(&self, writers: usize) -> Result<Vec<Client>> {
        let mut clients: Vec<Client> = Vec::with_capacity(writers);
        for writer in 0..writers {
            let client = match clients.last() {
                Some(last) if writer % SHARED != 0 => last.clone(),
                Some(_) | None => self.client().await?,
            };
            clients.push(client);
        }
        Ok(clients)
    }

    async fn client(&self) -> Result<Client> {
        Ok(Client(Endpoint::from_shared(self.endpoint.clone())?.tcp_nodelay(true).connect().await?))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Client {
    /// Creates a key as an API server does: a put, if the key was never written.
    pub(crate) async fn create(&self, key: Bytes, value: Bytes) -> Result<()> {
        let absent =
            Compare { result: 0, target: 2, key: key.clone(), target_union: Some(TargetUnion::ModRevision(0)) };
        let put = RequestOp { request: Some(Request::Put(PutRequest { key, value })) };
        let request = TxnRequest { compare: vec![absent], success: vec![put] };
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready().await?;
        let codec = ProstCodec::<TxnRequest, TxnResponse>::default();
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Txn");
        let response = grpc.unary(tonic::Request::new(request), path, codec).await?;
        ensure!(response.into_inner().succeeded, "the key was there already");
        Ok(())
    }
}

fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
