//! `cargo xtask rival`: upstream's own cluster, to compare with: what it lets pass of the conformance suite on this kernel, and what it costs.

use anyhow::Result;

use crate::upstream::{self, KUBERNETES, Set};

/// What `rival` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Builds upstream's programs, and prints their folder.
    Build {
        /// What to build.
        #[arg(value_enum, default_values = ["servers", "suite", "images"])]
        sets: Vec<Set>,
    },
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Build { sets } => {
            eprintln!("Programs of Kubernetes {KUBERNETES} and of what it runs with");
            println!("{}", upstream::ensure(sets)?.display());
            Ok(())
        }
    }
}
