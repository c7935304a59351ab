//! The real `kubectl`, in every version that is on the machine.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Seconds that one kubectl may take.
const PATIENCE: u64 = 120;

/// What a kubectl said.
#[derive(Debug)]
pub struct Output {
    /// Whether it exited with 0.
    pub success: bool,
    /// What it exited with.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// The output of a command that must have succeeded.
    ///
    /// # Panics
    /// With all that kubectl said, when it failed.
    pub fn ok(self) -> String {
        assert!(self.success, "kubectl failed:\n{}\n{}", self.stdout, self.stderr);
        self.stdout
    }

    /// The standard error of a command that must have failed.
    ///
    /// # Panics
    /// When it succeeded.
    #[must_use]
    pub fn fails(self) -> String {
        assert!(!self.success, "kubectl succeeded:\n{}", self.stdout);
        self.stderr
    }
}

/// A kubectl that talks to one cluster as one user.
#[derive(Clone, Debug)]
pub struct Kubectl {
    binary: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    /// A kubectl with a kubeconfig; its discovery cache is in `folder`.
    #[must_use]
    pub fn new(binary: &Path, kubeconfig: &Path, folder: &Path) -> Self {
        let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self {
            binary: binary.to_owned(),
            kubeconfig: kubeconfig.to_owned(),
            cache: folder.join(format!("cache-{name}")),
        }
    }

    /// Runs it.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, "")
    }

    /// Runs it with something on its standard input.
    ///
    /// # Panics
    /// When kubectl can't be started.
    #[must_use]
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Output {
        use std::io::Write as _;
        // A kubectl that waits for ever fails its test instead of holding the run.
        let mut command = Command::new("timeout");
        command.arg(PATIENCE.to_string()).arg(&self.binary);
        let mut child = self
            .aimed(&mut command)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        // A kubectl that does not read its input closes it early; that is its business.
        let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("kubectl ends");
        Output {
            success: output.status.success(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts one that runs until it is dropped, as `logs -f` and `port-forward` do, and gives what it prints.
    ///
    /// # Panics
    /// When kubectl can't be started.
    #[must_use]
    pub fn follow(&self, arguments: &[&str]) -> Following {
        let mut command = Command::new(&self.binary);
        let child = self.aimed(&mut command).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("kubectl starts");
        let printed = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        // Ends with the process, whose output it reads.
        std::thread::spawn(move || printed.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Following { child, lines }
    }

    /// Runs it on a terminal of its own, as a person does: standard output and error are one, and lines end as terminals end them.
    ///
    /// # Panics
    /// When `script` can't be started.
    #[must_use]
    pub fn on_terminal(&self, arguments: &[&str]) -> Output {
        let words = std::iter::once(self.binary.to_str().expect("a path in UTF-8")).chain(arguments.iter().copied());
        let quoted: Vec<String> = words.map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
        let mut command = Command::new("timeout");
        command.args([
            &PATIENCE.to_string(),
            "script",
            "--quiet",
            "--return",
            "--command",
            &quoted.join(" "),
            "/dev/null",
        ]);
        // In the environment: the shell that `script` starts knows no flags.
        let output = command.env("KUBECONFIG", &self.kubeconfig).stdin(Stdio::null()).output().expect("script starts");
        Output {
            success: output.status.success(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// At its cluster, with nothing of the user's own configuration.
    fn aimed<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .arg(format!("--cache-dir={}", self.cache.display()))
            .env("EDITOR", "true")
            .env("KUBE_EDITOR", "true")
            .env_remove("KUBECONFIG")
    }
}

/// A kubectl that goes on; dropping it ends it.
#[derive(Debug)]
pub struct Following {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    /// The next line that has some words in it.
    ///
    /// # Panics
    /// When kubectl ends before, or does not print it.
    #[must_use]
    pub fn line_with(&mut self, words: &str) -> String {
        let begun = Instant::now();
        let mut others = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(PATIENCE).saturating_sub(begun.elapsed())) {
            if line.contains(words) {
                return line;
            }
            others.push(line);
        }
        panic!("kubectl did not print {words:?} but {others:?}")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every kubectl on the machine: `kubectl` itself, and the `kubectl.1.NN` beside the file that it leads to.
///
/// # Panics
/// When there is none: a test of kubectl without kubectl has not run.
#[must_use]
pub fn kubectls() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let first = std::env::split_paths(&path).map(|folder| folder.join("kubectl")).find(|file| file.is_file());
    let first = first.expect("kubectl is on the PATH").canonicalize().expect("kubectl can be followed");
    let folder = first.parent().expect("a file has a folder");
    let versioned = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kubectl.1.")));
    let mut all: Vec<PathBuf> = versioned.collect();
    all.sort();
    if all.is_empty() {
        all.push(first);
    }
    all
}
