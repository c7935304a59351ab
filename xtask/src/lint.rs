//! `cargo xtask lint`: format, clippy without warnings, bans, licences and sources of dependencies, documentation.

use anyhow::Result;

use crate::shell;

/// The version that `deny.toml` is written for.
const CARGO_DENY: &str = "0.20.2";

/// Runs every check; the first that fails ends it.
pub(crate) fn run() -> Result<()> {
    shell::run(&mut shell::command("cargo", ["fmt", "--all", "--check"]))?;
    shell::run(&mut shell::command(
        "cargo",
        ["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"],
    ))?;
    let deny = cargo_deny()?;
    // Advisories need a database from the network; they are checked where there is one: `cargo deny check advisories`.
    shell::run(&mut shell::command(&deny, ["--log-level", "error", "check", "bans", "licenses", "sources"]))?;
    shell::run(
        shell::command("cargo", ["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    println!("lint: format, clippy, dependencies and documentation are clean");
    Ok(())
}

/// cargo-deny, built once into the cache.
fn cargo_deny() -> Result<String> {
    let folder = shell::cache()?.join("cargo-deny");
    let program = folder.join("bin/cargo-deny");
    if !program.is_file() {
        eprintln!("Building cargo-deny {CARGO_DENY} into {} (once)", folder.display());
        let mut install = shell::command(
            "cargo",
            ["install", "--quiet", "--locked", "cargo-deny", "--version", CARGO_DENY, "--root"],
        );
        shell::run(install.arg(&folder).env_remove("CARGO_TARGET_DIR"))?;
    }
    Ok(program.to_string_lossy().into_owned())
}
