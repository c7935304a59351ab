//! Programs that nobody here wrote, built from their Go modules: Kubernetes' own end-to-end suite, what its test images
//! run, and the servers of an upstream cluster to compare with; and clients of ours in Go. No source of theirs is in this repository.
//!
//! Invariant: a program in the folder that [`ensure`] returns is whole, and made of exactly what its module's sums, the Go
//! release and the table in `programs.rs` say; each has a stamp with the fingerprint of these, and what has another is
//! built again. The Go build cache makes that a matter of linking where only some of it changed.

mod go;
mod programs;
mod stamp;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use crate::{packages, shell};
use programs::{Kind, Module, Program};

pub(crate) use programs::KUBERNETES;

/// Programs that are needed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Set {
    /// `e2e.test`, the `ginkgo` that runs it, and the `kubectl` that it calls.
    Suite,
    /// What the suite's images run: `agnhost`, `sample-apiserver`, `etcd`, `coredns` and others.
    Images,
    /// An upstream cluster: `kube-apiserver`, `kubelet`, `etcd`, `containerd`, `runc` and others.
    Servers,
    /// `scheduler-*.test`: the scheduler's own benchmark (`scheduler_perf`), and its etcd.
    SchedulerBenchmark,
    /// What uses a cluster as users do: `helm`, and programs of ours with controller-runtime and client-go.
    Clients,
}

impl Set {
    #[cfg(test)]
    const ALL: [Self; 5] = [Self::Suite, Self::Images, Self::Servers, Self::SchedulerBenchmark, Self::Clients];
}

/// Builds what is missing of some sets, and returns the folder that has all of it, each program under its own name: it
/// can be put in front of `PATH`. Shows what is built; when all is there it takes well below a second.
///
/// # Errors
/// When Go is not there, a module can't be downloaded, or a program can't be built.
pub(crate) fn ensure(sets: &[Set]) -> Result<PathBuf> {
    let folder = folder()?;
    let stamps = folder.join(".stamps");
    fs::create_dir_all(&stamps).with_context(|| format!("can't make {}", stamps.display()))?;
    let mut programs: Vec<Program> = Vec::new();
    for program in sets.iter().flat_map(|set| set.programs()) {
        if !programs.contains(&program) {
            programs.push(program);
        }
    }

    // Another command may build the same: it is waited for, and what it built is found then.
    let lock = fs::File::create(stamps.join("lock")).context("can't make the lock file")?;
    flock(&lock, FlockOperation::LockExclusive).context("can't lock the folder of upstream's programs")?;
    let release = go::release()?;
    let fingerprints = Module::ALL.map(|module| stamp::of_module(&shell::root().join(module.folder())));
    let mut missing = Vec::new();
    for program in programs {
        let at = Module::ALL.iter().position(|module| *module == program.module);
        let module = at.and_then(|at| fingerprints[at].as_ref().ok());
        let Some(module) = module else { bail!("{} is not readable", program.module.folder().display()) };
        let sources = stamp::of_sources(&program, &shell::root().join(program.module.folder()))?;
        let wanted = stamp::of_program(&program, module, &release) + sources.as_deref().unwrap_or_default();
        let stamp = stamps.join(program.name);
        if !folder.join(program.name).is_file() || fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
            missing.push((program, stamp, wanted));
        }
    }
    if missing.iter().any(|(program, ..)| program.kind == Kind::Seccomp) {
        packages::ensure(&[
            ("gcc", "gcc"),
            ("pkg-config", "pkg-config"),
            ("/usr/include/seccomp.h", "libseccomp-dev"),
            ("/usr/include/stdlib.h", "libc6-dev"),
        ])?;
    }
    for (number, (program, stamp, wanted)) in missing.iter().enumerate() {
        let Program { name, package, .. } = program;
        eprintln!("[{}/{}] building {name} of {package} (minutes the first time)", number + 1, missing.len());
        let next = folder.join(format!(".{name}.next"));
        go::build(program, &next)?;
        // What runs keeps the file that it has.
        fs::rename(&next, folder.join(name)).with_context(|| format!("can't replace {name}"))?;
        fs::write(stamp, wanted).with_context(|| format!("can't write {}", stamp.display()))?;
    }
    Ok(folder)
}

/// The folder of the sources of one of upstream's modules, such as `k8s.io/kubernetes`, downloaded where it is missing.
///
/// # Errors
/// When the module is not one that `tests/conformance/go.mod` requires, or can't be downloaded.
pub(crate) fn sources(module: &str) -> Result<PathBuf> {
    go::sources(Module::Kubernetes, module)
}

/// Where programs are kept: in the cache where there is one for tools, else beside what cargo builds.
fn folder() -> Result<PathBuf> {
    let folder = shell::kept()?.join("conformance/bin");
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    Path::canonicalize(&folder).with_context(|| format!("can't use {}", folder.display()))
}
