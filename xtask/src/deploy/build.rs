//! Building what a cluster runs, and giving it its own copies.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::layout::Layout;
use crate::shell;

const BINARIES: [&str; 4] = ["skep-control-plane", "skep-kubelet", "skep-ebpf-proxy", "skep-cni"];

/// How the binaries are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Profile {
    /// For use: optimised.
    Release,
    /// For development: built in less time.
    Dev,
}

impl Profile {
    /// Where cargo puts this profile's binaries.
    fn folder(self) -> PathBuf {
        shell::target().join(match self {
            Self::Release => "release",
            Self::Dev => "debug",
        })
    }
}

/// Builds the binaries.
///
/// # Errors
/// When cargo fails.
pub(crate) fn binaries(profile: Profile) -> Result<()> {
    let mut words = vec!["build", "--locked"];
    if profile == Profile::Release {
        words.push("--release");
    }
    words.extend([
        "--package",
        "skep-control-plane",
        "--package",
        "skep-kubelet",
        "--package",
        "skep-ebpf-proxy",
        "--bins",
    ]);
    shell::run(&mut shell::command("cargo", words))
}

/// Copies binaries and eBPF programs to the cluster's own folder; processes that run keep the files that they have.
///
/// # Errors
/// When one is not built, or can't be copied.
pub(crate) fn install(layout: &Layout, profile: Profile, ebpf: &Path) -> Result<()> {
    let folder = layout.bin_dir();
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    for name in BINARIES {
        copy(&profile.folder().join(name), &layout.binary(name))?;
    }
    copy(ebpf, &layout.ebpf_object())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let next = to.with_extension("next");
    fs::copy(from, &next).with_context(|| format!("can't copy {} to {}", from.display(), next.display()))?;
    fs::rename(&next, to).with_context(|| format!("can't replace {}", to.display()))
}
