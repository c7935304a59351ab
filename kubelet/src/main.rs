//! The binary `skep-kubelet`: so far the log driver that containerd's shim starts beside each container.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use skep_kubelet::logs::{driver, writer::Rotation};

#[derive(Parser)]
#[command(version, about = "The node agent of Skep")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes one container's output to its log; started by containerd's shim, not by hand.
    LogDriver {
        /// The log file, in the form `<max bytes>,<max files>,<absolute path>`.
        target: String,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::LogDriver { target } => {
            let (rotation, path) = parse_target(&target)?;
            driver::run(&path, rotation)?;
            Ok(())
        }
    }
}

fn parse_target(target: &str) -> anyhow::Result<(Rotation, PathBuf)> {
    driver::parse_target(target)
        .ok_or_else(|| anyhow::anyhow!("log target {target:?} is not <max bytes>,<max files>,<absolute path>"))
}
