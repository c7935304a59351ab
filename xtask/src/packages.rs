//! Debian packages that a command needs: named first, then installed, and only those that are missing.

use anyhow::{Result, bail};

use crate::shell;

/// Makes sure that programs are there; each pair is a program and the package that brings it.
pub(crate) fn ensure(wanted: &[(&str, &str)]) -> Result<()> {
    let mut missing: Vec<&str> =
        wanted.iter().filter(|(program, _)| !shell::found(program)).map(|(_, package)| *package).collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    if !shell::found("apt-get") {
        bail!("these Debian packages (or what they bring) are needed and missing: {}", missing.join(" "));
    }
    eprintln!("Installing Debian packages: {}", missing.join(" "));
    shell::run(shell::command("apt-get", ["update", "-q"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    let mut args = vec!["install", "-y", "-q", "--no-install-recommends"];
    args.extend(missing);
    shell::run(shell::command("apt-get", args).env("DEBIAN_FRONTEND", "noninteractive"))
}
