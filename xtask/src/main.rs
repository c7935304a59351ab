//! `cargo xtask …`: everything that is done with this repository beyond `cargo build`. A file a command.

mod bench;
mod build_ebpf;
mod conformance;
mod deploy;
mod image;
mod lint;
mod packages;
mod rival;
mod shell;
mod test;
mod upstream;

use clap::{Parser, Subcommand};

/// Build, run, test and measure Skep.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures Skep beside its rivals, and writes the figures into docs/performance.md.
    Bench(bench::Args),
    /// Builds the eBPF programs, and prints the object's path.
    BuildEbpf(build_ebpf::Args),
    /// Runs Kubernetes' own conformance cases against a cluster, and says where Skep stands.
    Conformance(conformance::Args),
    /// Brings up a cluster on this machine, or takes it away.
    Deploy(deploy::Args),
    /// Writes container images of static binaries as OCI archives.
    Image(image::Args),
    /// Brings up upstream's own cluster to compare with, or takes it away.
    Rival(rival::Args),
    /// Runs every test, and says of each layer whether it ran.
    Test(test::Args),
    /// Checks format, lints, licences and documentation.
    Lint,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Bench(args) => bench::run(&args),
        Command::BuildEbpf(args) => build_ebpf::run(&args).map(drop),
        Command::Conformance(args) => conformance::run(&args),
        Command::Deploy(args) => deploy::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Rival(args) => rival::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Lint => lint::run(),
    }
}
