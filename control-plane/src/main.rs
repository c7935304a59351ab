//! `skep-control-plane`: API server, scheduler and controllers in one process, on one store. It wires the crates beside it, and does nothing more.

mod credentials;
mod managers;
mod serve;
mod store;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// The control plane of a Skep cluster.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the Kubernetes API and runs the scheduler and the controllers.
    Serve(Box<serve::Args>),
    /// Writes kubeconfig files, with certificates of the cluster's own authority.
    Credentials(credentials::Args),
    /// Backs up, restores, checks and measures the embedded store of a control plane that is stopped.
    #[command(subcommand)]
    Store(store::Command),
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,fjall=warn,lsm_tree=warn")),
        )
        .with_writer(std::io::stderr)
        .init();
    match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Credentials(args) => credentials::run(&args),
        Command::Store(command) => store::run(&command),
    }
}
