//! Upstream's `pause`, which holds a pod's namespaces and ends at once when it is told to: compiled from its source of 70 lines.

use std::path::Path;

use anyhow::Result;

use super::blobs::{Blob, Blobs};
use super::layer::Tree;
use crate::{packages, shell};

/// The layer of `/pause`, of `build/pause/linux/pause.c` below Kubernetes' sources.
///
/// # Errors
/// When it can't be compiled.
pub(super) fn layer(blobs: &Blobs, sources: &Path, tag: &str) -> Result<Blob> {
    let source = sources.join("build/pause/linux/pause.c");
    let mut recipe = Tree::default();
    recipe.copy("pause.c", 0o644, &source);
    recipe.file("tag", 0o644, tag);
    blobs.layer(&format!("pause-{}", recipe.key()?), |out| {
        packages::ensure(&[("gcc", "gcc"), ("/usr/include/stdlib.h", "libc6-dev")])?;
        let binary = blobs.root().join("next/pause");
        let mut gcc = shell::command("gcc", ["-Os", "-static", "-s", &format!("-DVERSION=v{tag}"), "-o"]);
        shell::run(gcc.arg(&binary).arg(&source))?;
        let mut tree = Tree::default();
        tree.copy("pause", 0o755, &binary);
        tree.write(out)?;
        Ok(std::fs::remove_file(&binary)?)
    })
}
