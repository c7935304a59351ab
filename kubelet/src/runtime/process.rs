//! A further process in a running container: `kubectl exec`, exec probes, and hooks.
//!
//! Its streams are FIFOs, so that containerd's restart doesn't cut them. Invariant: whoever asked may go away at any
//! time; the process is then waited for (or killed, if so asked) and cleared away by a task of the connection's own, and
//! its output is drained so that it doesn't block.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use containerd_client::services::v1::{DeleteProcessRequest, ExecProcessRequest, KillRequest, StartRequest};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use prost_types::Any;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::containerd::{Containerd, RuntimeError, call, found};
use super::fifo;
pub use super::tasks::WindowSize;

const PROCESS_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";
const SIGKILL: u32 = 9;
const BUFFER: usize = 32 * 1024;
/// Output is waited for as long as it comes, and this long after the process ended: what it left in the background
/// may hold its pipes for ever.
const QUIET: Duration = Duration::from_secs(2);

/// What to run, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// The command and its arguments; there is no shell around it.
    pub args: Vec<String>,
    /// It gets a terminal: stderr then comes with stdout.
    pub tty: bool,
    /// [`Exec::stdin`] is wanted.
    pub stdin: bool,
    /// `NAME=value`, beyond the container's own environment.
    pub env: Vec<String>,
    /// Dropping the [`Exec`] kills the process, instead of letting it go on unattended as upstream does.
    pub kill_on_drop: bool,
}

/// What a command printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// 128 + N for signal N.
    pub exit_code: u32,
    /// stdout and stderr as they came, cut at the limit.
    pub output: Vec<u8>,
}

/// A process of exec that was started.
#[derive(Debug)]
pub struct Exec {
    /// Writes to its stdin; [`Exec::close_stdin`] after dropping it gives the process its end of file.
    pub stdin: Option<Sender>,
    /// Its stdout, or its terminal's output.
    pub stdout: Option<Receiver>,
    /// Its stderr; none with a terminal.
    pub stderr: Option<Receiver>,
    process: Process,
    tty: bool,
    kill_on_drop: bool,
    finished: bool,
}

#[derive(Debug, Clone)]
struct Process {
    containerd: Containerd,
    container: String,
    exec_id: String,
    fifos: PathBuf,
}

impl Containerd {
    /// Runs a command in a container with the user, environment, directory and capabilities of its specification.
    /// The FIFOs are made below `fifo_dir`, whose path containerd's shim has to see as well.
    ///
    /// # Errors
    /// When the container doesn't run or the command can't be started.
    pub async fn exec(&self, fifo_dir: &Path, container: &str, options: ExecOptions) -> Result<Exec, RuntimeError> {
        let spec = process_spec(self.specification(container).await?, &options)
            .ok_or_else(|| RuntimeError::Specification(container.to_owned()))?;
        let exec_id = uuid::Uuid::new_v4().simple().to_string();
        let fifos = fifo_dir.join(&exec_id);
        let process = Process { containerd: self.clone(), container: container.to_owned(), exec_id, fifos };
        // Once asked for, a start goes to its end, whether its caller waits or not: a shim that opens an output FIFO which
        // nobody reads any more waits for ever, and lets no other call of its pod through (seen with containerd 1.6).
        let (tell, told) = oneshot::channel();
        self.abandoned.spawn(async move {
            let started = match process.start(spec, &options).await {
                Ok(exec) => Ok(exec),
                Err(error) => {
                    process.clear_away().await;
                    Err(error)
                }
            };
            // A process that nobody waits for any more is dropped here, as by its caller.
            drop(tell.send(started));
        });
        // Only a panic leaves nothing told.
        told.await.unwrap_or_else(|_| Err(RuntimeError::Unknown(container.to_owned())))
    }

    /// Lets go of what processes of exec left in `fifo_dir` when their kubelet died: a shim that waits for a reader of
    /// their output gets one, for as long as the result is kept. To be called before the folder is used again.
    pub fn release_execs(fifo_dir: &Path) -> Vec<Receiver> {
        let folders = std::fs::read_dir(fifo_dir).into_iter().flatten().flatten();
        let fifos = folders.flat_map(|folder| [folder.path().join("stdout"), folder.path().join("stderr")]);
        let readers = fifos.filter_map(|path| fifo::output(&path).ok()).collect();
        if let Err(error) = std::fs::remove_dir_all(fifo_dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %fifo_dir.display(), %error, "FIFOs are left behind");
        }
        readers
    }

    /// Runs a command to its end, as probes and hooks do, and returns at most `limit` bytes of what it printed.
    ///
    /// # Errors
    /// [`RuntimeError::TimedOut`] after `timeout`, when it is killed; else as [`Containerd::exec`].
    pub async fn run_collect(
        &self,
        fifo_dir: &Path,
        container: &str,
        args: Vec<String>,
        limit: usize,
        timeout: Duration,
    ) -> Result<Output, RuntimeError> {
        let command = args.join(" ");
        let options = ExecOptions { args, kill_on_drop: true, ..ExecOptions::default() };
        let run = async {
            let exec = self.exec(fifo_dir, container, options).await?;
            exec.collect(limit).await
        };
        tokio::time::timeout(timeout, run).await.unwrap_or(Err(RuntimeError::TimedOut { command }))
    }

    /// Waits until every process of exec that ended, or was left by its caller, has been cleared away: for an orderly
    /// stop, and only when no more are started.
    pub async fn drained(&self) {
        self.abandoned.close();
        self.abandoned.wait().await;
    }
}

impl Exec {
    /// Sets the terminal's size.
    ///
    /// # Errors
    /// When the process ended or has no terminal.
    pub async fn resize(&self, size: WindowSize) -> Result<(), RuntimeError> {
        self.process.resize(size).await
    }

    /// Gives the process the end of its stdin; [`Exec::stdin`] must have been dropped.
    ///
    /// # Errors
    /// When the process ended.
    pub async fn close_stdin(&self) -> Result<(), RuntimeError> {
        self.process.close_stdin().await
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub async fn kill(&self, signal: u32) -> Result<(), RuntimeError> {
        self.process.kill(signal).await
    }

    /// Waits for the process to end and returns its exit code. Whoever took the outputs must be
    /// reading them at the same time; those that nobody took are drained.
    ///
    /// # Errors
    /// When containerd stays away.
    pub async fn wait(self) -> Result<u32, RuntimeError> {
        let none = futures::stream::pending();
        self.relay(None::<tokio::io::Empty>, None::<tokio::io::Sink>, None::<tokio::io::Sink>, none).await
    }

    /// Connects the process with a client's streams until it ended and all of its output was passed on; returns its
    /// exit code. The end of the client's stdin is the end of the process's, but of a terminal's.
    ///
    /// A client that takes its output slowly slows the process; one that is gone doesn't: the rest is discarded.
    ///
    /// # Errors
    /// When containerd stays away.
    pub async fn relay(
        mut self,
        stdin: Option<impl AsyncRead + Unpin>,
        stdout: Option<impl AsyncWrite + Unpin>,
        stderr: Option<impl AsyncWrite + Unpin>,
        resizes: impl Stream<Item = WindowSize> + Unpin,
    ) -> Result<u32, RuntimeError> {
        let process = self.process.clone();
        let progress = Progress::default();
        let input = feed(&process, stdin, self.stdin.take(), self.tty);
        let mut resizes = resizes;
        let resizing = async {
            while let Some(size) = resizes.next().await {
                if let Err(error) = process.resize(size).await {
                    tracing::debug!(container = process.container, %error, "terminal not resized");
                }
            }
        };
        let exit_code = {
            let (out, err) = (&mut self.stdout, &mut self.stderr);
            let outputs = futures::future::join(pass_on(out, stdout, &progress), pass_on(err, stderr, &progress));
            let beside = futures::future::join(input, resizing);
            let exit = process.wait_then_drain(outputs, &progress);
            tokio::pin!(beside, exit);
            tokio::select! {
                exit = &mut exit => exit,
                _ = &mut beside => exit.await,
            }
        }?;
        self.finish();
        Ok(exit_code)
    }

    async fn collect(mut self, limit: usize) -> Result<Output, RuntimeError> {
        let process = self.process.clone();
        let progress = Progress::default();
        let output = Mutex::new(Vec::new());
        let exit_code = {
            let (out, err) = (&mut self.stdout, &mut self.stderr);
            let outputs =
                futures::future::join(gather(out, &output, limit, &progress), gather(err, &output, limit, &progress));
            process.wait_then_drain(outputs, &progress).await
        }?;
        self.finish();
        Ok(Output { exit_code, output: output.into_inner() })
    }

    /// Leaves the clearing away to a task: what the process left in the background can make it take seconds.
    fn finish(&mut self) {
        self.finished = true;
        let process = self.process.clone();
        self.process.containerd.abandoned.spawn(async move { process.clear_away().await });
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        // Without a runtime the program itself is at its end.
        let Ok(runtime) = Handle::try_current() else { return };
        if self.finished {
            return;
        }
        let (process, kill, hang_up) = (self.process.clone(), self.kill_on_drop, self.tty);
        let (mut stdout, mut stderr) = (self.stdout.take(), self.stderr.take());
        let tracker = self.process.containerd.abandoned.clone();
        drop(self.stdin.take());
        let left = async move {
            if kill && let Err(error) = process.kill(SIGKILL).await {
                tracing::debug!(container = process.container, %error, "an abandoned process was not killed");
            }
            if hang_up && let Err(error) = process.close_stdin().await {
                tracing::debug!(container = process.container, %error, "an abandoned terminal was not hung up");
            }
            let progress = Progress::default();
            let sink = || None::<tokio::io::Sink>;
            let outputs =
                futures::future::join(pass_on(&mut stdout, sink(), &progress), pass_on(&mut stderr, sink(), &progress));
            if let Err(error) = process.wait_then_drain(outputs, &progress).await {
                tracing::debug!(container = process.container, %error, "an abandoned process was not waited for");
            }
            process.clear_away().await;
        };
        tracker.spawn_on(left, &runtime);
    }
}

impl Process {
    async fn start(&self, spec: Value, options: &ExecOptions) -> Result<Exec, RuntimeError> {
        let path = |name, wanted: bool| wanted.then(|| self.fifos.join(name));
        let stdin = path("stdin", options.stdin);
        // The shim takes both outputs or none.
        let stdout = path("stdout", true);
        let stderr = path("stderr", !options.tty);
        let io = |doing| move |source| RuntimeError::Io { doing, source };
        std::fs::create_dir_all(&self.fifos).map_err(io("making FIFOs"))?;
        for fifo in [&stdin, &stdout, &stderr].into_iter().flatten() {
            fifo::make(fifo).map_err(io("making FIFOs"))?;
        }
        let open = |fifo: &Option<PathBuf>| fifo.as_deref().map(fifo::output).transpose();
        let outputs = open(&stdout).and_then(|stdout| Ok((stdout, open(&stderr)?))).map_err(io("opening FIFOs"))?;
        let name = |fifo: &Option<PathBuf>| fifo.as_ref().map(|fifo| fifo.display().to_string()).unwrap_or_default();
        let request = ExecProcessRequest {
            container_id: self.container.clone(),
            stdin: name(&stdin),
            stdout: name(&stdout),
            stderr: name(&stderr),
            terminal: options.tty,
            spec: Some(Any { type_url: PROCESS_TYPE.to_owned(), value: spec.to_string().into_bytes() }),
            exec_id: self.exec_id.clone(),
        };
        let mut tasks = self.containerd.tasks_client();
        tasks.exec(self.containerd.request(request)).await.map_err(call("exec"))?;
        let start = StartRequest { container_id: self.container.clone(), exec_id: self.exec_id.clone() };
        tasks.start(self.containerd.request(start)).await.map_err(call("exec start"))?;
        let mut exec = Exec {
            stdin: None,
            stdout: outputs.0,
            stderr: outputs.1,
            process: self.clone(),
            tty: options.tty,
            kill_on_drop: options.kill_on_drop,
            finished: false,
        };
        if let Some(fifo) = &stdin {
            match fifo::input(fifo).await {
                Ok(stdin) => exec.stdin = Some(stdin),
                Err(source) => {
                    exec.kill_on_drop = true;
                    return Err(RuntimeError::Io { doing: "opening stdin", source });
                }
            }
        }
        Ok(exec)
    }

    /// Waits for the end of the process while its output is passed on, and then for the end of the output.
    async fn wait_then_drain(
        &self,
        outputs: impl Future<Output = ((), ())>,
        progress: &Progress,
    ) -> Result<u32, RuntimeError> {
        let exit = self.containerd.wait_process(&self.container, &self.exec_id);
        tokio::pin!(outputs, exit);
        let exit_code = tokio::select! {
            exit = &mut exit => exit?,
            _ = &mut outputs => return exit.await,
        };
        loop {
            let before = progress.bytes.load(Relaxed);
            if tokio::time::timeout(QUIET, &mut outputs).await.is_ok() {
                return Ok(exit_code);
            }
            if progress.bytes.load(Relaxed) == before && progress.writing.load(Relaxed) == 0 {
                return Ok(exit_code);
            }
        }
    }

    async fn resize(&self, size: WindowSize) -> Result<(), RuntimeError> {
        self.containerd.resize_process(&self.container, &self.exec_id, size).await
    }

    async fn close_stdin(&self) -> Result<(), RuntimeError> {
        self.containerd.close_process_stdin(&self.container, &self.exec_id).await
    }

    async fn kill(&self, signal: u32) -> Result<(), RuntimeError> {
        let request =
            KillRequest { container_id: self.container.clone(), exec_id: self.exec_id.clone(), signal, all: false };
        self.containerd.signal(request).await
    }

    async fn clear_away(&self) {
        let request = DeleteProcessRequest { container_id: self.container.clone(), exec_id: self.exec_id.clone() };
        let request = self.containerd.request(request);
        let deleted = self.containerd.tasks_client().delete_process(request).await.map_err(call("exec delete"));
        if let Err(error) = found(deleted) {
            tracing::warn!(container = self.container, %error, "a process of exec is left behind");
        }
        if let Err(error) = std::fs::remove_dir_all(&self.fifos)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.fifos.display(), %error, "FIFOs are left behind");
        }
    }
}

/// What tells an output that ended from one that a client is slow to take.
#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicU64,
    /// Clients that are being written to.
    writing: AtomicU32,
}

/// Copies a client's stdin to the process and passes its end on; a terminal's end would be a hang-up, and comes only
/// when the client is gone altogether.
async fn feed(process: &Process, client: Option<impl AsyncRead + Unpin>, stdin: Option<Sender>, tty: bool) {
    let Some(mut stdin) = stdin else { return };
    if let Some(mut client) = client
        && let Err(error) = tokio::io::copy(&mut client, &mut stdin).await
    {
        tracing::debug!(container = process.container, %error, "stdin ended early");
    }
    if tty {
        return std::future::pending().await;
    }
    drop(stdin);
    if let Err(error) = process.close_stdin().await {
        tracing::debug!(container = process.container, %error, "stdin not closed");
    }
}

/// Copies an output to a client, and to nowhere once the client is gone.
async fn pass_on(output: &mut Option<Receiver>, mut client: Option<impl AsyncWrite + Unpin>, progress: &Progress) {
    let Some(output) = output else { return };
    let mut buffer = vec![0; BUFFER];
    while let Ok(read @ 1..) = output.read(&mut buffer).await {
        progress.bytes.fetch_add(read as u64, Relaxed);
        if let Some(writer) = &mut client {
            progress.writing.fetch_add(1, Relaxed);
            let written = async {
                writer.write_all(&buffer[..read]).await?;
                writer.flush().await
            };
            if written.await.is_err() {
                client = None;
            }
            progress.writing.fetch_sub(1, Relaxed);
        }
    }
    if let Some(writer) = &mut client {
        // The client may have closed its side first.
        let _ = writer.shutdown().await;
    }
}

/// Keeps the first `limit` bytes of an output and discards the rest.
async fn gather(output: &mut Option<Receiver>, kept: &Mutex<Vec<u8>>, limit: usize, progress: &Progress) {
    let Some(output) = output else { return };
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = output.read(&mut buffer).await {
        progress.bytes.fetch_add(read as u64, Relaxed);
        let mut kept = kept.lock();
        let room = limit.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}

/// The container's own process with another command; none when its specification has none.
fn process_spec(mut container: Value, options: &ExecOptions) -> Option<Value> {
    let mut process = container.get_mut("process")?.take();
    let fields = process.as_object_mut()?;
    fields.insert("args".to_owned(), json!(options.args));
    fields.insert("terminal".to_owned(), json!(options.tty));
    fields.remove("consoleSize");
    fields.remove("commandLine");
    let env = fields.entry("env").or_insert_with(|| json!([])).as_array_mut()?;
    env.extend(options.env.iter().map(|variable| json!(variable)));
    let has_term = env.iter().any(|variable| variable.as_str().is_some_and(|variable| variable.starts_with("TERM=")));
    if options.tty && !has_term {
        env.push(json!("TERM=xterm"));
    }
    Some(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_runs_as_the_container_does() {
        let container = json!({"process": {"args": ["server"], "cwd": "/srv", "user": {"uid": 7}, "env": ["A=1"]}});
        let options = ExecOptions { args: vec!["sh".to_owned()], tty: true, ..ExecOptions::default() };
        let process = process_spec(container, &options).expect("process");
        let expected =
            json!({"args": ["sh"], "cwd": "/srv", "user": {"uid": 7}, "env": ["A=1", "TERM=xterm"], "terminal": true});
        assert_eq!(process, expected);
    }

    #[test]
    fn a_specification_without_a_process_gives_none() {
        assert_eq!(process_spec(json!({}), &ExecOptions::default()), None);
    }
}
