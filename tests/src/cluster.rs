//! A whole cluster as `cargo xtask deploy` makes it: nodes, container runtime, network; beside a user's own cluster, disturbing none.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{Kubectl, Output, kubectls};

const NAME: &str = "skeptest";
const NETWORK: &str = "172.29.213.0/24";
/// How long something may take that waits for the cluster's own periods, as a node's heartbeat.
const PATIENCE: Duration = Duration::from_secs(180);

/// A cluster of two nodes. Dropping it takes it away.
pub struct Cluster {
    folder: TempDir,
    listen: SocketAddr,
    is_up: bool,
}

impl Cluster {
    /// Brings one up from the binaries that are built.
    ///
    /// # Errors
    /// When `deploy` fails, with what it said.
    pub fn start() -> Result<Self> {
        // A port that was free a moment ago.
        let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut this = Self { folder: TempDir::with_prefix("skep-cluster-")?, listen, is_up: true };
        this.deploy()?;
        Ok(this)
    }

    /// Deploys over what is there.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn deploy(&mut self) -> Result<()> {
        self.is_up = true;
        self.xtask(&["--name", NAME, "--listen", &self.listen.to_string(), "--node-network", NETWORK])?;
        Ok(())
    }

    /// Takes it away.
    ///
    /// # Errors
    /// When something stays.
    pub fn down(&mut self) -> Result<()> {
        self.keep_logs();
        self.xtask(&["--name", NAME, "--down"])?;
        self.is_up = false;
        Ok(())
    }

    /// What `deploy --status` prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn status(&self) -> Result<String> {
        self.xtask(&["--status"])
    }

    /// The name that all its links, namespaces and cgroups begin with.
    #[must_use]
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// A folder that goes with the cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.data().join("admin.kubeconfig")
    }

    /// The newest kubectl.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn kubectl(&self) -> Kubectl {
        Kubectl::new(kubectls().last().expect("one at least"), &self.kubeconfig(), self.folder())
    }

    /// Every kubectl on the machine.
    #[must_use]
    pub fn kubectls(&self) -> Vec<Kubectl> {
        kubectls().iter().map(|binary| Kubectl::new(binary, &self.kubeconfig(), self.folder())).collect()
    }

    /// The pid of one of its processes, as `node-1-kubelet`.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self, process: &str) -> Result<String> {
        let status = self.status()?;
        let line = status.lines().find(|line| line.starts_with(process)).with_context(|| format!("no {process}"))?;
        let pid = line.split_whitespace().nth(1).unwrap_or_default();
        pid.parse::<u32>().with_context(|| format!("{process} does not run"))?;
        Ok(pid.to_owned())
    }

    /// Ends one of its processes at once, as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, process: &str) -> Result<()> {
        let pid = self.pid(process)?;
        run(Command::new("kill").args(["-9", &pid]))?;
        let begun = Instant::now();
        while self.pid(process).is_ok() {
            if begun.elapsed() > PATIENCE {
                bail!("{process} does not die");
            }
        }
        Ok(())
    }

    /// Runs a program in a node's network namespace, and gives what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn in_node(&self, node: &str, program: &[&str]) -> Result<String> {
        run(Command::new("nsenter").arg(format!("--net=/run/netns/{NAME}-{node}")).args(program))
    }

    fn xtask(&self, arguments: &[&str]) -> Result<String> {
        let xtask = crate::control_plane::binary("xtask")?;
        let mut command = Command::new(xtask);
        command.args(["deploy", "--profile", "dev", "--no-build", "--data-dir"]).arg(self.data()).args(arguments);
        run(command.env("RUST_BACKTRACE", "0"))
    }

    /// The logs outlive the cluster: what a failed test needs is in them.
    fn keep_logs(&self) {
        let target = self.kubeconfig().parent().map(|data| data.join("log"));
        let kept = std::env::temp_dir().join("skep-cluster-logs");
        let Some(logs) = target.filter(|logs| logs.is_dir()) else { return };
        let _ = std::fs::create_dir_all(&kept);
        for entry in std::fs::read_dir(logs).into_iter().flatten().flatten() {
            let _ = std::fs::copy(entry.path(), kept.join(entry.file_name()));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.is_up
            && let Err(error) = self.down()
        {
            eprintln!("the cluster is not taken away: {error:#}");
        }
    }
}

/// Asks until the answer is `Some`, or panics with what was answered last when patience is over.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(last) => assert!(begun.elapsed() < PATIENCE, "did not happen: {what}: {last}"),
        }
        #[allow(clippy::disallowed_methods, reason = "these tests have no executor to block")]
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether an output is what is wanted; else the output, for [`until`].
///
/// # Errors
/// With what there is instead.
pub fn wanted(output: Output, wanted: &str) -> Result<(), String> {
    let there = output.stdout.trim();
    if output.success && there == wanted { Ok(()) } else { Err(format!("{there}{}", output.stderr)) }
}

/// The body of an answer to a GET over plain HTTP; a server that does not answer with 200 is an error.
///
/// # Errors
/// With what went wrong.
pub fn http_get(address: SocketAddr) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("{address}: {error}"))?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.trim().to_owned()),
        _ => Err(format!("{address} answered {answer:?}")),
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("can't start {command:?}"))?;
    let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let _ = write!(printed, "{}", String::from_utf8_lossy(&output.stderr));
        bail!("{command:?} failed: {}\n{printed}", output.status);
    }
    Ok(printed)
}
