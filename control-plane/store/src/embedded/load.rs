//! Start-up: the latest values out of the log, and the checks that it holds everything it must.

use std::sync::Arc;

use super::log::{Directory, Log, corrupt};
use super::tree::Tree;
use crate::Result;

/// What a start finds.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) tree: Tree,
    pub(crate) revision: u64,
    pub(crate) compacted: u64,
    /// Bytes of changes above the compacted revision.
    pub(crate) history: u64,
    /// Records read.
    pub(crate) records: u64,
}

/// Reads the whole log.
///
/// # Errors
/// [`crate::Error::Corrupt`] for a damaged record, a missing revision, a change whose predecessor is missing, and for acknowledged changes that are
/// not there.
pub(crate) fn load(directory: &Directory, log: &Log) -> Result<Loaded> {
    let mut loaded = Loaded { compacted: log.compacted()?, ..Loaded::default() };
    loaded.revision = loaded.compacted;
    for record in log.records(0) {
        let record = record?;
        loaded.records += 1;
        let current = loaded.tree.get(&record.key).map_or(0, |version| version.revision);
        if record.revision > loaded.compacted {
            if record.revision != loaded.revision + 1 {
                return Err(corrupt(log.path(), &format!("revision {} is missing", loaded.revision + 1)));
            }
            if record.previous != current {
                let why =
                    format!("revision {} replaces {}, but the key is at {current}", record.revision, record.previous);
                return Err(corrupt(log.path(), &why));
            }
            loaded.revision = record.revision;
            loaded.history += record.size() as u64;
        }
        match record.version() {
            Some(version) => loaded.tree.insert(Arc::new(version)),
            None => loaded.tree.remove(&record.key),
        };
    }
    let acknowledged = directory.acknowledged();
    if loaded.revision < acknowledged {
        let why = format!("it ends at revision {}, but {acknowledged} was acknowledged", loaded.revision);
        return Err(corrupt(log.path(), &why));
    }
    Ok(loaded)
}
