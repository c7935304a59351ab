//! `cargo xtask conformance`: Kubernetes' own end-to-end suite against a cluster, and where Skep stands by it.
//!
//! Data flow: the suite lists its cases (`cases`), each runs as a process of its own (`runner`), whose output is read (`output`) and kept as
//! a line at once (`journal`), with what the cluster looked like where it failed (`evidence`). From these lines alone come the table
//! (`summary`), the causes (`causes`), the reports (`report`) and, where all cases ran, `docs/conformance.md` (`document`).
//!
//! Invariant: a result is on disk before the next case of its place begins; what a case costs is bounded by its limit.

mod cases;
mod causes;
mod cluster;
mod document;
mod evidence;
mod journal;
mod output;
mod report;
mod runner;
mod summary;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use regex::Regex;
use rustix::fs::{FlockOperation, flock};
use tokio_util::sync::CancellationToken;

use crate::deploy::Profile;
use crate::shell;
use crate::upstream::{self, KUBERNETES, Set};
use cases::{Case, Selection};
use causes::Causes;
use cluster::{Cluster, How, Whose};
use journal::{Journal, Record, Run};
use output::Outcome;
use runner::Suite;

const CAUSES: &str = "tests/conformance/causes.toml";
const SMOKE: &str = "tests/conformance/smoke.txt";
const DOCUMENT: &str = "docs/conformance.md";

/// Which cases, and on what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only cases whose name matches this pattern.
    #[arg(long)]
    focus: Option<Regex>,
    /// Without cases whose name matches this pattern.
    #[arg(long)]
    skip: Option<Regex>,
    /// Only cases of this area, such as sig-node; may be given again.
    #[arg(long)]
    area: Vec<String>,
    /// Only the cases of tests/conformance/smoke.txt, which pass.
    #[arg(long, conflicts_with_all = ["failed", "against"])]
    smoke: bool,
    /// Only what did not pass in the last run.
    #[arg(long, conflicts_with = "resume")]
    failed: bool,
    /// Goes on with the last run, which was stopped.
    #[arg(long, conflicts_with_all = ["focus", "skip", "area", "smoke", "repeat"])]
    resume: bool,
    /// So many cases at the same time.
    #[arg(long, default_value_t = 6)]
    parallel: usize,
    /// Runs each case so often, and names those that come to different ends.
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// How many seconds a case may take.
    #[arg(long, default_value_t = 900)]
    limit: u64,
    /// Leaves the cluster at the end, and takes one that was left, brought up to date, instead of a fresh one.
    #[arg(long)]
    keep: bool,
    /// On whose cluster. What upstream's does is marked in later reports of ours.
    #[arg(long, value_enum, default_value = "skep")]
    against: Whose,
    /// How our binaries are built.
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// Takes what is built as it is.
    #[arg(long)]
    no_build: bool,
}

/// Runs the command. It fails when a case does not pass.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.parallel == 0 || args.repeat == 0 || args.limit == 0 {
        bail!("--parallel, --repeat and --limit: at least 1");
    }
    let home = shell::target().join("conformance");
    fs::create_dir_all(&home).with_context(|| format!("can't make {}", home.display()))?;
    let lock = fs::File::create(home.join("lock")).context("can't make the lock file")?;
    // The cluster has one name and one place: a second run would take it from under the first.
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another `cargo xtask conformance` runs");
    }
    // The smoke set is run by tests: what was found out by a run of all cases outlives it.
    let folder = home.join(if args.smoke { "smoke" } else { args.against.name() });
    let last = Journal::read(&folder)?;
    let programs = upstream::ensure(&[Set::Suite])?;
    let all = cases::parse(&shell::output(&mut shell::command(
        &programs.join("e2e.test").to_string_lossy(),
        ["--list-conformance-tests"],
    ))?)?;
    // What is asked for is checked before a cluster is made for it.
    let selection = selection(args, last.as_ref())?;
    let (resumed, wanted) = if args.resume {
        let last = last.context("there is no run to go on with")?;
        if last.is_complete() {
            bail!("the last run is complete: nothing is left of it to go on with");
        }
        (Some(last), Vec::new())
    } else {
        (None, selection.of(&all)?)
    };
    let how = How { profile: args.profile, no_build: args.no_build, reuse: args.keep || args.resume };
    let cluster = cluster::up(args.against, how)?;
    let mut journal = match resumed {
        Some(journal) => journal,
        None => Journal::begin(&folder, described(args, &cluster, selection.is_whole(), wanted))?,
    };
    let suite = Arc::new(Suite {
        program: programs.join("e2e.test"),
        kubectl: programs.join("kubectl"),
        kubeconfig: cluster.kubeconfig,
        nodes: cluster.nodes,
        content_type: journal.run.content_type.clone(),
        limit: Duration::from_secs(journal.run.limit),
        logs: cluster.logs,
        folder: folder.clone(),
    });
    let stopped = drive(&suite, &mut journal)?;
    let verdict = tell(args, &home, &journal);
    if stopped {
        bail!("stopped: `cargo xtask conformance --resume` goes on, on the cluster that is left for it");
    }
    if !args.keep {
        cluster::down(args.against)?;
    }
    verdict
}

fn selection(args: &Args, last: Option<&Journal>) -> Result<Selection> {
    let only = if args.smoke {
        let path = shell::root().join(SMOKE);
        Some(cases::names(&fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?))
    } else if args.failed {
        let last = last.context("there is no run whose failures could run again")?;
        let verdicts = summary::verdicts(&last.records);
        let failed = verdicts.iter().filter(|record| record.outcome != Outcome::Passed);
        Some(failed.map(|record| record.case.name().to_owned()).collect())
    } else {
        None
    };
    Ok(Selection { focus: args.focus.clone(), skip: args.skip.clone(), areas: args.area.clone(), only })
}

fn described(args: &Args, cluster: &Cluster, whole: bool, cases: Vec<Case>) -> Run {
    Run {
        cluster: args.against.name().to_owned(),
        version: cluster.version.clone(),
        suite: KUBERNETES.to_owned(),
        began: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        content_type: cluster.content_type.clone(),
        parallel: args.parallel,
        limit: args.limit,
        rounds: args.repeat,
        whole,
        cases,
    }
}

/// Runs what remains, and says whether it was stopped before the end.
fn drive(suite: &Arc<Suite>, journal: &mut Journal) -> Result<bool> {
    let all = journal.run.cases.len() * journal.run.rounds as usize;
    let style = ProgressStyle::with_template("{spinner} [{pos}/{len}] {bar:30} {elapsed} {msg}")?;
    let bar = ProgressBar::new(all as u64).with_style(style);
    bar.set_position(journal.records.len() as u64);
    bar.enable_steady_tick(Duration::from_millis(200));
    let stop = CancellationToken::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let rounds = async {
            for round in 1..=journal.run.rounds {
                runner::round(suite, journal, round, &stop, &bar).await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        let stopping = async {
            // Where signals can't be had, Ctrl-C ends the command as it always does.
            if tokio::signal::ctrl_c().await.is_ok() {
                bar.set_message("stopping the cases that run");
                stop.cancel();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = rounds => ended,
            () = stopping => Ok(()),
        }
    });
    bar.finish_and_clear();
    ended?;
    Ok(stop.is_cancelled() && !journal.is_complete())
}

/// Prints the table, and writes the reports and, of a run over everything, the document.
fn tell(args: &Args, home: &std::path::Path, journal: &Journal) -> Result<()> {
    let causes = shell::root().join(CAUSES);
    let causes =
        Causes::parse(&fs::read_to_string(&causes).with_context(|| format!("can't read {}", causes.display()))?)?;
    let verdicts = summary::verdicts(&journal.records);
    let groups = causes.group(&verdicts);
    let upstream: Vec<Record> = match args.against {
        Whose::Skep => Journal::read(&home.join(Whose::Upstream.name()))?.map(|run| run.records).unwrap_or_default(),
        Whose::Upstream => Vec::new(),
    };
    println!("\n{}", summary::table(&verdicts));
    println!("The slowest:");
    for record in summary::slowest(&verdicts, 10) {
        println!("{:7.1} s  {}", record.seconds, record.case.name());
    }
    let differing = summary::differing(&journal.records);
    if !differing.is_empty() {
        println!("\nCame to different ends in different rounds:");
        differing.iter().for_each(|case| println!("  {}", case.name()));
    }
    if !groups.is_empty() {
        println!("\nDid not pass, by cause:");
        groups.iter().for_each(|group| println!("  {:4}  {}", group.records.len(), group.cause));
    }
    let name = match args.against {
        _ if args.smoke => "smoke-report",
        Whose::Skep => "report",
        Whose::Upstream => "upstream-report",
    };
    let written = report::write(home, name, journal, &groups, &upstream)?;
    println!("\nThe suite's clients asked for {}.", journal.run.content_type);
    written.iter().for_each(|path| println!("written: {}", path.display()));
    if !groups.is_empty() {
        println!("what is known of each failure: {}", journal.path("failed").display());
    }
    if journal.run.whole && journal.is_complete() && args.against == Whose::Skep {
        let path: PathBuf = shell::root().join(DOCUMENT);
        fs::write(&path, document::text(journal, &groups, &upstream))
            .with_context(|| format!("can't write {}", path.display()))?;
        println!("written: {}", path.display());
    }
    let (_, all) = summary::by_area(&verdicts);
    if all.passed < journal.run.cases.len() {
        bail!("{} of {} cases pass", all.passed, journal.run.cases.len());
    }
    Ok(())
}
