//! Containers, snapshots, tasks and events of one containerd namespace.
//!
//! Invariant: nothing is cached; each answer is containerd's own.

use std::collections::HashMap;
use std::path::Path;

use containerd_client::events::{TaskExit, TaskOom};
use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, CreateTaskRequest, DeleteContainerRequest, DeleteTaskRequest, KillRequest,
    ListContainersRequest, StartRequest, SubscribeRequest, WaitRequest,
};
use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Request, Status};
use containerd_client::types::Mount;
use futures::{Stream, TryStreamExt, stream};
use prost::Message;
use serde_json::Value;

const RUNTIME: &str = "io.containerd.runc.v2";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// Why containerd could not be asked, or what it answered.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// Nothing answers at the socket.
    #[error("containerd at {socket}: {source}")]
    Connect {
        /// The socket's path.
        socket: String,
        /// The transport's error.
        source: Box<tonic::transport::Error>,
    },
    /// The namespace's name has bytes that gRPC metadata can't hold.
    #[error("containerd namespace {0:?} is not a valid name")]
    Namespace(String),
    /// containerd refused a call.
    #[error("containerd {call}: {status}")]
    Call {
        /// The call, in containerd's words.
        call: &'static str,
        /// Its answer.
        status: Box<Status>,
    },
}

/// What a container is made of.
#[derive(Debug, Clone)]
pub struct NewContainer {
    /// Unique in the namespace; its snapshot has the same key.
    pub id: String,
    /// The image's reference, empty for none.
    pub image: String,
    /// What a restarted kubelet recognises it by.
    pub labels: HashMap<String, String>,
    /// The OCI runtime specification.
    pub spec: Value,
}

/// Something that happened to a container's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A container's first process ended.
    Exited {
        /// The container.
        container: String,
        /// 128 + N for signal N.
        exit_code: u32,
    },
    /// The kernel killed for memory in its cgroup.
    OutOfMemory {
        /// The container.
        container: String,
    },
}

/// A connection to containerd, bound to a namespace.
#[derive(Debug, Clone)]
pub struct Containerd {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
    snapshotter: String,
}

impl Containerd {
    /// Connects to the socket; the snapshotter is `overlayfs` in production.
    ///
    /// # Errors
    /// When nothing answers, or the namespace's name is invalid.
    pub async fn connect(socket: &Path, namespace: &str, snapshotter: &str) -> Result<Self, RuntimeError> {
        let channel = containerd_client::connect(socket).await.map_err(|source| RuntimeError::Connect {
            socket: socket.display().to_string(),
            source: Box::new(source),
        })?;
        let namespace = namespace.parse().map_err(|_| RuntimeError::Namespace(namespace.to_owned()))?;
        Ok(Self { channel, namespace, snapshotter: snapshotter.to_owned() })
    }

    /// Prepares a writable snapshot on `parent` (a chain id; empty for an empty root) and says how to mount it.
    ///
    /// # Errors
    /// When the parent is missing or the key exists.
    pub async fn prepare_snapshot(&self, key: &str, parent: &str) -> Result<Vec<Mount>, RuntimeError> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: HashMap::new(),
        };
        let mut client = SnapshotsClient::new(self.channel.clone());
        let answer = client.prepare(self.request(request)).await.map_err(call("snapshot prepare"))?;
        Ok(answer.into_inner().mounts)
    }

    /// Makes a container whose snapshot was prepared under its id.
    ///
    /// # Errors
    /// When one of that id exists.
    pub async fn create(&self, new: NewContainer) -> Result<(), RuntimeError> {
        let mut container = Container {
            id: new.id.clone(),
            image: new.image,
            labels: new.labels,
            runtime: Some(Runtime { name: RUNTIME.to_owned(), options: None }),
            snapshotter: self.snapshotter.clone(),
            snapshot_key: new.id,
            spec: Some(Default::default()),
            ..Container::default()
        };
        if let Some(spec) = &mut container.spec {
            spec.type_url = SPEC_TYPE.to_owned();
            spec.value = new.spec.to_string().into_bytes();
        }
        let request = self.request(CreateContainerRequest { container: Some(container) });
        ContainersClient::new(self.channel.clone()).create(request).await.map_err(call("container create"))?;
        Ok(())
    }

    /// Starts a container's process, its output going to `io_uri`, and returns its process id.
    ///
    /// # Errors
    /// When runc refuses the specification or the command is not there.
    pub async fn start(&self, id: &str, io_uri: &str, terminal: bool) -> Result<u32, RuntimeError> {
        let mounts = MountsRequest { snapshotter: self.snapshotter.clone(), key: id.to_owned() };
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        let rootfs = snapshots.mounts(self.request(mounts)).await.map_err(call("snapshot mounts"))?.into_inner().mounts;
        let create = CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs,
            stdout: io_uri.to_owned(),
            stderr: if terminal { String::new() } else { io_uri.to_owned() },
            terminal,
            ..CreateTaskRequest::default()
        };
        let mut tasks = TasksClient::new(self.channel.clone());
        tasks.create(self.request(create)).await.map_err(call("task create"))?;
        let start = StartRequest { container_id: id.to_owned(), exec_id: String::new() };
        Ok(tasks.start(self.request(start)).await.map_err(call("task start"))?.into_inner().pid)
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub async fn kill(&self, id: &str, signal: u32) -> Result<(), RuntimeError> {
        let request = KillRequest { container_id: id.to_owned(), signal, ..KillRequest::default() };
        let mut tasks = TasksClient::new(self.channel.clone());
        tasks.kill(self.request(request)).await.map_err(call("task kill"))?;
        Ok(())
    }

    /// Waits for a container's process to end and returns its exit code.
    ///
    /// # Errors
    /// When it has no process.
    pub async fn wait(&self, id: &str) -> Result<u32, RuntimeError> {
        let request = WaitRequest { container_id: id.to_owned(), exec_id: String::new() };
        let mut tasks = TasksClient::new(self.channel.clone());
        Ok(tasks.wait(self.request(request)).await.map_err(call("task wait"))?.into_inner().exit_status)
    }

    /// Removes an ended container: its task, itself and its snapshot.
    ///
    /// # Errors
    /// While its process runs.
    pub async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let task = DeleteTaskRequest { container_id: id.to_owned() };
        TasksClient::new(self.channel.clone()).delete(self.request(task)).await.map_err(call("task delete"))?;
        let container = DeleteContainerRequest { id: id.to_owned() };
        let mut containers = ContainersClient::new(self.channel.clone());
        containers.delete(self.request(container)).await.map_err(call("container delete"))?;
        let snapshot = RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key: id.to_owned() };
        let mut snapshots = SnapshotsClient::new(self.channel.clone());
        snapshots.remove(self.request(snapshot)).await.map_err(call("snapshot remove"))?;
        Ok(())
    }

    /// The containers of the namespace with their labels: what a restarted kubelet rebuilds its state from.
    ///
    /// # Errors
    /// When containerd doesn't answer.
    pub async fn list(&self) -> Result<Vec<(String, HashMap<String, String>)>, RuntimeError> {
        let mut client = ContainersClient::new(self.channel.clone());
        let request = self.request(ListContainersRequest::default());
        let answer = client.list(request).await.map_err(call("container list"))?.into_inner();
        Ok(answer.containers.into_iter().map(|container| (container.id, container.labels)).collect())
    }

    /// The namespace's exits and out-of-memory kills. It ends with an error, when containerd does.
    ///
    /// The subscription is made when the stream is first polled: containerd answers it only with the first event, so
    /// that awaiting the answer before going on would block on an idle node.
    pub fn events(&self) -> impl Stream<Item = Result<Event, RuntimeError>> + Send + use<> {
        let namespace = self.namespace.clone();
        let mut client = EventsClient::new(self.channel.clone());
        let subscribed = async move { client.subscribe(SubscribeRequest { filters: vec![] }).await };
        stream::once(subscribed)
            .map_ok(|answer| answer.into_inner())
            .try_flatten()
            .map_err(call("event subscribe"))
            .try_filter_map(move |envelope| {
                let ours = envelope.namespace.as_bytes() == namespace.as_bytes();
                let event = envelope.event.filter(|_| ours).and_then(|any| decode(&any.type_url, &any.value));
                std::future::ready(Ok(event))
            })
    }

    fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }
}

fn decode(kind: &str, value: &[u8]) -> Option<Event> {
    match kind.rsplit('/').next()? {
        "containerd.events.TaskExit" => {
            let exit = TaskExit::decode(value).ok()?;
            // A process of exec ends under an id of its own.
            (exit.id == exit.container_id)
                .then_some(Event::Exited { container: exit.container_id, exit_code: exit.exit_status })
        }
        "containerd.events.TaskOOM" => {
            Some(Event::OutOfMemory { container: TaskOom::decode(value).ok()?.container_id })
        }
        _ => None,
    }
}

fn call(call: &'static str) -> impl Fn(Status) -> RuntimeError {
    move |status| RuntimeError::Call { call, status: Box::new(status) }
}
