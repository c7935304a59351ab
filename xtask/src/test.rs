//! `cargo xtask test`: every layer of tests, each named with what became of it. A layer that could not run is reported as skipped, and fails the command.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::upstream::{self, Set};
use crate::{packages, shell};

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only layers whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

/// One layer: what it is, how it is run, and what it needs.
struct Layer {
    name: &'static str,
    /// What it runs, and the Debian package that brings it.
    packages: &'static [(&'static str, &'static str)],
    /// Programs that are built first; their folder is told by `SKEP_PROGRAMS`.
    programs: &'static [Set],
    commands: fn() -> Vec<Command>,
}

const LAYERS: &[Layer] = &[
    Layer {
        name: "pure: objects, schemas, patches, decisions",
        packages: &[],
        programs: &[],
        commands: || vec![cargo(&["test", "--workspace", "--exclude", "skep-tests", "--lib", "--bins"])],
    },
    Layer {
        name: "store: contract, model, crashes, histories",
        packages: &[],
        programs: &[],
        commands: || vec![cargo(&["test", "--package", "skep-store", "--tests"])],
    },
    Layer {
        name: "API server and controllers: over the real socket, with every kubectl",
        packages: &[],
        programs: &[],
        commands: || {
            // The cluster's tests are the one target of this package that is not run here.
            let tests = ["--lib", "--test=bad_input", "--test=durability", "--test=kubectl", "--test=node_lifecycle"];
            vec![
                cargo(&["test", "--package", "skep-apiserver", "--package", "skep-controllers", "--test=*"]),
                cargo(&["build", "--package", "skep-control-plane"]),
                cargo(&[&["test", "--package", "skep-tests", "--test=protobuf"], &tests[..]].concat()),
            ]
        },
    },
    Layer {
        name: "scheduler: against a real API server",
        packages: &[],
        programs: &[],
        commands: || vec![cargo(&["test", "--package", "skep-scheduler", "--tests"])],
    },
    Layer {
        name: "kubelet: a real containerd and runc",
        packages: &[
            ("containerd", "containerd"),
            ("runc", "runc"),
            ("busybox", "busybox-static"),
            ("/usr/lib/cni/bridge", "containernetworking-plugins"),
        ],
        programs: &[],
        // What is ignored elsewhere needs the last of these packages.
        commands: || vec![cargo(&["test", "--package", "skep-kubelet", "--tests", "--", "--include-ignored"])],
    },
    Layer {
        name: "network: eBPF programs in the real kernel",
        packages: &[("ip", "iproute2")],
        programs: &[],
        commands: || vec![cargo(&["xtask", "build-ebpf"]), cargo(&["test", "--package", "skep-ebpf-proxy", "--tests"])],
    },
    Layer {
        name: "cluster: deployed, used by every kubectl, Helm, client-go and an operator, damaged, taken away",
        packages: &[("iptables-save", "iptables"), ("nft", "nftables"), ("script", "bsdutils")],
        programs: &[Set::Clients],
        commands: || {
            let build = ["build", "--package", "skep-control-plane", "--package", "skep-kubelet"];
            let bins = ["--package", "skep-ebpf-proxy", "--package", "xtask", "--bins"];
            vec![
                cargo(&["xtask", "build-ebpf"]),
                cargo(&[&build[..], &bins[..]].concat()),
                cargo(&["test", "--package", "skep-tests", "--test=cluster"]),
            ]
        },
    },
    Layer {
        name: "conformance: cases of Kubernetes' own suite that pass, on a cluster of two nodes",
        packages: &[("docker-registry", "docker-registry")],
        programs: &[Set::Suite, Set::Images],
        commands: || vec![cargo(&["xtask", "conformance", "--smoke", "--profile", "dev"])],
    },
];

/// Runs the layers in order; all of them run even when one fails.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut report = Vec::new();
    for layer in LAYERS {
        if args.only.as_ref().is_some_and(|only| !layer.name.contains(only.as_str())) {
            continue;
        }
        let begun = Instant::now();
        eprintln!("\n== {}", layer.name);
        let outcome = match needed(layer) {
            Err(error) => Outcome::Skipped(format!("{error:#}")),
            Ok(programs) => match (layer.commands)().into_iter().try_for_each(|mut command| {
                command.envs(programs.as_ref().map(|folder| ("SKEP_PROGRAMS", folder)));
                shell::run(&mut command)
            }) {
                Ok(()) => Outcome::Passed,
                Err(error) => Outcome::Failed(format!("{error:#}")),
            },
        };
        report.push((layer.name, outcome, begun.elapsed().as_secs()));
    }
    println!();
    for (name, outcome, seconds) in &report {
        let (word, why) = match outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed(why) => ("FAILED", why.as_str()),
            Outcome::Skipped(why) => ("SKIPPED", why.as_str()),
        };
        println!("{word:8} {seconds:4} s  {name}  {why}");
    }
    let count = |wanted: fn(&Outcome) -> bool| report.iter().filter(|(_, outcome, _)| wanted(outcome)).count();
    let passed = count(|outcome| matches!(outcome, Outcome::Passed));
    let failed = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped(_)));
    println!("layers: {passed} passed, {failed} failed, {skipped} skipped");
    if failed + skipped > 0 {
        bail!("not every layer passed");
    }
    if passed == 0 {
        bail!("no layer has a name that contains {:?}", args.only.as_deref().unwrap_or_default());
    }
    Ok(())
}

/// Installs and builds what a layer needs.
fn needed(layer: &Layer) -> Result<Option<PathBuf>> {
    packages::ensure(layer.packages)?;
    if layer.programs.is_empty() { Ok(None) } else { upstream::ensure(layer.programs).map(Some) }
}

enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

fn cargo(args: &[&str]) -> Command {
    // `cargo xtask` takes no flags of cargo's build; the others take them before what goes to the tests.
    match args {
        ["xtask", ..] => shell::command("cargo", args),
        [verb, rest @ ..] => {
            let mut command = shell::command("cargo", [verb, &"--locked", &"--quiet"]);
            command.args(rest);
            command
        }
        [] => shell::command("cargo", args),
    }
}
