//! Containers and snapshots of one containerd namespace, and the connection that all of [`super`] calls through.
//!
//! Invariant: nothing is cached; each answer is containerd's own. The connection heals itself: after containerd came
//! back, the next call connects again.

use std::collections::HashMap;
use std::path::Path;

use containerd_client::services::v1::container::Runtime;
use containerd_client::services::v1::containers_client::ContainersClient;
use containerd_client::services::v1::snapshots::snapshots_client::SnapshotsClient;
use containerd_client::services::v1::snapshots::{MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest};
use containerd_client::services::v1::version_client::VersionClient;
use containerd_client::services::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest, ListContainersRequest,
    UpdateContainerRequest,
};
use containerd_client::tonic::metadata::{Ascii, MetadataValue};
use containerd_client::tonic::transport::Channel;
use containerd_client::tonic::{Code, Request, Status};
use containerd_client::types::Mount;
use futures::TryStreamExt;
use jiff::Timestamp;
use prost_types::{Any, FieldMask};
use serde_json::Value;
use tokio_util::task::TaskTracker;

pub use super::events::Event;
pub use super::tasks::{Task, TaskIo, TaskStatus};
use super::views;

const RUNTIME: &str = "io.containerd.runc.v2";
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";
/// The labels that keep how a container ended when its task is gone.
const EXIT_CODE: &str = "skep.dev/exit-code";
const EXITED_AT: &str = "skep.dev/exited-at";
/// Keeps containerd's garbage collection from a snapshot that no container refers to yet.
pub(super) const GC_ROOT: &str = "containerd.io/gc.root";

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
    #[error("containerd {call}: {}", .status.message())]
    Call {
        /// The call, in containerd's words.
        call: &'static str,
        /// Its answer.
        status: Box<Status>,
    },
    /// A process's pipes could not be made or used.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// containerd doesn't know how a task fares: its shim did not answer in time.
    #[error("the state of container {0:?} is unknown: its shim does not answer")]
    Unknown(String),
    /// A container's stored specification is not one that a process can be derived from.
    #[error("the specification of container {0:?} can't be read")]
    Specification(String),
    /// A process of exec did not end within its time (upstream's `DeadlineExceeded` of `ExecSync`).
    #[error("command {command:?} timed out")]
    TimedOut {
        /// The command and its arguments, joined by spaces.
        command: String,
    },
}

impl RuntimeError {
    /// What was asked for is not there (any more).
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(Code::NotFound)
    }

    /// containerd could not be reached: the call may succeed once it is back.
    pub fn is_unavailable(&self) -> bool {
        self.code() == Some(Code::Unavailable) || matches!(self, Self::Connect { .. })
    }

    /// Something of that name is there already.
    pub fn is_already_exists(&self) -> bool {
        self.code() == Some(Code::AlreadyExists)
    }

    fn code(&self) -> Option<Code> {
        match self {
            Self::Call { status, .. } => Some(status.code()),
            _ => None,
        }
    }
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

/// A container as containerd keeps it, whether or not it has a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRecord {
    /// Unique in the namespace.
    pub id: String,
    /// The image's reference, empty for none.
    pub image: String,
    /// As given at its making, or by [`Containerd::update_labels`].
    pub labels: HashMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// How its process ended, once [`Containerd::reap`] has noted it.
    pub ended: Option<Exit>,
}

/// How a container's process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// 128 + N for signal N.
    pub exit_code: u32,
    /// When.
    pub exited_at: Timestamp,
}

/// A connection to containerd, bound to a namespace.
#[derive(Debug, Clone)]
pub struct Containerd {
    channel: Channel,
    namespace: MetadataValue<Ascii>,
    pub(super) snapshotter: String,
    pub(super) snapshot_labels: HashMap<String, String>,
    /// Processes of exec whose caller went away, until they have ended and are cleared away.
    pub(super) abandoned: TaskTracker,
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
        Ok(Self {
            channel,
            namespace,
            snapshotter: snapshotter.to_owned(),
            snapshot_labels: HashMap::new(),
            abandoned: TaskTracker::new(),
        })
    }

    /// The same connection, marking each snapshot that it prepares with `labels`, so that
    /// [`Containerd::sweep_snapshots`] knows whose they are.
    pub fn with_snapshot_labels(mut self, labels: HashMap<String, String>) -> Self {
        self.snapshot_labels = labels;
        self
    }

    /// containerd's version, as `v1.7.24`.
    ///
    /// # Errors
    /// When it doesn't answer: a call for liveness.
    pub async fn version(&self) -> Result<String, RuntimeError> {
        let answer = VersionClient::new(self.channel()).version(()).await.map_err(call("version"))?;
        Ok(answer.into_inner().version)
    }

    /// Prepares a writable snapshot on `parent` (a chain id; empty for an empty root) and says how to mount it.
    ///
    /// containerd's garbage collection leaves it alone until [`Containerd::remove`] or
    /// [`Containerd::sweep_snapshots`].
    ///
    /// # Errors
    /// When the parent is missing or the key exists.
    pub async fn prepare_snapshot(&self, key: &str, parent: &str) -> Result<Vec<Mount>, RuntimeError> {
        let mut labels = self.snapshot_labels.clone();
        labels.insert(GC_ROOT.to_owned(), Timestamp::now().to_string());
        let request = PrepareSnapshotRequest {
            snapshotter: self.snapshotter.clone(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels,
        };
        let answer = self.snapshots().prepare(self.request(request)).await.map_err(call("snapshot prepare"))?;
        Ok(answer.into_inner().mounts)
    }

    /// How to mount the snapshot of a container.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub async fn mounts(&self, key: &str) -> Result<Vec<Mount>, RuntimeError> {
        let request = MountsRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        let answer = self.snapshots().mounts(self.request(request)).await.map_err(call("snapshot mounts"))?;
        Ok(answer.into_inner().mounts)
    }

    /// Removes the snapshots with this connection's labels that no container refers to: those of a kubelet that died
    /// between preparing a snapshot and making its container; and the views of pods that are not among `pods`. Returns how
    /// many it removed.
    ///
    /// Not to be called while this kubelet is between those two steps itself.
    ///
    /// # Errors
    /// When containerd doesn't answer.
    pub async fn sweep_snapshots(&self, pods: &[String]) -> Result<usize, RuntimeError> {
        if self.snapshot_labels.is_empty() {
            return Ok(0);
        }
        let mut removed = 0;
        for (name, labels) in self.labelled_snapshots(label_filter(self.snapshot_labels.iter())).await? {
            let used = match labels.get(views::POD) {
                Some(pod) => pods.contains(pod),
                None => self.container(&name).await?.is_some(),
            };
            if !used {
                self.remove_snapshot(&name).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Makes a container whose snapshot was prepared under its id.
    ///
    /// # Errors
    /// When one of that id exists.
    pub async fn create(&self, new: NewContainer) -> Result<(), RuntimeError> {
        let container = Container {
            id: new.id.clone(),
            image: new.image,
            labels: new.labels,
            runtime: Some(Runtime { name: RUNTIME.to_owned(), options: None }),
            snapshotter: self.snapshotter.clone(),
            snapshot_key: new.id,
            spec: Some(Any { type_url: SPEC_TYPE.to_owned(), value: new.spec.to_string().into_bytes() }),
            ..Container::default()
        };
        let request = self.request(CreateContainerRequest { container: Some(container) });
        self.containers_client().create(request).await.map_err(call("container create"))?;
        Ok(())
    }

    /// Adds `labels` to a container's, or replaces those of the same name.
    ///
    /// # Errors
    /// `NotFound` when it isn't there.
    pub async fn update_labels(&self, id: &str, labels: HashMap<String, String>) -> Result<(), RuntimeError> {
        // By name: the path "labels" alone would replace all of them.
        let paths = labels.keys().map(|name| format!("labels.{name}")).collect();
        let request = self.request(UpdateContainerRequest {
            container: Some(Container { id: id.to_owned(), labels, ..Container::default() }),
            update_mask: Some(FieldMask { paths }),
        });
        self.containers_client().update(request).await.map_err(call("container update"))?;
        Ok(())
    }

    /// The containers that have all of `labels`: what a restarted kubelet rebuilds its state from.
    ///
    /// # Errors
    /// When containerd doesn't answer.
    pub async fn containers(&self, labels: &[(&str, &str)]) -> Result<Vec<ContainerRecord>, RuntimeError> {
        let filters = if labels.is_empty() { vec![] } else { vec![label_filter(labels.iter().copied())] };
        // One by one: each comes with its specification, and all of a full node's exceed the size of a gRPC message.
        let request = self.request(ListContainersRequest { filters });
        let mut client = self.containers_client();
        let listed = client.list_stream(request).await.map_err(call("container list"))?.into_inner();
        let listed = listed.try_filter_map(|message| std::future::ready(Ok(message.container.map(record))));
        listed.try_collect().await.map_err(call("container list"))
    }

    /// One container.
    ///
    /// # Errors
    /// When containerd doesn't answer; that it isn't there is none.
    pub async fn container(&self, id: &str) -> Result<Option<ContainerRecord>, RuntimeError> {
        Ok(found(self.stored(id).await)?.map(record))
    }

    /// Clears an ended container's process away and keeps, as labels of the container, how it ended. To be called on
    /// each exit: only then does a shim close the container's output, so that its log is whole and its driver ends,
    /// which both hold when this returns. None while it runs, or if it never ran.
    ///
    /// # Errors
    /// When containerd doesn't answer, or the container isn't there.
    pub async fn reap(&self, id: &str) -> Result<Option<Exit>, RuntimeError> {
        let stored = self.stored(id).await?;
        let noted = ended(&stored.labels);
        let exit = match self.task(id).await?.map(|task| task.status) {
            None => return Ok(noted),
            Some(TaskStatus::Stopped(exit)) => exit,
            Some(TaskStatus::Created | TaskStatus::Running | TaskStatus::Paused) => return Ok(None),
        };
        if noted.is_none() {
            let (code, at) = (exit.exit_code.to_string(), exit.exited_at.to_string());
            let labels = HashMap::from([(EXIT_CODE.to_owned(), code), (EXITED_AT.to_owned(), at)]);
            self.update_labels(id, labels).await?;
        }
        self.delete_task(id).await?;
        Ok(noted.or(Some(exit)))
    }

    /// The containers of the namespace with their labels.
    ///
    /// # Errors
    /// When containerd doesn't answer.
    pub async fn list(&self) -> Result<Vec<(String, HashMap<String, String>)>, RuntimeError> {
        Ok(self.containers(&[]).await?.into_iter().map(|container| (container.id, container.labels)).collect())
    }

    /// The OCI specification that a container was made of.
    ///
    /// # Errors
    /// `NotFound` when it isn't there.
    pub async fn specification(&self, id: &str) -> Result<Value, RuntimeError> {
        let stored = self.stored(id).await?.spec;
        let unreadable = || RuntimeError::Specification(id.to_owned());
        serde_json::from_slice(&stored.ok_or_else(unreadable)?.value).map_err(|_| unreadable())
    }

    /// Removes an ended container: its task, itself and its snapshot; what of them isn't there is no error.
    ///
    /// # Errors
    /// While its process runs, or when containerd doesn't answer.
    pub async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        self.delete_task(id).await?;
        let request = self.request(DeleteContainerRequest { id: id.to_owned() });
        found(self.containers_client().delete(request).await.map_err(call("container delete")))?;
        self.remove_snapshot(id).await
    }

    pub(super) async fn remove_snapshot(&self, key: &str) -> Result<(), RuntimeError> {
        let request = RemoveSnapshotRequest { snapshotter: self.snapshotter.clone(), key: key.to_owned() };
        found(self.snapshots().remove(self.request(request)).await.map_err(call("snapshot remove")))?;
        Ok(())
    }

    async fn stored(&self, id: &str) -> Result<Container, RuntimeError> {
        let request = self.request(GetContainerRequest { id: id.to_owned() });
        let answer = self.containers_client().get(request).await.map_err(call("container get"))?;
        answer.into_inner().container.ok_or_else(|| RuntimeError::Specification(id.to_owned()))
    }

    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(super) fn namespace(&self) -> &MetadataValue<Ascii> {
        &self.namespace
    }

    pub(super) fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request.metadata_mut().insert("containerd-namespace", self.namespace.clone());
        request
    }

    fn containers_client(&self) -> ContainersClient<Channel> {
        ContainersClient::new(self.channel())
    }

    pub(super) fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel())
    }
}

/// Wraps a refusal with the call's name.
pub(super) fn call(call: &'static str) -> impl Fn(Status) -> RuntimeError {
    move |status| RuntimeError::Call { call, status: Box::new(status) }
}

/// That something isn't there is an answer, not an error.
pub(super) fn found<T>(answer: Result<T, RuntimeError>) -> Result<Option<T>, RuntimeError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// containerd's `Timestamp`, the epoch when it gave none or one out of range.
pub(super) fn timestamp(time: Option<prost_types::Timestamp>) -> Timestamp {
    time.and_then(|time| Timestamp::new(time.seconds, time.nanos).ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn record(container: Container) -> ContainerRecord {
    ContainerRecord {
        ended: ended(&container.labels),
        id: container.id,
        image: container.image,
        labels: container.labels,
        created_at: timestamp(container.created_at),
    }
}

fn ended(labels: &HashMap<String, String>) -> Option<Exit> {
    let exit_code = labels.get(EXIT_CODE)?.parse().ok()?;
    Some(Exit { exit_code, exited_at: labels.get(EXITED_AT)?.parse().ok()? })
}

/// containerd's filter syntax for all of some labels: within a filter, a comma is "and".
pub(super) fn label_filter<K: AsRef<str>, V: AsRef<str>>(labels: impl Iterator<Item = (K, V)>) -> String {
    let quoted = |text: &str| Value::from(text).to_string();
    let terms = labels.map(|(name, value)| format!("labels.{}=={}", quoted(name.as_ref()), quoted(value.as_ref())));
    terms.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_quotes_names_and_values() {
        let labels = [("skep.dev/node", "n\"1"), ("a", "")];
        assert_eq!(label_filter(labels.into_iter()), r#"labels."skep.dev/node"=="n\"1",labels."a"=="""#);
    }
}
