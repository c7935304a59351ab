//! `cargo xtask rival`: upstream's own cluster of one node, to compare with: what it lets pass of the conformance suite on
//! this kernel, and what it costs.
//!
//! Invariant: what it makes outside of its data directory is a network namespace, a link, a cgroup, all called `rival`,
//! and what kubelets and containerds leave wherever they run; `down` takes all of it away. A cluster of ours beside it shares nothing with it.

mod down;
mod files;
mod layout;
mod leftovers;
mod parts;
mod pki;
mod tunables;
mod up;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub(crate) use layout::Layout;

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
    /// Brings up upstream's cluster, with the images of its end-to-end suite.
    Up(Place),
    /// Takes it away, data included.
    Down(Place),
}

#[derive(clap::Args)]
struct Place {
    /// Where data, keys, logs and the kubeconfig are kept.
    #[arg(long, default_value = "/var/lib/skep-rival")]
    data_dir: PathBuf,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Build { sets } => {
            eprintln!("Programs of Kubernetes {KUBERNETES} and of what it runs with");
            println!("{}", upstream::ensure(sets)?.display());
            Ok(())
        }
        Command::Up(place) => {
            let layout = up(&place.data_dir)?;
            println!("Kubernetes {KUBERNETES} runs, one node, API on https://{}", layout.api());
            println!("\n  export KUBECONFIG={}\n", layout.kubeconfig().display());
            println!("`cargo xtask rival down` takes it away.");
            Ok(())
        }
        Command::Down(place) => down(&place.data_dir),
    }
}

/// Brings up upstream's cluster in a data directory, or finds it up, and returns where everything is.
///
/// # Errors
/// When a step fails: its name, and the end of a log.
pub(crate) fn up(data_dir: &Path) -> Result<Layout> {
    need_root()?;
    up::run(&absolute(data_dir)?)
}

/// Takes the cluster in a data directory away; where there is none, nothing happens.
///
/// # Errors
/// When something can't be ended or removed.
pub(crate) fn down(data_dir: &Path) -> Result<()> {
    need_root()?;
    down::run(&absolute(data_dir)?)
}

fn need_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("network namespaces, mounts and cgroups need root");
    }
    Ok(())
}

/// The data directory as processes and mounts show it.
fn absolute(data_dir: &Path) -> Result<PathBuf> {
    match data_dir.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(std::path::absolute(data_dir)?),
        Err(error) => Err(error).with_context(|| format!("can't use {}", data_dir.display())),
    }
}
