//! Layers, configurations and manifests by their digests, in the folders of the registry `distribution` (its
//! `registry/storage/paths.go`): what is kept here once is served to those who pull, and put into archives.
//!
//! Invariant: a blob's file is whole and has the digest of its name. A layer is known by what it is made of as well, so
//! that one that is here is not made again.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

/// A folder of blobs.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    root: PathBuf,
}

/// A blob that is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Blob {
    hex: String,
    /// In bytes.
    pub(crate) size: u64,
}

impl Blob {
    /// As `sha256:…`.
    pub(crate) fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }

    /// The digest without its algorithm.
    pub(crate) fn hex(&self) -> &str {
        &self.hex
    }
}

impl Blobs {
    /// The blobs in a folder, which is made where it is not there.
    ///
    /// # Errors
    /// When it can't be made.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        for part in ["docker/registry/v2/blobs/sha256", "docker/registry/v2/repositories", "layers", "next"] {
            fs::create_dir_all(root.join(part)).with_context(|| format!("can't make {}", root.display()))?;
        }
        Ok(Self { root: root.to_owned() })
    }

    /// The folder, which is the root directory of a registry's file system storage.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A blob's file.
    pub(crate) fn file(&self, blob: &Blob) -> PathBuf {
        let (hex, first) = (blob.hex(), blob.hex().get(..2).unwrap_or_default());
        self.root.join("docker/registry/v2/blobs/sha256").join(first).join(hex).join("data")
    }

    /// A blob's content.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn read(&self, blob: &Blob) -> Result<Vec<u8>> {
        let file = self.file(blob);
        fs::read(&file).with_context(|| format!("can't read {}", file.display()))
    }

    /// Keeps a small blob.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn put(&self, content: &[u8]) -> Result<Blob> {
        self.make(|out| Ok(out.write_all(content)?))
    }

    /// The layer that is known by `key`, made where it is not there: `make` writes its tar file.
    ///
    /// # Errors
    /// When `make` fails, or its tar file can't be kept.
    pub(crate) fn layer(&self, key: &str, make: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Blob> {
        let known = self.root.join("layers").join(key);
        if let Some(blob) = fs::read_to_string(&known).ok().and_then(|line| parse(&line))
            && fs::metadata(self.file(&blob)).is_ok_and(|there| there.len() == blob.size)
        {
            return Ok(blob);
        }
        let blob = self.make(make)?;
        fs::write(&known, format!("{} {}\n", blob.hex, blob.size))
            .with_context(|| format!("can't write {}", known.display()))?;
        Ok(blob)
    }

    /// Puts a file of the registry's own beside the blobs; `path` begins below its folder.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn note(&self, path: &str, content: &str) -> Result<()> {
        let file = self.root.join("docker/registry/v2").join(path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        }
        fs::write(&file, content).with_context(|| format!("can't write {}", file.display()))
    }

    /// Removes every blob and layer but these: what earlier sources and programs gave.
    ///
    /// # Errors
    /// When one can't be removed.
    pub(crate) fn keep_only(&self, blobs: &[Blob]) -> Result<()> {
        for folder in entries(&self.root.join("docker/registry/v2/blobs/sha256"))? {
            for blob in entries(&folder)? {
                if !blobs.iter().any(|kept| blob.file_name().is_some_and(|name| name == kept.hex())) {
                    fs::remove_dir_all(&blob).with_context(|| format!("can't remove {}", blob.display()))?;
                }
            }
        }
        for known in entries(&self.root.join("layers"))? {
            let blob = fs::read_to_string(&known).ok().and_then(|line| parse(&line));
            if !blob.is_some_and(|blob| blobs.contains(&blob)) {
                fs::remove_file(&known).with_context(|| format!("can't remove {}", known.display()))?;
            }
        }
        Ok(())
    }

    fn make(&self, make: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Blob> {
        let next = self.root.join("next").join(std::process::id().to_string());
        let file = File::create(&next).with_context(|| format!("can't write {}", next.display()))?;
        let mut out = Hashing { out: BufWriter::with_capacity(1 << 20, file), hasher: Sha256::new(), size: 0 };
        make(&mut out)?;
        out.flush().with_context(|| format!("can't write {}", next.display()))?;
        let blob = Blob { hex: format!("{:x}", out.hasher.finalize()), size: out.size };
        let file = self.file(&blob);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        }
        fs::rename(&next, &file).with_context(|| format!("can't replace {}", file.display()))?;
        Ok(blob)
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))?;
    Ok(read.collect::<std::io::Result<Vec<_>>>()?.into_iter().map(|entry| entry.path()).collect())
}

fn parse(line: &str) -> Option<Blob> {
    let (hex, size) = line.trim().split_once(' ')?;
    Some(Blob { hex: hex.to_owned(), size: size.parse().ok()? })
}

struct Hashing {
    out: BufWriter<File>,
    hasher: Sha256,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blobs() -> (tempfile::TempDir, Blobs) {
        let folder = tempfile::tempdir().expect("a folder");
        let blobs = Blobs::open(folder.path()).expect("blobs");
        (folder, blobs)
    }

    #[test]
    fn a_blob_is_found_by_its_digest_in_the_registrys_folder() {
        let (folder, blobs) = blobs();
        let blob = blobs.put(b"abc").expect("kept");
        // The digest of FIPS 180-2's first example.
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((blob.hex(), blob.size), (hex, 3));
        let file = folder.path().join(format!("docker/registry/v2/blobs/sha256/ba/{hex}/data"));
        assert_eq!(fs::read(file).expect("there"), b"abc");
    }

    #[test]
    fn a_layer_is_made_once_for_a_key_and_again_when_its_blob_is_gone() {
        let (_folder, blobs) = blobs();
        let make = |out: &mut dyn Write| Ok(out.write_all(b"layer")?);
        let blob = blobs.layer("key", make).expect("made");
        let other = blobs.layer("key", |_| anyhow::bail!("made again")).expect("known");
        assert_eq!(blob, other);
        fs::remove_file(blobs.file(&blob)).expect("removed");
        assert_eq!(blobs.layer("key", make).expect("made again"), blob);
        assert!(blobs.file(&blob).is_file());
    }

    #[test]
    fn what_is_not_kept_goes_with_its_key() {
        let (_folder, blobs) = blobs();
        let old = blobs.layer("old", |out| Ok(out.write_all(b"old")?)).expect("made");
        let new = blobs.layer("new", |out| Ok(out.write_all(b"new")?)).expect("made");
        blobs.keep_only(std::slice::from_ref(&new)).expect("cleaned");
        assert_eq!((blobs.file(&old).exists(), blobs.file(&new).exists()), (false, true));
        let remade = blobs.layer("old", |out| Ok(out.write_all(b"other")?)).expect("made");
        assert_ne!(remade, old);
    }
}
