//! `cargo xtask build-ebpf`: builds the eBPF programs to `target/ebpf/skep-ebpf.o`.
//!
//! They need `core` built for `bpfel-unknown-none` and `bpf-linker`. A rustup nightly with rust-src and a `bpf-linker` on the
//! PATH are used where they are; else Debian's rustc, its sources and LLVM, and a bpf-linker built into the cache folder.
//! The object is cached by its sources' content: when nothing changed, nothing is built.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell;

const BPF_LINKER: &str = "0.13.0";
const DEBIAN: [&str; 5] = ["rustc-web", "cargo-web", "rust-web-src", "llvm-22-dev", "libpolly-22-dev"];

/// What `build-ebpf` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Builds even when nothing changed.
    #[arg(long)]
    pub(crate) force: bool,
}

/// Builds the programs where they changed, and returns the object's path.
pub(crate) fn run(args: &Args) -> Result<PathBuf> {
    let folder = shell::target().join("ebpf");
    std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let (object, stamp) = (folder.join("skep-ebpf.o"), folder.join("skep-ebpf.sources"));
    let sources = fingerprint(&shell::root().join("ebpf-programs"))?;
    let fresh = object.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|known| known == sources);
    if fresh && !args.force {
        eprintln!("eBPF programs: nothing changed");
    } else {
        let (mut cargo, flags) = toolchain()?;
        cargo
            .args(["build", "--release", "-Z", "build-std=core", "--target", "bpfel-unknown-none", "--target-dir"])
            .arg(&folder)
            .current_dir(shell::root().join("ebpf-programs"))
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", flags);
        shell::run(&mut cargo)?;
        let built = folder.join("bpfel-unknown-none/release/skep-ebpf");
        let next = folder.join("skep-ebpf.o.next");
        std::fs::copy(&built, &next).with_context(|| format!("can't copy {}", built.display()))?;
        std::fs::rename(&next, &object)?;
        // After the build: it may have written the lock file.
        std::fs::write(&stamp, fingerprint(&shell::root().join("ebpf-programs"))?)?;
    }
    println!("{}", object.display());
    Ok(object)
}

/// A cargo that can build for eBPF, and its rustflags.
fn toolchain() -> Result<(Command, String)> {
    if shell::found("bpf-linker") && nightly_has_sources() {
        eprintln!("eBPF programs: by the nightly toolchain and the bpf-linker on the PATH");
        let mut cargo = Command::new("rustup");
        cargo.args(["run", "nightly", "cargo"]);
        return Ok((cargo, flags("bpf-linker")));
    }
    eprintln!("eBPF programs: by Debian's rustc and LLVM 22");
    let missing: Vec<&str> = DEBIAN.into_iter().filter(|package| !installed(package)).collect();
    if !missing.is_empty() {
        if !shell::found("apt-get") {
            bail!(
                "eBPF programs need a rustup nightly with rust-src and a bpf-linker on the PATH (`rustup toolchain install \
                 nightly -c rust-src`, `cargo install bpf-linker`), or Debian with the packages {}",
                DEBIAN.join(" ")
            );
        }
        eprintln!("Installing Debian packages: {}", missing.join(" "));
        shell::run(shell::command("apt-get", ["update", "-q"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
        let words = ["install", "-y", "-q", "--no-install-recommends"].into_iter().chain(missing);
        shell::run(shell::command("apt-get", words).env("DEBIAN_FRONTEND", "noninteractive"))?;
    }
    let linker = linker()?;
    let mut cargo = Command::new("/usr/bin/cargo");
    // A cargo that runs this program by `cargo xtask` names its own rustc and toolchain to its children.
    for name in ["RUSTC", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        cargo.env_remove(name);
    }
    cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
    Ok((cargo, flags(&linker.to_string_lossy())))
}

/// The bpf-linker in the cache folder; built there when it is missing.
fn linker() -> Result<PathBuf> {
    let folder = shell::cache()?.join(format!("bpf-linker-{BPF_LINKER}"));
    let linker = folder.join("bin/bpf-linker");
    if !linker.is_file() {
        eprintln!("Building bpf-linker {BPF_LINKER} into {} (once, some minutes)", folder.display());
        let mut install = shell::command(
            "cargo",
            [
                "install",
                "bpf-linker",
                "--version",
                BPF_LINKER,
                "--no-default-features",
                "--features",
                "llvm-22",
                "--root",
            ],
        );
        install
            .arg(&folder)
            .env("RUSTFLAGS", "-L native=/usr/lib/llvm-22/lib")
            .env("LLVM_PREFIX", "/usr/lib/llvm-22")
            .env("LLVM_SYS_221_PREFIX", "/usr/lib/llvm-22");
        shell::run(&mut install)?;
    }
    Ok(linker)
}

fn flags(linker: &str) -> String {
    format!("-C linker={linker} -C link-arg=--btf -C debuginfo=2")
}

fn nightly_has_sources() -> bool {
    let output = Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]).output();
    output.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success() && Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir()
    })
}

fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f", "${db:Status-Status}", package]).stderr(Stdio::null());
    query.output().is_ok_and(|output| output.stdout == b"installed")
}

/// A number over the names and contents of all sources.
fn fingerprint(folder: &Path) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    for file in files {
        file.hash(&mut hasher);
        std::fs::read(&file).with_context(|| format!("can't read {}", file.display()))?.hash(&mut hasher);
    }
    BPF_LINKER.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}
