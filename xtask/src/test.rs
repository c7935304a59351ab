//! `cargo xtask test`: every layer of tests, each named with what became of it. A layer that could not run is reported as skipped, and fails the command.

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

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
    /// What it runs that no package brings as it is needed, and how it is had.
    programs: &'static [(&'static str, &'static str)],
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
            let tests = ["--lib", "--test=bad_input", "--test=durability", "--test=kubectl", "--test=node_lifecycle"];
            vec![
                cargo(&["build", "--package", "skep-control-plane"]),
                cargo(&[&["test", "--package", "skep-tests"], &tests[..]].concat()),
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
        name: "cluster: deployed, used by every kubectl, damaged, taken away",
        packages: &[("iptables-save", "iptables"), ("nft", "nftables"), ("script", "bsdutils")],
        programs: &[],
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
        programs: &[("go", "install Go from https://go.dev/dl: Kubernetes' suite is built with it")],
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
        let missing = layer.programs.iter().find(|(program, _)| !shell::found(program));
        let outcome = match (missing, packages::ensure(layer.packages)) {
            (Some((program, how)), _) => Outcome::Skipped(format!("there is no `{program}`: {how}")),
            (None, Err(error)) => Outcome::Skipped(format!("{error:#}")),
            (None, Ok(())) => match (layer.commands)().iter_mut().try_for_each(shell::run) {
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
