//! A tree of files, written as tar: everything is root's and of one date, so that equal trees are equal bytes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// Files, directories and links in the order in which they were put in. Directories above them are put in with them.
#[derive(Default)]
pub(crate) struct Tree {
    entries: Vec<Entry>,
    directories: BTreeSet<String>,
}

struct Entry {
    path: String,
    mode: u32,
    content: Content,
}

enum Content {
    Directory,
    Bytes(Vec<u8>),
    /// A file of this machine, read when the tree is written.
    Copy(PathBuf),
    Link(String),
}

impl Tree {
    /// A directory.
    pub(crate) fn directory(&mut self, path: &str, mode: u32) {
        self.parents(path);
        if self.directories.insert(path.to_owned()) {
            self.entries.push(Entry { path: format!("{path}/"), mode, content: Content::Directory });
        }
    }

    /// A file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.put(path, mode, Content::Bytes(content.into()));
    }

    /// A copy of a file of this machine.
    pub(crate) fn copy(&mut self, path: &str, mode: u32, from: impl Into<PathBuf>) {
        self.put(path, mode, Content::Copy(from.into()));
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.put(path, 0o777, Content::Link(target.to_owned()));
    }

    /// What the tree's tar file is known by: its own files by their content, the machine's by their size and date.
    ///
    /// # Errors
    /// When one of the machine's files is not there.
    pub(crate) fn key(&self) -> Result<String> {
        let mut hasher = Sha256::new();
        for Entry { path, mode, content } in &self.entries {
            hasher.update(format!("{path}\0{mode:o}\0"));
            match content {
                Content::Directory => hasher.update("directory"),
                Content::Bytes(bytes) => hasher.update(Sha256::digest(bytes)),
                Content::Copy(from) => {
                    let there = fs::metadata(from).with_context(|| format!("can't read {}", from.display()))?;
                    let (size, seconds, nanoseconds) = (there.len(), there.mtime(), there.mtime_nsec());
                    hasher.update(format!("{}\0{size}\0{seconds}\0{nanoseconds}", from.display()));
                }
                Content::Link(target) => hasher.update(format!("link\0{target}")),
            }
            hasher.update([0]);
        }
        Ok(format!("{:x}", hasher.finalize()))
    }

    /// Writes the tree as a tar file.
    ///
    /// # Errors
    /// When one of the machine's files can't be read, or the tar file not be written.
    pub(crate) fn write(&self, to: &mut dyn Write) -> Result<()> {
        let mut builder = Builder::new(to);
        for Entry { path, mode, content } in &self.entries {
            put(&mut builder, path, *mode, content).with_context(|| format!("can't put {path} into the tar file"))?;
        }
        builder.into_inner()?;
        Ok(())
    }

    fn put(&mut self, path: &str, mode: u32, content: Content) {
        self.parents(path);
        self.entries.push(Entry { path: path.to_owned(), mode, content });
    }

    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.directory_alone(&path[..at]);
        }
    }

    fn directory_alone(&mut self, path: &str) {
        if self.directories.insert(path.to_owned()) {
            self.entries.push(Entry { path: format!("{path}/"), mode: 0o755, content: Content::Directory });
        }
    }
}

fn put(builder: &mut Builder<&mut dyn Write>, path: &str, mode: u32, content: &Content) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_mtime(0);
    match content {
        Content::Directory => {
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            builder.append_data(&mut header, path, &[][..])?;
        }
        Content::Bytes(bytes) => {
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, bytes.as_slice())?;
        }
        Content::Copy(from) => append_file(builder, header, path, from)?,
        Content::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, path, target)?;
        }
    }
    Ok(())
}

/// Puts a file of this machine into a tar file.
pub(super) fn append_file<W: Write>(
    builder: &mut Builder<W>,
    mut header: Header,
    path: &str,
    from: &Path,
) -> Result<()> {
    let file = File::open(from).with_context(|| format!("can't read {}", from.display()))?;
    header.set_size(file.metadata()?.len());
    builder.append_data(&mut header, path, file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(tree: &Tree) -> Vec<(String, u32)> {
        let mut bytes = Vec::new();
        tree.write(&mut bytes).expect("a tar file");
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let entry = entry.expect("an entry");
            (entry.path().expect("a path").display().to_string(), entry.header().mode().expect("a mode"))
        };
        archive.entries().expect("entries").map(entry).collect()
    }

    #[test]
    fn directories_come_once_and_before_what_is_in_them() {
        let mut tree = Tree::default();
        tree.directory("tmp", 0o1777);
        tree.file("a/b/c", 0o644, "c");
        tree.link("a/b/d", "c");
        tree.file("tmp/e", 0o4755, "e");
        let names = [("tmp/", 0o1777), ("a/", 0o755), ("a/b/", 0o755), ("a/b/c", 0o644), ("a/b/d", 0o777)];
        let wanted: Vec<(String, u32)> =
            names.into_iter().chain([("tmp/e", 0o4755)]).map(|(name, mode)| (name.to_owned(), mode)).collect();
        assert_eq!(entries(&tree), wanted);
    }

    #[test]
    fn a_file_that_was_replaced_gives_another_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a");
        fs::write(&file, "one").expect("written");
        let mut tree = Tree::default();
        tree.copy("a", 0o755, &file);
        let key = tree.key().expect("a key");
        assert_eq!(tree.key().expect("a key"), key);
        fs::write(&file, "three").expect("written");
        assert_ne!(tree.key().expect("a key"), key);
    }
}
