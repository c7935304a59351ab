//! A control plane as a process of its own, on a data directory of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// A running `skep-control-plane`. Dropping it kills the process and removes its data.
pub struct ControlPlane {
    folder: TempDir,
    listen: String,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl ControlPlane {
    /// Starts one on a free port and waits until it is ready.
    ///
    /// # Errors
    /// When the binary is not built, or ends before it is ready; the error carries the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts one with further arguments of `serve`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(arguments: &[&str]) -> Result<Self> {
        let folder = TempDir::with_prefix("skep-test-")?;
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut this = Self { folder, listen: "127.0.0.1:0".to_owned(), arguments, child: None };
        this.launch().await?;
        let config = this.config_file()?;
        let server = config.clusters[0].cluster.as_ref().and_then(|cluster| cluster.server.clone()).unwrap_or_default();
        server.trim_start_matches("https://").clone_into(&mut this.listen);
        Ok(this)
    }

    /// Kills the process, as `kill -9` does.
    ///
    /// # Errors
    /// When it has ended already.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("not running")?;
        child.kill().await.context("can't kill the control plane")
    }

    /// Starts it again on the same data and the same port.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.launch().await
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The kubeconfig of the cluster's administrator.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("admin.kubeconfig")
    }

    /// A folder that goes with the cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// An administrator's client.
    ///
    /// # Errors
    /// When the kubeconfig can't be read.
    pub async fn client(&self) -> Result<kube::Client> {
        let config = kube::Config::from_custom_kubeconfig(self.config_file()?, &KubeConfigOptions::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn config_file(&self) -> Result<Kubeconfig> {
        Ok(Kubeconfig::read_from(self.kubeconfig())?)
    }

    async fn launch(&mut self) -> Result<()> {
        let binary = binary("skep-control-plane")?;
        let _ = std::fs::remove_file(self.kubeconfig());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log"))?;
        let mut child = Command::new(&binary)
            .arg("serve")
            .arg("--data-dir")
            .arg(self.folder.path())
            .args(["--listen", &self.listen])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("can't start {}", binary.display()))?;
        loop {
            if self.kubeconfig().exists() {
                self.child = Some(child);
                return Ok(());
            }
            if let Some(status) = child.try_wait()? {
                bail!("the control plane ended with {status}:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A binary of this workspace, beside the test's own.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let found = test.ancestors().skip(1).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("{name} is not built: run `cargo build --workspace --bins` first, as `cargo xtask test` does")
    })
}
