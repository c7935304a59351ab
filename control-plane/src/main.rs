//! `skep-control-plane`: API server, scheduler and controllers in one process, on one store. It wires the crates beside it, and does nothing more.

mod credentials;
mod managers;
mod serve;

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
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .init();
    match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Credentials(args) => credentials::run(&args),
    }
}
