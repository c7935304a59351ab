//! The log driver: copies a container's stdout and stderr to its log, and to whoever is attached, until both end.
//!
//! Invariant: it stops at the end of the streams, not at SIGTERM, because lines written before the container's end may
//! still be in the pipes. The shim kills a driver that hangs.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use super::clients::{Clients, Stdin};
use super::inherited_fd;
use super::lines::Lines;
use super::writer::{LogWriter, Rotation, Stream};
use crate::runtime::fifo;

const BUFFER: usize = 32 * 1024;

/// What a driver is told, as JSON in its one argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// The log file, absolute.
    pub log: PathBuf,
    /// When the log is rotated, and how much is kept.
    pub rotation: Rotation,
    /// The container has a terminal: one stream for both ways, and no stderr.
    #[serde(default)]
    pub terminal: bool,
    /// Where the driver listens for [`super::attach`]; none: nobody can attach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach: Option<PathBuf>,
    /// The streams are FIFOs, and stdin is one of them (`stdin: true`); none: a shim gives the output as pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fifos: Option<Fifos>,
}

/// The FIFOs `stdin`, `stdout` and `stderr` of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fifos {
    /// A directory of this container's own; the driver removes it at its end.
    pub directory: PathBuf,
    /// The first attached client's end of stdin is the container's (`stdinOnce`); not with a terminal.
    #[serde(default)]
    pub stdin_once: bool,
}

impl Fifos {
    /// Where the shim reads what the container reads.
    pub fn stdin(&self) -> PathBuf {
        self.directory.join("stdin")
    }

    /// Where the shim writes what the container prints, or its terminal's output.
    pub fn stdout(&self) -> PathBuf {
        self.directory.join("stdout")
    }

    /// Where the shim writes the container's errors; not with a terminal.
    pub fn stderr(&self) -> PathBuf {
        self.directory.join("stderr")
    }
}

impl Target {
    /// A log that nobody attaches to.
    pub fn log(log: &Path, rotation: Rotation) -> Self {
        Self { log: log.to_owned(), rotation, terminal: false, attach: None, fifos: None }
    }

    /// Reads [`Target::argument`]; none when it has another form.
    pub fn parse(argument: &str) -> Option<Self> {
        let target: Self = serde_json::from_str(argument).ok()?;
        let valid = target.rotation.max_bytes > 0 && target.rotation.max_files > 0 && target.log.is_absolute();
        valid.then_some(target)
    }

    /// The driver's one argument.
    pub fn argument(&self) -> String {
        // Strings and numbers always serialise; a path that is no UTF-8 gives "", which the driver refuses.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The IO address to give containerd as a task's stdout and stderr, so that `kubelet_binary` drives the log.
    ///
    /// There is exactly one query parameter, since containerd passes several in no fixed order.
    pub fn io_uri(&self, kubelet_binary: &Path) -> String {
        let binary = escape(&kubelet_binary.display().to_string());
        format!("binary://{binary}?log-driver={}", escape(&self.argument()))
    }
}

/// The IO address of a log that nobody attaches to.
pub fn io_uri(kubelet_binary: &Path, path: &Path, rotation: Rotation) -> String {
    Target::log(path, rotation).io_uri(kubelet_binary)
}

/// Runs the driver in a process of its own, until the container's output ends.
///
/// # Errors
/// When the shim's descriptors or the FIFOs are not there, or the log can't be written.
pub fn run(target: &Target) -> io::Result<()> {
    // Before anything opens a file: see `inherited_fd`.
    let inherited = if target.fifos.is_none() { Some(inherited_fd::take()) } else { None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        // Holding the stream keeps SIGTERM from ending the process; see the module's invariant.
        let _terminate = signal(SignalKind::terminate())?;
        match (inherited, &target.fifos) {
            (_, Some(fifos)) => run_detached(target, fifos).await,
            (Some(Some(inherited)), None) => run_in_shim(target, inherited).await,
            _ => Err(io::Error::other("descriptors 3 to 5 are not open: the log driver is started by a shim")),
        }
    });
    if let Some(fifos) = &target.fifos {
        // All that reads them is gone; what can't be removed goes with the pod's directory.
        let _ = std::fs::remove_dir_all(&fifos.directory);
    }
    outcome
}

async fn run_in_shim(target: &Target, inherited: inherited_fd::Inherited) -> io::Result<()> {
    let stdout = Receiver::from_file(inherited.stdout)?;
    // With a terminal, the shim never closes its end of stderr.
    let stderr = if target.terminal { None } else { Some(Receiver::from_file(inherited.stderr)?) };
    let clients = Clients::listen(target.attach.as_deref(), Stdin::none())?;
    let writer = LogWriter::open(&target.log, target.rotation)?;
    drop(inherited.ready);
    drive(stdout, stderr, writer, clients).await
}

async fn run_detached(target: &Target, fifos: &Fifos) -> io::Result<()> {
    // The kubelet's terminal and process group are none of ours.
    rustix::process::setsid()?;
    let stdout = fifo::output(&fifos.stdout())?;
    let stderr = if target.terminal { None } else { Some(fifo::output(&fifos.stderr())?) };
    let closes = fifos.stdin_once && !target.terminal;
    let clients = Clients::listen(target.attach.as_deref(), Stdin::fifo(&fifos.stdin(), closes)?)?;
    let writer = LogWriter::open(&target.log, target.rotation)?;
    let mut ready = io::stdout();
    ready.write_all(super::launch::READY)?;
    ready.flush()?;
    tokio::select! {
        outcome = drive(stdout, stderr, writer, clients) => outcome,
        error = abandon_when_never_used(target, fifos) => Err(error),
    }
}

/// Waits until the kubelet, which holds our stdin, has started the container or given up. Opening and closing the FIFOs
/// for writing then ends them, unless the shim has them open: only so an unused FIFO is told from a silent one.
async fn abandon_when_never_used(target: &Target, fifos: &Fifos) -> io::Error {
    let watch = async {
        let mut held = Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
        while held.read(&mut [0; 16]).await? > 0 {}
        let open = |path: &Path| tokio::net::unix::pipe::OpenOptions::new().open_sender(path).map(drop);
        open(&fifos.stdout())?;
        if target.terminal { Ok(()) } else { open(&fifos.stderr()) }
    };
    match watch.await {
        Ok(()) => std::future::pending().await,
        Err(error) => error,
    }
}

async fn drive(stdout: Receiver, stderr: Option<Receiver>, writer: LogWriter, clients: Clients) -> io::Result<()> {
    let writer = RefCell::new(writer);
    let outputs = async {
        let stderr = async {
            match stderr {
                Some(stderr) => copy(stderr, Stream::Stderr, &writer, &clients).await,
                None => Ok(()),
            }
        };
        let (stdout, stderr) = futures::future::join(copy(stdout, Stream::Stdout, &writer, &clients), stderr).await;
        stdout.and(stderr)
    };
    let outcome = tokio::select! {
        outcome = outputs => outcome,
        () = clients.serve() => Ok(()),
    };
    drop(writer);
    clients.finish().await;
    outcome
}

/// Copies one stream to the log, line by line, and to the attached clients as it comes. After a failed write it goes on
/// reading and drops what it can't store, so that a full disk never blocks the container; the first error is returned
/// at the end.
async fn copy(mut source: Receiver, stream: Stream, writer: &RefCell<LogWriter>, clients: &Clients) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut lines = Lines::default();
    let mut outcome = Ok(());
    loop {
        let read = source.read(&mut buffer).await?;
        if read == 0 {
            return outcome.and(store(&mut writer.borrow_mut(), |entry| lines.finish(entry), stream));
        }
        let stored = store(&mut writer.borrow_mut(), |entry| lines.push(&buffer[..read], entry), stream);
        outcome = outcome.and(stored);
        if clients.any() {
            clients.send(stream, Bytes::copy_from_slice(&buffer[..read])).await;
        }
    }
}

/// Writes the entries that `give` gives at once.
fn store(writer: &mut LogWriter, give: impl FnOnce(&mut dyn FnMut(bool, &[u8])), stream: Stream) -> io::Result<()> {
    let now = jiff::Timestamp::now();
    let mut outcome = Ok(());
    give(&mut |partial, text| {
        if let Err(error) = writer.buffer(now, stream, partial, text) {
            outcome = Err(error);
        }
    });
    outcome.and(writer.flush())
}

fn escape(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"/-._~,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROTATION: Rotation = Rotation { max_bytes: 10, max_files: 3 };

    #[test]
    fn the_target_of_the_io_address_is_what_the_driver_reads() {
        let mut target = Target::log(Path::new("/var/log/pods/a_b_c/main/0.log"), ROTATION);
        target.attach = Some(PathBuf::from("/run/skep/pods/c, d/attach.sock"));
        let uri = target.io_uri(Path::new("/usr/bin/skep-kubelet"));
        let query = uri.strip_prefix("binary:///usr/bin/skep-kubelet?").expect("the binary");
        let pairs: Vec<(String, String)> = url_query(query);
        assert_eq!(pairs.len(), 1);
        assert_eq!(pairs[0].0, "log-driver");
        assert_eq!(Target::parse(&pairs[0].1), Some(target));
    }

    #[test]
    fn a_relative_path_or_a_zero_limit_is_no_target() {
        assert_eq!(Target::parse(&Target::log(Path::new("a.log"), ROTATION).argument()), None);
        let never = Rotation { max_bytes: 0, ..ROTATION };
        assert_eq!(Target::parse(&Target::log(Path::new("/a.log"), never).argument()), None);
        assert_eq!(Target::parse("10,3,/a.log"), None);
    }

    fn url_query(query: &str) -> Vec<(String, String)> {
        let uri: http::Uri = format!("http://x/?{query}").parse().expect("a URI");
        let decode = |text: &str| {
            let mut bytes = text.bytes();
            let mut out = Vec::new();
            while let Some(byte) = bytes.next() {
                let mut digit = || char::from(bytes.next().expect("digit")).to_digit(16).expect("hexadecimal") as u8;
                out.push(if byte == b'%' { digit() * 16 + digit() } else { byte });
            }
            String::from_utf8(out).expect("UTF-8")
        };
        let pairs = uri.query().expect("a query").split('&').map(|pair| pair.split_once('=').expect("a pair"));
        pairs.map(|(name, value)| (decode(name), decode(value))).collect()
    }
}
