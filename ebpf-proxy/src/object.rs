//! Where the compiled eBPF programs come from: a file that is named, the binary itself, or what `cargo xtask build-ebpf` left.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

#[cfg(skep_ebpf_object)]
static EMBEDDED: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("SKEP_EBPF_OBJECT")));
#[cfg(not(skep_ebpf_object))]
static EMBEDDED: Option<&[u8]> = None;

/// No object was found.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// The named file can't be read.
    #[error("can't read the eBPF object {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// None was named, none is in the binary and none is beside it.
    #[error("no eBPF object: build it with `cargo xtask build-ebpf`, or name it with --ebpf-object")]
    Missing,
}

/// The object: from `named`, else from the binary, else `skep-ebpf.o` beside the binary or `ebpf/skep-ebpf.o` in a folder above it.
///
/// # Errors
/// When the named one can't be read, or none is found.
pub fn find(named: Option<&Path>) -> Result<Cow<'static, [u8]>, ObjectError> {
    if let Some(path) = named {
        let read = std::fs::read(path).map_err(|source| ObjectError::Read { path: path.to_owned(), source });
        return read.map(Cow::Owned);
    }
    if let Some(bytes) = EMBEDDED {
        return Ok(Cow::Borrowed(bytes));
    }
    let binary = std::env::current_exe().map_err(|_| ObjectError::Missing)?;
    let beside = binary.parent().map(|folder| folder.join("skep-ebpf.o"));
    let built = binary.ancestors().skip(1).map(|folder| folder.join("ebpf/skep-ebpf.o"));
    let found = beside.into_iter().chain(built).find_map(|path| std::fs::read(path).ok());
    found.map(Cow::Owned).ok_or(ObjectError::Missing)
}
