//! A container's first process: made, started, looked at, signalled, waited for, cleared away.
//!
//! Invariant: a start that fails leaves no task behind, so that the container can be removed or started again.

use std::path::PathBuf;
use std::time::Duration;

use containerd_client::services::v1::tasks_client::TasksClient;
use containerd_client::services::v1::{
    CloseIoRequest, CreateTaskRequest, DeleteTaskRequest, GetRequest, KillRequest, ListTasksRequest, ResizePtyRequest,
    StartRequest, UpdateTaskRequest, WaitRequest,
};
use containerd_client::tonic::transport::Channel;
use containerd_client::types::v1::{Process, Status};
use prost_types::Any;
use serde_json::Value;

use super::containerd::{Containerd, Exit, RuntimeError, call, found, timestamp};

const RESOURCES_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
/// How often a wait that containerd's restart interrupted is taken up again, a [`RETRY`] apart.
const WAIT_RETRIES: u32 = 150;
const RETRY: Duration = Duration::from_millis(200);

/// Where a process's streams go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskIo {
    /// A FIFO; none: nothing can be read.
    pub stdin: Option<PathBuf>,
    /// A `binary://` address or a FIFO's path; empty: discarded.
    pub stdout: String,
    /// As `stdout`; empty with a terminal.
    pub stderr: String,
    /// The process has a terminal.
    pub terminal: bool,
}

/// How a task fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskStatus {
    /// Made, not started.
    Created,
    /// Its process lives.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its process ended.
    Stopped(Exit),
}

/// A container's first process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The container's id.
    pub id: String,
    /// In the node's PID namespace.
    pub pid: u32,
    /// How it fares.
    pub status: TaskStatus,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

impl Containerd {
    /// All tasks of the namespace. One whose shim doesn't answer is left out by containerd.
    ///
    /// # Errors
    /// When containerd doesn't answer.
    pub async fn tasks(&self) -> Result<Vec<Task>, RuntimeError> {
        let request = self.request(ListTasksRequest::default());
        let answer = self.tasks_client().list(request).await.map_err(call("task list"))?.into_inner();
        Ok(answer.tasks.into_iter().filter_map(|process| task(process, None)).collect())
    }

    /// A container's task.
    ///
    /// # Errors
    /// When containerd doesn't answer, or its shim doesn't; that there is no task is none.
    pub async fn task(&self, id: &str) -> Result<Option<Task>, RuntimeError> {
        let request = self.request(GetRequest { container_id: id.to_owned(), exec_id: String::new() });
        let answer = found(self.tasks_client().get(request).await.map_err(call("task get")))?;
        let Some(process) = answer.and_then(|answer| answer.into_inner().process) else { return Ok(None) };
        task(process, Some(id)).map(Some).ok_or_else(|| RuntimeError::Unknown(id.to_owned()))
    }

    /// Starts a container's process and returns its process id.
    ///
    /// # Errors
    /// When runc refuses the specification or the command is not there; no task is left then.
    pub async fn start(&self, id: &str, io: &TaskIo) -> Result<u32, RuntimeError> {
        let create = CreateTaskRequest {
            container_id: id.to_owned(),
            rootfs: self.mounts(id).await?,
            stdin: io.stdin.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
            stdout: io.stdout.clone(),
            stderr: io.stderr.clone(),
            terminal: io.terminal,
            ..CreateTaskRequest::default()
        };
        let mut tasks = self.tasks_client();
        tasks.create(self.request(create)).await.map_err(call("task create"))?;
        let start = StartRequest { container_id: id.to_owned(), exec_id: String::new() };
        match tasks.start(self.request(start)).await.map_err(call("task start")) {
            Ok(started) => Ok(started.into_inner().pid),
            Err(error) => {
                if let Err(left) = self.delete_task(id).await {
                    tracing::warn!(container = id, error = %left, "a task that didn't start could not be deleted");
                }
                Err(error)
            }
        }
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub async fn kill(&self, id: &str, signal: u32) -> Result<(), RuntimeError> {
        self.signal(KillRequest { container_id: id.to_owned(), signal, ..KillRequest::default() }).await
    }

    /// Sends a signal to every process in a container's cgroup: with the node's PID namespace, the first one's end
    /// leaves the others alive.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub async fn kill_all(&self, id: &str, signal: u32) -> Result<(), RuntimeError> {
        self.signal(KillRequest { container_id: id.to_owned(), signal, all: true, ..KillRequest::default() }).await
    }

    /// Waits for a container's process to end and returns its exit code; goes on when containerd restarts.
    ///
    /// # Errors
    /// When it has no process, or containerd stays away.
    pub async fn wait(&self, id: &str) -> Result<u32, RuntimeError> {
        self.wait_process(id, "").await
    }

    /// Sets the size of a container's terminal.
    ///
    /// # Errors
    /// When it has ended or has no terminal.
    pub async fn resize(&self, id: &str, size: WindowSize) -> Result<(), RuntimeError> {
        self.resize_process(id, "", size).await
    }

    /// Closes the shim's own end of a container's stdin, which it holds so that a driver's end doesn't close it. The
    /// process reads its end of file once the driver's end is closed as well.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn close_stdin(&self, id: &str) -> Result<(), RuntimeError> {
        self.close_process_stdin(id, "").await
    }

    /// Changes the limits of a running container; `resources` is the OCI specification's `linux.resources`.
    ///
    /// # Errors
    /// When the kernel refuses them or the container has ended.
    pub async fn update_resources(&self, id: &str, resources: &Value) -> Result<(), RuntimeError> {
        let resources = Any { type_url: RESOURCES_TYPE.to_owned(), value: resources.to_string().into_bytes() };
        let request =
            UpdateTaskRequest { container_id: id.to_owned(), resources: Some(resources), ..Default::default() };
        self.tasks_client().update(self.request(request)).await.map_err(call("task update"))?;
        Ok(())
    }

    /// Deletes an ended task; that there is none is no error.
    ///
    /// # Errors
    /// While its process runs, or when containerd doesn't answer.
    pub async fn delete_task(&self, id: &str) -> Result<(), RuntimeError> {
        let request = self.request(DeleteTaskRequest { container_id: id.to_owned() });
        found(self.tasks_client().delete(request).await.map_err(call("task delete")))?;
        Ok(())
    }

    pub(super) async fn signal(&self, request: KillRequest) -> Result<(), RuntimeError> {
        self.tasks_client().kill(self.request(request)).await.map_err(call("task kill"))?;
        Ok(())
    }

    pub(super) async fn wait_process(&self, id: &str, exec_id: &str) -> Result<u32, RuntimeError> {
        let mut retries = 0;
        loop {
            let request = WaitRequest { container_id: id.to_owned(), exec_id: exec_id.to_owned() };
            match self.tasks_client().wait(self.request(request)).await.map_err(call("task wait")) {
                Ok(answer) => return Ok(answer.into_inner().exit_status),
                Err(error) if interrupted(&error) && retries < WAIT_RETRIES => {
                    retries += 1;
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn resize_process(&self, id: &str, exec_id: &str, size: WindowSize) -> Result<(), RuntimeError> {
        let request = ResizePtyRequest {
            container_id: id.to_owned(),
            exec_id: exec_id.to_owned(),
            width: size.width.into(),
            height: size.height.into(),
        };
        self.tasks_client().resize_pty(self.request(request)).await.map_err(call("task resize"))?;
        Ok(())
    }

    pub(super) async fn close_process_stdin(&self, id: &str, exec_id: &str) -> Result<(), RuntimeError> {
        let request = CloseIoRequest { container_id: id.to_owned(), exec_id: exec_id.to_owned(), stdin: true };
        self.tasks_client().close_io(self.request(request)).await.map_err(call("task close stdin"))?;
        Ok(())
    }

    pub(super) fn tasks_client(&self) -> TasksClient<Channel> {
        TasksClient::new(self.channel())
    }
}

/// A connection that broke in a call ends it with `Unknown` or `Cancelled` ("transport error", "h2 protocol error"),
/// not only with `Unavailable`; containerd itself answers them too, so the cause decides.
fn interrupted(error: &RuntimeError) -> bool {
    use std::error::Error as _;
    let RuntimeError::Call { status, .. } = error else { return false };
    error.is_unavailable() || status.source().is_some()
}

/// None for a status that says nothing (`UNKNOWN`).
fn task(process: Process, id: Option<&str>) -> Option<Task> {
    let status = match process.status() {
        Status::Created => TaskStatus::Created,
        Status::Running => TaskStatus::Running,
        Status::Paused | Status::Pausing => TaskStatus::Paused,
        Status::Stopped => {
            TaskStatus::Stopped(Exit { exit_code: process.exit_status, exited_at: timestamp(process.exited_at) })
        }
        Status::Unknown => return None,
    };
    Some(Task { id: id.map_or(process.id, str::to_owned), pid: process.pid, status })
}
