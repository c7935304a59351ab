//! `cargo xtask deploy`: a control plane on this machine, kept by its pid file; run again, it is replaced in place and keeps its data.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use crate::shell;

/// How long a start or a stop may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to deploy.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where data, keys, logs and the kubeconfig are kept.
    #[arg(long, default_value = "/var/lib/skep")]
    data_dir: PathBuf,
    /// Where the API is served.
    #[arg(long, default_value = "127.0.0.1:6443")]
    listen: SocketAddr,
    /// Takes the cluster away, data included.
    #[arg(long, conflicts_with = "status")]
    down: bool,
    /// Says what runs.
    #[arg(long)]
    status: bool,
}

/// A part of the cluster that runs as a process.
struct Process<'a> {
    name: &'static str,
    data_dir: &'a Path,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    let control_plane = Process { name: "skep-control-plane", data_dir: &args.data_dir };
    if args.status {
        return status(args, &control_plane);
    }
    if args.down {
        return down(args, &control_plane);
    }
    up(args, &control_plane)
}

fn up(args: &Args, control_plane: &Process<'_>) -> Result<()> {
    let progress = ProgressBar::new(3).with_style(ProgressStyle::with_template("[{pos}/{len}] {msg}")?);
    progress.println("Skep: building release binaries (minutes the first time)");
    progress.set_message("building");
    progress.tick();
    shell::run(&mut shell::command(
        "cargo",
        ["build", "--release", "--locked", "--quiet", "--package", "skep-control-plane"],
    ))?;
    progress.inc(1);
    progress.set_message("starting the control plane");
    fs::create_dir_all(&args.data_dir).with_context(|| format!("can't make {}", args.data_dir.display()))?;
    control_plane.stop()?;
    let kubeconfig = args.data_dir.join("admin.kubeconfig");
    // Written anew when the server is ready: that it is there means that it answers.
    let _ = fs::remove_file(&kubeconfig);
    let binary = shell::target().join("release/skep-control-plane");
    let mut command = Command::new(binary);
    command.arg("serve").arg("--data-dir").arg(&args.data_dir).args(["--listen", &args.listen.to_string()]);
    let mut child = control_plane.start(command)?;
    progress.inc(1);
    progress.set_message("waiting until it is ready");
    wait_for(|| {
        if kubeconfig.exists() {
            return Ok(true);
        }
        if let Some(status) = child.try_wait()? {
            bail!("the control plane ended with {status}; its log is {}", control_plane.log().display());
        }
        Ok(false)
    })
    .context("the control plane did not become ready")?;
    progress.inc(1);
    progress.finish_and_clear();
    println!("The control plane serves on https://{}; its kubeconfig is {}\n", args.listen, kubeconfig.display());
    println!("Try:\n  export KUBECONFIG={}", kubeconfig.display());
    println!("  kubectl apply -f examples/deployment.yaml\n  kubectl get deployments,replicasets,pods -n hive");
    Ok(())
}

fn status(args: &Args, control_plane: &Process<'_>) -> Result<()> {
    match control_plane.pid()? {
        Some(pid) => println!("{} runs as process {pid}; data in {}", control_plane.name, args.data_dir.display()),
        None => println!("{} does not run", control_plane.name),
    }
    Ok(())
}

fn down(args: &Args, control_plane: &Process<'_>) -> Result<()> {
    control_plane.stop()?;
    if args.data_dir.join("pki").is_dir() {
        for part in ["pki", "store", "run", "log", "admin.kubeconfig"] {
            let path = args.data_dir.join(part);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed
                && error.kind() != std::io::ErrorKind::NotFound
            {
                bail!("can't remove {}: {error}", path.display());
            }
        }
        // Left alone when it holds something that is not ours.
        let _ = fs::remove_dir(&args.data_dir);
    }
    println!("Nothing of the cluster is left");
    Ok(())
}

impl Process<'_> {
    fn log(&self) -> PathBuf {
        self.data_dir.join("log").join(format!("{}.log", self.name))
    }

    fn pid_file(&self) -> PathBuf {
        self.data_dir.join("run").join(format!("{}.pid", self.name))
    }

    /// The pid, if the process that the file names is there and is this one.
    fn pid(&self) -> Result<Option<u32>> {
        let text = match fs::read_to_string(self.pid_file()) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("can't read the pid file"),
        };
        let Ok(pid) = text.trim().parse::<u32>() else { return Ok(None) };
        // A pid is used again: only one that runs this program counts.
        let program = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let program = String::from_utf8_lossy(program.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
        Ok(program.ends_with(self.name).then_some(pid))
    }

    /// Starts the process, and notes its pid.
    fn start(&self, mut command: Command) -> Result<Child> {
        for path in [self.log(), self.pid_file()] {
            let folder = path.parent().context("a path below the data directory has a parent")?;
            fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        // A group of its own: a Ctrl-C of the one who deploys is not for the cluster.
        let child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't start {}", self.name))?;
        fs::write(self.pid_file(), child.id().to_string()).context("can't write the pid file")?;
        Ok(child)
    }

    fn stop(&self) -> Result<()> {
        let Some(pid) = self.pid()? else { return Ok(()) };
        shell::run(&mut shell::command("kill", [pid.to_string()]))?;
        wait_for(|| Ok(self.pid()?.is_none())).with_context(|| format!("{} does not end", self.name))?;
        let _ = fs::remove_file(self.pid_file());
        Ok(())
    }
}

/// Asks until the answer is yes.
fn wait_for(mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !ask()? {
        if begun.elapsed() > PATIENCE {
            bail!("waited {} s", PATIENCE.as_secs());
        }
        #[allow(clippy::disallowed_methods, reason = "a command line tool has no executor to block")]
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
