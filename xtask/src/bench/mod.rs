//! `cargo xtask bench`: every bench in release, one table of what Skep costs beside its rivals, and the generated part of `docs/performance.md`.
//!
//! ```text
//! criterion's estimates.json ─┐
//! binaries' lines of JSON ────┴─▶ Record ─▶ Row ─▶ table, document
//! ```
//!
//! A bench that can't run is named with the reason, and the command fails. The document is written only from a whole run.

mod document;
mod machine;
mod record;
mod table;

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use self::record::Record;
use crate::{packages, shell};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only benches whose name contains this; the document stays as it is.
    #[arg(long)]
    only: Option<String>,
    /// Measure shortly: to see that all benches run, and roughly what they give.
    #[arg(long)]
    quick: bool,
}

/// One bench: a target of the package `skep-benches`, and what it needs.
struct Bench {
    name: &'static str,
    kind: Kind,
    /// Whether it loads the eBPF programs.
    ebpf: bool,
    /// Programs, and the Debian packages that bring them.
    packages: &'static [(&'static str, &'static str)],
}

enum Kind {
    /// A criterion bench.
    Criterion,
    /// A binary that prints lines of JSON with `--json`; its arguments, and those of a short run.
    Binary { arguments: &'static [&'static str], quick: &'static [&'static str] },
}

/// Rivals first: what compares shall not wait for what does not.
const BENCHES: &[Bench] = &[
    Bench {
        name: "connects-against-iptables",
        kind: Kind::Binary { arguments: &[], quick: &["--connects", "500", "--turns", "4"] },
        ebpf: true,
        packages: &[("iptables-restore", "iptables"), ("ip", "iproute2")],
    },
    Bench { name: "sockets", kind: Kind::Criterion, ebpf: true, packages: &[("ip", "iproute2")] },
    Bench { name: "packets", kind: Kind::Criterion, ebpf: true, packages: &[] },
    Bench {
        name: "store-against-etcd",
        kind: Kind::Binary { arguments: &["4"], quick: &["1"] },
        ebpf: false,
        packages: &[("etcd", "etcd-server")],
    },
    Bench { name: "store", kind: Kind::Criterion, ebpf: false, packages: &[] },
    Bench { name: "scheduling", kind: Kind::Criterion, ebpf: false, packages: &[] },
];

/// What criterion is told when a run shall be short.
const SHORT: [&str; 6] = ["--warm-up-time", "0.3", "--measurement-time", "1", "--sample-size", "10"];

/// Runs the benches in order; all of them run even when one fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen: Vec<&Bench> = BENCHES
        .iter()
        .filter(|bench| args.only.as_ref().is_none_or(|only| bench.name.contains(only.as_str())))
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        let only = args.only.as_deref().unwrap_or_default();
        bail!("no bench has a name that contains {only:?}; there are {}", names.join(", "));
    }
    let mut wanted: Vec<_> = chosen.iter().flat_map(|bench| bench.packages).copied().collect();
    wanted.sort_unstable();
    wanted.dedup();
    // What can't be installed is said again by the bench that needs it.
    if let Err(error) = packages::ensure(&wanted) {
        eprintln!("{error:#}");
    }
    let facts = machine::facts()?;
    let mut records = Vec::new();
    let mut not_run = Vec::new();
    for bench in &chosen {
        eprintln!("\n== {}", bench.name);
        match bench.measure(args.quick) {
            Ok(measured) => records.extend(measured),
            Err(error) => not_run.push(format!("{}: {error:#}", bench.name)),
        }
    }
    let rows = table::rows(&records);
    println!("\n{facts}\n");
    if !rows.is_empty() {
        println!("{}", table::text(&rows));
    }
    for reason in &not_run {
        println!("NOT RUN  {reason}");
    }
    if !not_run.is_empty() {
        bail!("{} of {} benches did not run", not_run.len(), chosen.len());
    }
    if args.only.is_some() {
        eprintln!("docs/performance.md stays as it is: not every bench was asked for");
        return Ok(());
    }
    let command = if args.quick { "cargo xtask bench --quick" } else { "cargo xtask bench" };
    document::write(&format!("`{command}`, {facts}\n\n{}", table::markdown(&rows)))
}

impl Bench {
    fn measure(&self, quick: bool) -> Result<Vec<Record>> {
        for (program, package) in self.packages {
            if !shell::found(program) {
                bail!("there is no {program} (Debian's package {package})");
            }
        }
        if self.ebpf {
            if !rustix::process::geteuid().is_root() {
                bail!("eBPF programs, network namespaces and cgroups need root");
            }
            let own = std::env::current_exe().context("can't find this program's own file")?;
            run_aside(shell::command(&own.to_string_lossy(), ["build-ebpf"]))?;
        }
        match self.kind {
            Kind::Criterion => self.criterion(quick),
            Kind::Binary { arguments, quick: short } => self.binary(if quick { short } else { arguments }),
        }
    }

    fn criterion(&self, quick: bool) -> Result<Vec<Record>> {
        // A folder of this run's own: what another run left there is no result of this one.
        let home = shell::target().join("bench").join(self.name);
        match fs::remove_dir_all(&home) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("can't empty {}", home.display()));
            }
            Ok(()) | Err(_) => {}
        }
        let words = ["bench", "--locked", "--quiet", "--package", "skep-benches", "--bench", self.name, "--"];
        let mut command = shell::command("cargo", words);
        command.arg("--noplot").env("CRITERION_HOME", &home);
        if quick {
            command.args(SHORT);
        }
        run_aside(command)?;
        let records = record::of_criterion(&home)?;
        if records.is_empty() {
            bail!("criterion left no result in {}", home.display());
        }
        Ok(records)
    }

    fn binary(&self, arguments: &[&str]) -> Result<Vec<Record>> {
        let words = ["run", "--release", "--locked", "--quiet", "--package", "skep-benches", "--bin", self.name, "--"];
        let mut command = shell::command("cargo", words);
        command.arg("--json").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let output = command.spawn().and_then(std::process::Child::wait_with_output).context("can't start cargo")?;
        if !output.status.success() {
            bail!("it failed: {}", output.status);
        }
        record::of_lines(&String::from_utf8_lossy(&output.stdout))
    }
}

/// Runs a program whose output is progress, not the result: all of it goes to the standard error.
fn run_aside(mut command: Command) -> Result<()> {
    shell::run(command.stdin(Stdio::null()).stdout(Stdio::from(std::io::stderr())))
}
