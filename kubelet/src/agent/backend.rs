//! The kubelet's API from what the workers see: logs, exec, attach, port-forward and the list of pods.
//!
//! Invariant: it only reads what workers show; nothing that a client does here changes what a worker plans.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use super::node::Node;
use super::registry::View;
use crate::pod::observation::{ContainerObservation, ContainerState};
use crate::runtime::process::{ExecOptions, WindowSize};
use crate::server::tls::{CertificateFiles, self_signed, server_config};
use crate::server::{
    AsyncReadWrite, Auth, AuthSettings, Backend, ContainerRef, Exit, LogError, LogQuery, Metrics, PodRef, StreamError,
    Streams, TerminalSize,
};

/// Serves until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    node: Arc<Node>,
    config: Config,
    stop: CancellationToken,
) -> Result<()> {
    let files = match (config.tls_cert_file, config.tls_private_key_file) {
        (Some(certificate), Some(key)) => CertificateFiles { certificate, key },
        _ => self_signed(&config.root_dir.join("pki"), &node.name, &node.addresses, Timestamp::now())?,
    };
    let (tls, reload) = server_config(files, config.client_ca_file)?;
    let auth = Auth::webhook(&node.name, node.client.clone(), AuthSettings::default());
    let served = crate::server::serve(listener, tls, node, auth, stop.clone());
    tokio::join!(served, reload.run(stop));
    Ok(())
}

impl Node {
    fn view(&self, pod: &PodRef) -> Result<Arc<View>, StreamError> {
        let found = self.pods.find(&pod.namespace, &pod.pod, pod.uid.as_deref());
        found.ok_or_else(|| StreamError::NotFound("pod does not exist".to_owned()))
    }

    fn running(&self, of: &ContainerRef) -> Result<String, StreamError> {
        let view = self.view(&of.pod())?;
        let seen = container(&view, &of.container)?;
        match seen.map(|seen| (&seen.state, &seen.id)) {
            Some((ContainerState::Running { .. }, id)) => Ok(id.clone()),
            // Upstream's runtime looks among running containers only.
            Some((ContainerState::Ended(_), _)) | None => {
                Err(StreamError::NotFound(format!("container not found ({:?})", of.container)))
            }
        }
    }

    /// Where processes of exec have their FIFOs.
    pub(super) fn fifos(&self) -> PathBuf {
        self.run.join("exec")
    }
}

/// What was seen of a container; an error when the pod has none of that name.
fn container<'a>(view: &'a View, name: &str) -> Result<Option<&'a ContainerObservation>, StreamError> {
    let spec = view.pod.spec.as_ref();
    if !spec.is_some_and(|spec| super::worker::has_container(spec, name)) {
        return Err(StreamError::NotFound(format!("container not found ({name:?})")));
    }
    Ok(view.seen.containers.get(name))
}

#[async_trait]
impl Backend for Node {
    async fn locate(&self, pod: &PodRef, container: Option<&str>) -> Result<(), StreamError> {
        let view = self.view(pod)?;
        match container {
            Some(name) => {
                let of = ContainerRef {
                    namespace: pod.namespace.clone(),
                    pod: pod.pod.clone(),
                    uid: pod.uid.clone(),
                    container: name.to_owned(),
                };
                self.running(&of).map(drop)
            }
            None if view.seen.sandbox => Ok(()),
            None => Err(StreamError::BadRequest("the pod has no network now".to_owned())),
        }
    }

    async fn exec(&self, of: &ContainerRef, command: Vec<String>, streams: Streams) -> Result<Exit, StreamError> {
        let id = self.running(of)?;
        let options = ExecOptions {
            args: command,
            tty: streams.tty,
            stdin: streams.stdin.is_some(),
            env: Vec::new(),
            kill_on_drop: false,
        };
        let internal = |error: crate::runtime::containerd::RuntimeError| StreamError::Internal(error.to_string());
        let exec = self.containerd.exec(&self.fifos(), &id, options).await.map_err(internal)?;
        let sizes = ReceiverStream::new(streams.resize).map(window);
        let code = exec.relay(streams.stdin, streams.stdout, streams.stderr, sizes).await.map_err(internal)?;
        Ok(Exit { code })
    }

    async fn attach(&self, of: &ContainerRef, streams: Streams) -> Result<(), StreamError> {
        let id = self.running(of)?;
        self.join(&id, streams).await
    }

    async fn port_forward(&self, pod: &PodRef, port: u16) -> Result<Box<dyn AsyncReadWrite>, StreamError> {
        let view = self.view(pod)?;
        let uid = view.pod.metadata.uid.clone().unwrap_or_default();
        let sandbox = self.sandboxes.find(&uid).await.map_err(|error| StreamError::Internal(error.to_string()))?;
        let sandbox = sandbox.ok_or_else(|| StreamError::NotFound("the pod has no network now".to_owned()))?;
        let stream = super::dial::loopback(sandbox.namespaces.network.as_deref(), port).await;
        let stream = stream.map_err(|error| {
            StreamError::Internal(format!("failed to connect to localhost:{port} inside namespace {uid:?}: {error}"))
        })?;
        Ok(Box::new(stream))
    }

    async fn logs(
        &self,
        of: &ContainerRef,
        query: LogQuery,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, LogError> {
        let view = self.view(&of.pod())?;
        let name = &of.container;
        let seen = container(&view, name)?;
        let pod = &of.pod;
        let Some(seen) = seen else {
            let reason = view.seen.waiting.get(name).map_or("ContainerCreating", |why| why.reason.as_str());
            let reason = match reason {
                "ErrImagePull" | "ImagePullBackOff" => "trying and failing to pull image",
                reason => reason,
            };
            let message = format!("container {name:?} in pod {pod:?} is waiting to start: {reason}");
            return Err(LogError::BadRequest(message));
        };
        let attempt = match query.previous {
            false => seen.attempt,
            true if seen.last.is_some() => seen.attempt.saturating_sub(1),
            true => {
                return Err(LogError::BadRequest(format!(
                    "previous terminated container {name:?} in pod {pod:?} not found"
                )));
            }
        };
        let uid = view.pod.metadata.uid.clone().unwrap_or_default();
        let path = self.pod_logs(&of.namespace, pod, &uid).join(name).join(format!("{attempt}.log"));
        let runs = matches!(seen.state, ContainerState::Running { .. }) && !query.previous;
        self.log(path, &query, runs.then_some(seen.id.as_str()))
    }

    async fn pods(&self) -> Vec<Pod> {
        self.pods.views().iter().map(|view| (*view.pod).clone()).collect()
    }

    async fn running_pods(&self) -> Vec<Pod> {
        let runs = |view: &Arc<View>| {
            view.seen.containers.values().any(|seen| matches!(seen.state, ContainerState::Running { .. }))
        };
        self.pods.views().iter().filter(|view| runs(view)).map(|view| (*view.pod).clone()).collect()
    }

    fn healthy(&self) -> Result<(), String> {
        // A kubelet of which a part ended ends as a whole: one that answers is well.
        Ok(())
    }

    async fn stats_summary(&self, _only_cpu_and_memory: bool) -> Result<serde_json::Value, StreamError> {
        Err(StreamError::Unsupported("this kubelet measures no pods yet".to_owned()))
    }

    async fn metrics(&self, _which: Metrics) -> Result<String, StreamError> {
        Err(StreamError::Unsupported("this kubelet has no metrics yet".to_owned()))
    }
}

fn window(size: TerminalSize) -> WindowSize {
    WindowSize { width: size.width, height: size.height }
}
