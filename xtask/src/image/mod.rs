//! `cargo xtask image`: container images as OCI archives that `ctr images import` and `skopeo` read.
//!
//! Invariant: the same files give the same bytes; no registry and no container runtime takes part.

mod archive;
mod blobs;
mod busybox;
mod debian;
mod layer;
mod names;
mod pause;
pub(crate) mod suite;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell;
use archive::Named;
use blobs::Blobs;

/// What `image` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder for the archives; target/images by default.
    #[arg(long)]
    output_dir: Option<PathBuf>,
    /// The name of the busybox image.
    #[arg(long, default_value = busybox::NAME)]
    busybox_name: String,
    /// Writes the images of Kubernetes' end-to-end suite as well: minutes and a gigabyte the first time.
    #[arg(long)]
    suite: bool,
}

/// Writes the images, and prints the archives' paths.
pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = args.output_dir.clone().unwrap_or_else(folder);
    println!("{}", busybox(&folder, &args.busybox_name)?.display());
    if args.suite {
        let suite = suite::make()?;
        for name in suite.names() {
            eprintln!("{name}");
        }
        let path = folder.join("suite.tar");
        suite.write(&path)?;
        println!("{}", path.display());
    }
    Ok(())
}

/// The images that examples use, in the default folder.
pub(crate) fn all() -> Result<Vec<PathBuf>> {
    Ok(vec![busybox(&folder(), busybox::NAME)?])
}

/// Where images are made and kept.
fn folder() -> PathBuf {
    shell::target().join("images")
}

fn busybox(folder: &Path, name: &str) -> Result<PathBuf> {
    let blobs = Blobs::open(&self::folder().join("busybox"))?;
    let image = busybox::image(&blobs, busybox::Shell::Ash)?;
    let path = folder.join("busybox.tar");
    replace(&path, |out| archive::write(&blobs, &[Named { name: name.to_owned(), image }], out))?;
    Ok(path)
}

/// Writes a file, whole or not at all: whoever reads it meanwhile reads the old one to its end.
fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    }
    let next = path.with_extension("next");
    let file = File::create(&next).with_context(|| format!("can't write {}", next.display()))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write(&mut out)?;
    out.flush().with_context(|| format!("can't write {}", next.display()))?;
    fs::rename(&next, path).with_context(|| format!("can't replace {}", path.display()))
}
