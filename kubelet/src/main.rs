//! The binary `skep-kubelet`: so far the log driver that containerd's shim starts beside each container.

use clap::{Parser, Subcommand};
use skep_kubelet::logs::driver::{self, Target};

#[derive(Parser)]
#[command(version, about = "The node agent of Skep")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes one container's output to its log; started by containerd's shim or the kubelet, not by hand.
    LogDriver {
        /// Where the output comes from and goes to, as JSON.
        target: String,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::LogDriver { target } => {
            let target =
                Target::parse(&target).ok_or_else(|| anyhow::anyhow!("{target:?} says no log of a container"))?;
            Ok(driver::run(&target)?)
        }
    }
}
