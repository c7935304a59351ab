//! `cargo xtask image`: container images of static binaries, as OCI archives that `ctr images import` and `skopeo` read.
//!
//! Invariant: the same binaries give the same bytes; no registry and no container runtime takes part.

mod archive;
mod busybox;
mod layer;

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::shell;

/// What `image` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder for the archives; target/images by default.
    #[arg(long)]
    output_dir: Option<PathBuf>,
    /// The name of the busybox image.
    #[arg(long, default_value = busybox::NAME)]
    busybox_name: String,
}

/// Writes every image, and prints the archives' paths.
pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = args.output_dir.clone().unwrap_or_else(|| shell::target().join("images"));
    println!("{}", busybox(&folder, &args.busybox_name)?.display());
    Ok(())
}

/// The images that examples use, in the default folder.
pub(crate) fn all() -> Result<Vec<PathBuf>> {
    Ok(vec![busybox(&shell::target().join("images"), busybox::NAME)?])
}

fn busybox(folder: &std::path::Path, name: &str) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    let path = folder.join("busybox.tar");
    let bytes = archive::write(name, &busybox::image()?)?;
    // Whole or not at all: whoever imports meanwhile reads the old one to its end.
    let next = folder.join("busybox.tar.next");
    std::fs::write(&next, bytes).with_context(|| format!("can't write {}", next.display()))?;
    std::fs::rename(&next, &path).with_context(|| format!("can't replace {}", path.display()))?;
    Ok(path)
}
