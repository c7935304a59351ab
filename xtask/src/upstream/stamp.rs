//! What a built program depends on, as a fingerprint. Pure but for reading a module's files.

use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use super::programs::Program;

/// A number over what a module of ours requires: `go.mod` names the versions, `go.sum` their content.
pub(super) fn of_module(folder: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    for name in ["go.mod", "go.sum"] {
        let file = folder.join(name);
        hasher.update(std::fs::read(&file).with_context(|| format!("can't read {}", file.display()))?);
        hasher.update([0]);
    }
    Ok(format!("{:x}", hasher.finalize()))
}

/// A number over the sources of a program of ours; none of theirs, which the module's sums stand for.
pub(super) fn of_sources(program: &Program, module: &Path) -> Result<Option<String>> {
    if !program.package.starts_with("./") {
        return Ok(None);
    }
    let folder = module.join(program.package);
    let entries = std::fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?;
    let mut files: Vec<_> = entries.collect::<std::io::Result<Vec<_>>>()?.iter().map(std::fs::DirEntry::path).collect();
    files.sort();
    let mut hasher = Sha256::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "go")) {
        hasher.update(std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?);
        hasher.update([0]);
    }
    Ok(Some(format!("{:x}", hasher.finalize())))
}

/// A number over that, the Go release, and how the program is built.
pub(super) fn of_program(program: &Program, module: &str, release: &str) -> String {
    let mut hasher = Sha256::new();
    for part in [module, release, program.package, &program.kind.words().join(" ")] {
        hasher.update(part);
        hasher.update([0]);
    }
    format!("{:x}", hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Set;

    #[test]
    fn another_requirement_release_or_way_to_build_is_another_fingerprint() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |sums: &str| {
            std::fs::write(folder.path().join("go.mod"), "module a\n").expect("written");
            std::fs::write(folder.path().join("go.sum"), sums).expect("written");
            of_module(folder.path()).expect("a fingerprint")
        };
        let (one, other) = (write("a v1"), write("a v2"));
        assert_eq!(one, write("a v1"));
        let programs = Set::Suite.programs();
        let mut all = vec![
            of_program(&programs[0], &one, "go1.26.8"),
            of_program(&programs[0], &other, "go1.26.8"),
            of_program(&programs[0], &one, "go1.26.9"),
            of_program(&programs[1], &one, "go1.26.8"),
        ];
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4);
    }
}
