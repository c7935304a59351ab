//! The real `kubectl`, in every version that is on the machine.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Seconds that one kubectl may take.
const PATIENCE: &str = "120";

/// What a kubectl said.
#[derive(Debug)]
pub struct Output {
    /// Whether it exited with 0.
    pub success: bool,
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
        let mut child = Command::new("timeout")
            .arg(PATIENCE)
            .arg(&self.binary)
            .args(arguments)
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(&self.cache)
            .env("EDITOR", "true")
            .env("KUBE_EDITOR", "true")
            .env_remove("KUBECONFIG")
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
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
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
