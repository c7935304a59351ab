//! What was attached where, kept on disk so that a deletion gets the configuration and the result of its addition.
//!
//! Invariant: an entry is there from before the first plugin is called until after the last deletion succeeded, so that
//! no crash leaves an address without an owner.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An attachment that was begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) container_id: String,
    pub(super) interface: String,
    pub(super) args: String,
    pub(super) capabilities: Map<String, Value>,
    /// The whole list, since the one on disk may have changed by the time of the deletion.
    pub(super) network: Value,
    /// None until every plugin has answered.
    pub(super) result: Option<Value>,
}

/// A folder of entries, a file each.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    pub(super) folder: PathBuf,
}

impl Cache {
    pub(super) fn write(&self, entry: &Entry) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let path = self.path(&entry.container_id);
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, serde_json::to_vec(entry)?)?;
        std::fs::rename(temporary, path)
    }

    pub(super) fn read(&self, container_id: &str) -> io::Result<Option<Entry>> {
        match std::fs::read(self.path(container_id)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn remove(&self, container_id: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(container_id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The container ids of all entries.
    pub(super) fn list(&self) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
            other => other?,
        };
        let name = |entry: io::Result<std::fs::DirEntry>| -> io::Result<Option<String>> {
            let path = entry?.path();
            let ours = path.extension().is_some_and(|is| is == "json");
            Ok(path.file_stem().filter(|_| ours).and_then(|stem| stem.to_str()).map(str::to_owned))
        };
        entries.filter_map(|entry| name(entry).transpose()).collect()
    }

    fn path(&self, container_id: &str) -> PathBuf {
        Path::new(&self.folder).join(format!("{container_id}.json"))
    }
}
