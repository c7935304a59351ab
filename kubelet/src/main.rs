//! The binary `skep-kubelet`: the node agent, and the log driver that containerd's shim starts beside each container.

use anyhow::Context;
use clap::{Parser, Subcommand};
use skep_kubelet::agent;
use skep_kubelet::logs::driver::{self, Target};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

#[derive(Parser)]
#[command(version, about = "The node agent of Skep")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the pods that are bound to this node.
    Run(Box<agent::Config>),
    /// Writes one container's output to its log; started by containerd's shim or the kubelet, not by hand.
    LogDriver {
        /// Where the output comes from and goes to, as JSON.
        target: String,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run(config) => {
            let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(run(*config))
        }
        Command::LogDriver { target } => {
            let target =
                Target::parse(&target).ok_or_else(|| anyhow::anyhow!("{target:?} says no log of a container"))?;
            Ok(driver::run(&target)?)
        }
    }
}

async fn run(config: agent::Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    let stop = CancellationToken::new();
    let mut running = std::pin::pin!(agent::run(config, stop.clone()));
    tokio::select! {
        result = &mut running => return result,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.cancel();
    running.await
}
