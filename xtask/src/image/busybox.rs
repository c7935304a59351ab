//! The image of Debian's static busybox: a shell, a web server and every other applet.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::archive::{Config, Image};
use super::blobs::{Blob, Blobs};
use super::layer::Tree;
use crate::packages;

/// What the image is called where nothing else is said.
pub(crate) const NAME: &str = "localhost/skep/busybox:latest";

/// `sh` where it is [`Shell::AshOrBash`].
const CHOICE: &str = r#"#!/bin/bash-static
while IFS= read -r -d '' variable; do
    [[ ${variable%%=*} =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || exec -a "$0" /bin/bash-static --posix "$@"
done </proc/self/environ
exec -a "$0" /bin/busybox "$@"
"#;
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// Which shell `sh` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shell {
    /// busybox's own.
    Ash,
    /// busybox's own, or bash where the environment has variables with names that no shell variable can have, such as
    /// `data-1`: busybox's own, as Debian builds it, drops these, and Kubernetes lets Secrets and ConfigMaps bring them.
    AshOrBash,
}

/// Makes the image of this machine's busybox; installs Debian's where there is none.
///
/// # Errors
/// When there is none, or it needs libraries.
pub(crate) fn image(blobs: &Blobs, shell: Shell) -> Result<Image> {
    let layer = layer(blobs, shell)?;
    Image::new(blobs, &[layer], &Config { cmd: vec!["sh".to_owned()], ..Config::default() })
}

/// The image's only layer.
fn layer(blobs: &Blobs, shell: Shell) -> Result<Blob> {
    packages::ensure(&[("busybox", "busybox-static")])?;
    let binary = find("busybox")?;
    let listed = Command::new(&binary).arg("--list-full").output().context("can't start busybox")?;
    if !listed.status.success() {
        bail!("`busybox --list-full` failed: {}", listed.status);
    }
    let shell = match shell {
        Shell::Ash => None,
        Shell::AshOrBash => {
            packages::ensure(&[("bash-static", "bash-static")])?;
            Some(static_program("bash-static")?)
        }
    };
    let tree = tree(static_program("busybox")?, &String::from_utf8_lossy(&listed.stdout), shell);
    blobs.layer(&tree.key()?, |out| tree.write(out))
}

/// The file system: the binary, a link for each applet, and what programs expect of a system.
fn tree(binary: Vec<u8>, applets: &str, shell: Option<Vec<u8>>) -> Tree {
    let mut tree = Tree::default();
    // In /bin as well, where busybox's own image has them all.
    let in_bin = |path: &str| path.rsplit_once('/').map(|(_, name)| format!("bin/{name}"));
    let applets: BTreeSet<String> = applets
        .lines()
        .flat_map(|path| [Some(path.to_owned()), in_bin(path)].into_iter().flatten())
        .filter(|path| !path.is_empty() && path != "bin/busybox")
        .collect();
    let mut folders: BTreeSet<&str> =
        ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "usr/bin", "usr/sbin", "var"].into();
    for applet in &applets {
        let mut folder = applet.as_str();
        while let Some((parent, _)) = folder.rsplit_once('/') {
            folders.insert(parent);
            folder = parent;
        }
    }
    for folder in folders {
        let mode = match folder {
            "tmp" => 0o1777,
            "root" => 0o700,
            _ => 0o755,
        };
        tree.directory(folder, mode);
    }
    tree.file("bin/busybox", 0o755, binary);
    for applet in &applets {
        match &shell {
            Some(bash) if applet == "bin/sh" => {
                tree.file("bin/bash-static", 0o755, bash.clone());
                tree.file(applet, 0o755, CHOICE);
            }
            Some(_) | None => tree.link(applet, "/bin/busybox"),
        }
    }
    tree.file("etc/passwd", 0o644, PASSWD);
    tree.file("etc/group", 0o644, GROUP);
    tree
}

fn static_program(name: &str) -> Result<Vec<u8>> {
    let binary = find(name)?;
    let content = std::fs::read(&binary).with_context(|| format!("can't read {}", binary.display()))?;
    if has_interpreter(&content) {
        bail!("{} is linked dynamically: install Debian's package of its static build", binary.display());
    }
    Ok(content)
}

fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/bin".into(), "/usr/bin".into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("{name} is not on the PATH"))
}

/// Whether a 64-bit ELF file asks for a dynamic linker (a program header of type PT_INTERP; System V ABI, chapter 5).
fn has_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = elf.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let headers = || Some((number(32, 8)?, number(54, 2)?, number(56, 2)?));
    let Some((offset, size, count)) = headers() else { return false };
    (0..count).filter_map(|index| number(offset.checked_add(index * size)?, 4)).any(|kind| kind == PT_INTERP as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_applet_is_a_link_in_a_folder_that_comes_before_it() {
        let entries = entries(&tree(b"binary".to_vec(), "bin/sh\nusr/lib/deep/thing\nbin/busybox\n", None));
        let at = |path: &str| entries.iter().position(|(there, _)| there.trim_end_matches('/') == path);
        assert!(at("usr/lib") < at("usr/lib/deep") && at("usr/lib/deep") < at("usr/lib/deep/thing"));
        for applet in ["bin/sh", "bin/thing"] {
            assert_eq!(entries[at(applet).expect("there")].1.as_deref(), Some("/bin/busybox"));
        }
        assert_eq!(entries.iter().filter(|(path, _)| path == "bin/busybox").count(), 1);
    }

    #[test]
    fn a_choice_of_shells_takes_the_place_of_the_applet() {
        let entries = entries(&tree(b"binary".to_vec(), "bin/ls\nbin/sh\n", Some(b"bash".to_vec())));
        let shells: Vec<_> = entries.iter().filter(|(path, _)| path == "bin/sh").collect();
        assert_eq!(shells, [&("bin/sh".to_owned(), None)]);
    }

    fn entries(tree: &Tree) -> Vec<(String, Option<String>)> {
        let mut archive = Vec::new();
        tree.write(&mut archive).expect("a tar file");
        let mut reader = tar::Archive::new(archive.as_slice());
        reader
            .entries()
            .expect("entries")
            .map(|entry| {
                let entry = entry.expect("an entry");
                let target = entry.link_name().expect("a name").map(|target| target.display().to_string());
                (entry.path().expect("a path").display().to_string(), target)
            })
            .collect()
    }

    #[test]
    fn a_dynamically_linked_binary_is_told_from_a_static_one() {
        let own = std::fs::read(std::env::current_exe().expect("a path")).expect("this test's binary");
        assert!(has_interpreter(&own));
        assert!(!has_interpreter(b"\x7fELF"));
    }
}
