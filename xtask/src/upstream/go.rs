//! The Go command: its release, building a program, and finding a module's sources.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::programs::{Kind, Module, Program};
use crate::shell;

/// The oldest minor release of Go 1 that Kubernetes' module is written for.
const OLDEST: u32 = 26;

/// The Go release, as `go1.26.8`.
///
/// # Errors
/// When there is none, or it is too old and can't bring a newer one.
pub(super) fn release() -> Result<String> {
    let fix = format!(
        "Kubernetes' own programs are built with Go 1.{OLDEST} or newer: install it from https://go.dev/dl and put its bin \
         folder on the PATH"
    );
    if !shell::found("go") {
        bail!("there is no `go` on the PATH. {fix}");
    }
    // Where it is asked counts: a toolchain that the module names is taken, and fetched where it may be.
    let mut command = Command::new("go");
    command.args(["env", "GOVERSION"]).current_dir(shell::root().join(Module::Kubernetes.folder()));
    let release = shell::output(&mut command).with_context(|| fix.clone())?.trim().to_owned();
    if minor(&release).is_some_and(|minor| minor < OLDEST) {
        bail!("this is {release}. {fix}");
    }
    Ok(release)
}

/// Builds a program.
///
/// # Errors
/// When a module can't be downloaded, or its sources can't be built.
pub(super) fn build(program: &Program, output: &Path) -> Result<()> {
    let mut command = Command::new("go");
    command
        .args(program.kind.words())
        .arg("-o")
        .arg(output)
        .arg(program.package)
        .current_dir(shell::root().join(program.module.folder()))
        // A workspace or flags of the user's own would change what is built.
        .env("GOWORK", "off")
        .env("GOFLAGS", "-mod=readonly")
        .env("CGO_ENABLED", if program.kind == Kind::Seccomp { "1" } else { "0" });
    shell::run(&mut command)
}

/// The folder of a module's sources.
///
/// # Errors
/// When it can't be downloaded.
pub(super) fn sources(ours: Module, theirs: &str) -> Result<PathBuf> {
    let folder = shell::root().join(ours.folder());
    let go = |words: &[&str]| {
        let mut command = Command::new("go");
        command.args(words).arg(theirs).current_dir(&folder).env("GOWORK", "off").env("GOFLAGS", "-mod=readonly");
        shell::output(&mut command)
    };
    go(&["mod", "download"])?;
    let listed = go(&["list", "-m", "-f", "{{.Dir}}"])?;
    let path = PathBuf::from(listed.trim());
    if !path.is_dir() {
        bail!("the sources of {theirs} are not at {:?}", listed.trim());
    }
    Ok(path)
}

/// The minor version of a release such as `go1.26.8` or `go1.27rc1`; none of one that is not numbered so.
fn minor(release: &str) -> Option<u32> {
    let rest = release.strip_prefix("go1.")?;
    rest[..rest.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_is_read_of_every_form_of_release() {
        assert_eq!(minor("go1.26.8"), Some(26));
        assert_eq!(minor("go1.27rc1"), Some(27));
        assert_eq!(minor("go1.26"), Some(26));
        assert_eq!(minor("devel +abc"), None);
    }
}
