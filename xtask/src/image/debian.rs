//! A Debian root by `debootstrap` as a layer: what the suite's containers run besides their own programs.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use super::blobs::{Blob, Blobs};
use crate::deploy::mounts;
use crate::{packages, shell};

const SUITE: &str = "bookworm";
/// What cases call besides a shell: DNS and HTTP clients, sockets, IPC, load, a web server, Perl.
const PACKAGES: [&str; 15] = [
    "adduser",
    "bash",
    "curl",
    "dnsutils",
    "iperf",
    "iproute2",
    "iputils-ping",
    "netcat-openbsd",
    "nginx-light",
    "perl",
    "procps",
    "socat",
    "stress",
    "util-linux",
    "wget",
];
/// The user of "SupplementalGroups with pre-defined group in the image", and its second group (agnhost's Dockerfile).
const SETUP: &str = "useradd --uid 1000 --create-home user-defined-in-image && \
                     groupadd --gid 50000 group-defined-in-image && \
                     usermod --append --groups group-defined-in-image user-defined-in-image";
/// What nothing in a container reads.
const LEFT_OUT: [&str; 6] =
    ["var/cache/apt", "var/lib/apt/lists", "var/cache/debconf", "usr/share/doc", "usr/share/man", "usr/share/locale"];
/// Counts changes of how the root is made.
const RECIPE: &str = "1";

/// The layer, made where it is not known: minutes, and Debian's archive is asked.
///
/// # Errors
/// When the archive does not answer, or a package is not there.
pub(super) fn layer(blobs: &Blobs, folder: &Path) -> Result<Blob> {
    let key = format!("debian-{:x}", Sha256::digest(format!("{RECIPE} {SUITE} {SETUP} {PACKAGES:?} {LEFT_OUT:?}")));
    blobs.layer(&key, |out| {
        packages::ensure(&[("debootstrap", "debootstrap"), ("tar", "tar")])?;
        let root = folder.join("debian");
        remove(&root)?;
        let made = make(&root, &folder.join("debootstrap.log")).and_then(|()| pack(&root, out));
        remove(&root)?;
        made
    })
}

fn make(root: &Path, log: &Path) -> Result<()> {
    eprintln!("Making a Debian root (minutes, once); log: {}", log.display());
    let output = File::create(log).with_context(|| format!("can't write {}", log.display()))?;
    let include = format!("--include={}", PACKAGES.join(","));
    let status = Command::new("debootstrap")
        .args(["--variant=minbase", &include, SUITE])
        .arg(root)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .context("can't start debootstrap")?;
    if !status.success() {
        let text = fs::read_to_string(log).unwrap_or_default();
        let end: Vec<&str> = text.lines().rev().take(5).collect();
        bail!("debootstrap failed: {status}; {}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    shell::output(Command::new("chroot").arg(root).args(["/bin/sh", "-c", SETUP]))?;
    // As in the image of busybox: the environment's names stay.
    let sh = root.join("bin/sh");
    fs::remove_file(&sh).and_then(|()| symlink("bash", &sh)).context("can't make bash the root's sh")?;
    LEFT_OUT.iter().try_for_each(|path| mounts::remove(&root.join(path)))
}

/// Owners, modes and links as they are, all of one date. Device nodes stay out: a container has its own.
fn pack(root: &Path, out: &mut dyn Write) -> Result<()> {
    let mut tar = Command::new("tar")
        .args(["--create", "--sort=name", "--numeric-owner", "--mtime=@0", "--format=gnu", "--exclude=./dev/*"])
        .arg("--directory")
        .arg(root)
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()
        .context("can't start tar")?;
    let copied = tar.stdout.take().map(|mut stdout| std::io::copy(&mut stdout, out));
    let status = tar.wait().context("can't wait for tar")?;
    copied.transpose().context("can't keep the Debian root")?;
    if !status.success() {
        bail!("tar failed: {status}");
    }
    Ok(())
}

/// Also one that was left half-way: debootstrap mounts /proc in it.
fn remove(root: &Path) -> Result<()> {
    mounts::unmount_below(root)?;
    mounts::remove(root)
}
