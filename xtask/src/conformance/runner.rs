//! Running cases: a process of the suite for each, several at a time, then those alone that disturb others.
//!
//! Why a process a case, and not Ginkgo's own `--procs`: its reports are written at the end, so that a crash or a kill loses all of them; a
//! panic of one case takes those behind it along; and it has no time-out a case. What it costs is a second's half of processor time
//! a case (the suite builds its tree of specs), under four minutes in all of 462. A process has its own identifier, too, by which its
//! namespaces are told from others'.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cases::Case;
use super::evidence;
use super::journal::{Journal, Record};
use super::output::{self, Outcome};

/// Ginkgo gives a case up by itself when its time is over; when it does not, it is killed so much later.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the suite's processes are started with.
#[derive(Debug)]
pub(crate) struct Suite {
    /// The suite.
    pub(crate) program: PathBuf,
    /// The client of its version.
    pub(crate) kubectl: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) nodes: u8,
    pub(crate) content_type: String,
    /// How long a case may take.
    pub(crate) limit: Duration,
    /// The logs of the cluster's processes.
    pub(crate) logs: Vec<PathBuf>,
    /// The run's folder.
    pub(crate) folder: PathBuf,
}

impl Suite {
    fn command(&self, case: &Case) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg(format!("--ginkgo.focus={}", case.focus()))
            .args(["--ginkgo.v", "--ginkgo.no-color", "--ginkgo.silence-skips", "--ginkgo.grace-period=20s"])
            .arg(format!("--ginkgo.timeout={}s", self.limit.as_secs()))
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .arg(format!("--kubectl-path={}", self.kubectl.display()))
            .arg(format!("--num-nodes={}", self.nodes))
            .arg(format!("--kube-api-content-type={}", self.content_type))
            .args(["--provider=skeleton", "--disable-log-dump"])
            // What it would print takes minutes where a kubelet serves no metrics; the namespaces are looked at here instead.
            .args(["--dump-logs-on-failure=false", "--delete-namespace-on-failure=false"]);
        command
    }
}

/// Runs what remains of a round, until it is done or stopped, and keeps each result as it comes.
///
/// # Errors
/// When the suite can't be started, or a result can't be kept.
pub(crate) async fn round(
    suite: &Arc<Suite>,
    journal: &mut Journal,
    round: u32,
    stop: &CancellationToken,
    bar: &ProgressBar,
) -> Result<()> {
    let (alone, together): (Vec<Case>, Vec<Case>) = journal.remaining(round).into_iter().partition(Case::alone);
    for (cases, at_once) in [(together, journal.run.parallel), (alone, 1)] {
        let mut waiting = cases.into_iter();
        let mut running: JoinSet<Result<Option<Record>>> = JoinSet::new();
        loop {
            while running.len() < at_once && !stop.is_cancelled() {
                let Some(case) = waiting.next() else { break };
                let (suite, stop) = (Arc::clone(suite), stop.clone());
                running.spawn(async move { run(&suite, case, round, &stop).await });
            }
            let Some(ended) = running.join_next().await else { break };
            if let Some(record) = ended.context("a case's task was lost")?? {
                show(bar, &record);
                journal.append(record)?;
            }
        }
    }
    Ok(())
}

fn show(bar: &ProgressBar, record: &Record) {
    bar.inc(1);
    let word = match record.outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "FAILED",
        Outcome::TimedOut => "TIMED OUT",
        Outcome::Skipped => "SKIPPED",
    };
    let line = format!("{word:9} {:5.0} s  {}", record.seconds, record.case.name());
    // Without a terminal there is no bar, and the lines are all there is to see.
    if bar.is_hidden() {
        eprintln!("[{}/{}] {line}", bar.position(), bar.length().unwrap_or_default());
    } else if record.outcome != Outcome::Passed {
        bar.println(line);
    }
}

/// Runs a case; nothing where it was stopped.
async fn run(suite: &Suite, case: Case, round: u32, stop: &CancellationToken) -> Result<Option<Record>> {
    let name = if round == 1 { case.slug() } else { format!("{}-{round}", case.slug()) };
    let log = suite.folder.join("running").join(format!("{name}.log"));
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    }
    let out = File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
    let before = evidence::sizes(&suite.logs);
    let begun = Instant::now();
    let mut child = suite
        .command(&case)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        // Its kubectls are in its group; a Ctrl-C is passed on below.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("can't start {}", suite.program.display()))?;
    let end = wait(&mut child, suite.limit + PATIENCE, stop).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let output = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let run_id = output::run_id(&output);
    let verdict = output::verdict(&output, end == End::Killed);
    if end == End::Stopped || verdict.outcome == Outcome::Passed {
        // Ginkgo takes its namespaces away where it may; those of a case that failed are ours to delete.
        if let (End::Stopped, Some(id)) = (end, run_id) {
            evidence::delete_namespaces(suite, id).await;
        }
        fs::remove_file(&log).with_context(|| format!("can't remove {}", log.display()))?;
        if end == End::Stopped {
            return Ok(None);
        }
    } else {
        let folder = suite.folder.join("failed").join(&name);
        fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        fs::rename(&log, folder.join("case.log")).context("can't keep the case's log")?;
        evidence::keep_logs(&suite.logs, &before, &folder)?;
        if let Some(id) = run_id {
            evidence::keep_namespaces(suite, id, &folder).await;
            evidence::delete_namespaces(suite, id).await;
        }
    }
    Ok(Some(Record { case, round, outcome: verdict.outcome, seconds, message: verdict.message }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By itself.
    Itself,
    /// It had to be killed when its time was over.
    Killed,
    /// The run is to end.
    Stopped,
}

async fn wait(child: &mut Child, limit: Duration, stop: &CancellationToken) -> Result<End> {
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    tokio::select! {
        ended = child.wait() => { ended?; return Ok(End::Itself) }
        () = tokio::time::sleep(limit) => {
            signal(group, Signal::KILL);
            child.wait().await?;
            return Ok(End::Killed);
        }
        () = stop.cancelled() => signal(group, Signal::INT),
    }
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
        signal(group, Signal::KILL);
        child.wait().await?;
    }
    Ok(End::Stopped)
}

fn signal(group: Option<Pid>, signal: Signal) {
    // An error means that it ended meanwhile.
    if let Some(group) = group {
        let _ = kill_process_group(group, signal);
    }
}

/// Where a failed case's files are, relative to the run's folder.
pub(crate) fn failed_folder(record: &Record) -> PathBuf {
    let slug = record.case.slug();
    let name = if record.round == 1 { slug } else { format!("{slug}-{}", record.round) };
    Path::new("failed").join(name)
}
