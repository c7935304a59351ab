//! A tree of files in memory, written as tar: everything is root's and of one date, so that equal trees are equal bytes.

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

/// Files, directories and links in the order in which they were put in; parents come first.
#[derive(Default)]
pub(crate) struct Tree {
    entries: Vec<Entry>,
}

struct Entry {
    path: String,
    mode: u32,
    content: Content,
}

enum Content {
    Directory,
    File(Vec<u8>),
    Link(String),
}

impl Tree {
    /// A directory.
    pub(crate) fn directory(&mut self, path: &str, mode: u32) {
        self.entries.push(Entry { path: format!("{path}/"), mode, content: Content::Directory });
    }

    /// A file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        self.entries.push(Entry { path: path.to_owned(), mode, content: Content::File(content) });
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.entries.push(Entry { path: path.to_owned(), mode: 0o777, content: Content::Link(target.to_owned()) });
    }

    /// The tree as a tar file.
    pub(crate) fn to_tar(&self) -> Result<Vec<u8>> {
        let mut builder = Builder::new(Vec::new());
        for Entry { path, mode, content } in &self.entries {
            let mut header = Header::new_gnu();
            header.set_mode(*mode);
            header.set_mtime(0);
            let put = match content {
                Content::Directory => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_size(0);
                    builder.append_data(&mut header, path, &[][..])
                }
                Content::File(bytes) => {
                    header.set_size(bytes.len() as u64);
                    builder.append_data(&mut header, path, bytes.as_slice())
                }
                Content::Link(target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_size(0);
                    builder.append_link(&mut header, path, target)
                }
            };
            put.with_context(|| format!("can't put {path} into the tar file"))?;
        }
        Ok(builder.into_inner()?)
    }
}
