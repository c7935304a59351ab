//! The log on disk: every retained change under its revision, in a `fjall` database, beside our own header and high-water mark.
//!
//! ```text
//! DIR/format          "skep-store 1\n": the format version
//! DIR/lock            held exclusively while a process has the directory
//! DIR/acknowledged    the newest acknowledged revision and its CRC-32, written after each sync (not synced itself)
//! DIR/data/           the fjall database: keyspace `log` (revision, big endian → record), keyspace `meta`
//! DIR/journal-before/ the library's journals as they were before the last open that found damage
//! ```
//!
//! Invariant: [`Log::append`] returns after the data is on the disk, and a group is there whole or not at all. The library cuts a journal off
//! at the first thing it can't read; since that might be acknowledged data, the mark is compared with what was recovered, and the journals
//! are kept aside until it has matched.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fjall::config::{BlockSizePolicy, CompressionPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::record::Record;
use crate::{Error, Result};

/// The version of the directory's format that this code writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;

const COMPACTED: &[u8] = b"compacted";
/// Journals beyond this are flushed and deleted: it bounds what a start replays.
const JOURNAL: u64 = 128 << 20;
const MEMTABLE: u64 = 32 << 20;

/// The data directory, locked for this process. Outlives the [`Log`], which is opened anew after a failed write.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    acknowledged: File,
    _lock: File,
}

/// The open log. Clones share it.
#[derive(Clone)]
pub(crate) struct Log {
    database: Database,
    changes: Keyspace,
    meta: Keyspace,
    path: PathBuf,
}

impl Directory {
    /// Locks a directory; makes it if it is not there.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Format`], [`Error::Corrupt`] for a header that can't be read, [`Error::Io`].
    pub(crate) fn lock(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(io("making the data directory"))?;
        let open =
            |name: &str| OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path.join(name));
        let lock = open("lock").map_err(io("opening the lock file"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked(path.to_owned())),
            Err(TryLockError::Error(source)) => {
                return Err(Error::Io { what: "locking the data directory".to_owned(), source });
            }
        }
        check_format(path)?;
        let acknowledged = open("acknowledged").map_err(io("opening the high-water mark"))?;
        Ok(Self { path: path.to_owned(), acknowledged, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes that everything up to a revision has been acknowledged. Survives the process at once, a power cut a little later.
    pub(crate) fn acknowledge(&self, revision: u64) -> std::io::Result<()> {
        let mut mark = [0; 12];
        mark[..8].copy_from_slice(&revision.to_le_bytes());
        mark[8..].copy_from_slice(&crc32fast::hash(&revision.to_le_bytes()).to_le_bytes());
        self.acknowledged.write_all_at(&mark, 0)
    }

    /// The newest revision known to have been acknowledged: everything up to it must be in the log. 0 when nothing is known.
    pub(crate) fn acknowledged(&self) -> u64 {
        let mut mark = [0; 12];
        if self.acknowledged.read_exact_at(&mut mark, 0).is_err() {
            return 0;
        }
        let (revision, checksum) = mark.split_at(8);
        if crc32fast::hash(revision).to_le_bytes() != *checksum {
            // A power cut may tear it. It is a lower bound only.
            return 0;
        }
        revision.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// Opens the log. Until [`Directory::settle`] says that it holds what it must, the journals are kept as they were.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Full`], [`Error::Io`].
    pub(crate) fn open(&self, cache: u64) -> Result<Log> {
        let path = self.path.join("data");
        if path.exists() {
            self.keep_journals(&path)?;
        } else {
            self.create(&path, cache)?;
        }
        open(&path, cache)
    }

    /// The library can't open what it had not finished creating, so that happens under another name.
    fn create(&self, path: &Path, cache: u64) -> Result<()> {
        let partial = self.path.join("data.partial");
        match fs::remove_dir_all(&partial) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("clearing an unfinished log")(error)),
            Ok(()) | Err(_) => {}
        }
        open(&partial, cache)?.sync()?;
        fs::rename(&partial, path).map_err(io("making the log"))?;
        File::open(&self.path).and_then(|directory| directory.sync_all()).map_err(io("syncing the data directory"))
    }

    /// What was recovered has been checked: the journals' copies are not needed any more.
    pub(crate) fn settle(&self) {
        let _ = fs::remove_dir_all(self.path.join("journal-before"));
    }

    fn keep_journals(&self, data: &Path) -> Result<()> {
        let kept = self.path.join("journal-before");
        if kept.exists() {
            // A start that found damage left them: they are nearer to the truth than what is there now.
            return Ok(());
        }
        let entries = fs::read_dir(data).map_err(io("reading the data directory"))?;
        let partial = self.path.join("journal-before.partial");
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir(&partial).map_err(io("making a place for the journals' copies"))?;
        for entry in entries {
            let entry = entry.map_err(io("reading the data directory"))?;
            if entry.path().extension().is_some_and(|extension| extension == "jnl") {
                match copy_sparse(&entry.path(), &partial.join(entry.file_name())) {
                    Ok(()) => {}
                    Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                        tracing::warn!(%error, "no room for a copy of the journals before they are read");
                        let _ = fs::remove_dir_all(&partial);
                        return Ok(());
                    }
                    Err(source) => return Err(Error::Io { what: "copying a journal".to_owned(), source }),
                }
            }
        }
        fs::rename(&partial, &kept).map_err(io("keeping the journals' copies"))
    }
}

impl Log {
    /// Appends a group and waits for the disk.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Io`]: the outcome is not known, and the log takes nothing more until it is opened anew.
    pub(crate) fn append(&self, group: impl ExactSizeIterator<Item = (u64, Bytes)>) -> Result<()> {
        let mut batch = fjall::OwnedWriteBatch::with_capacity(self.database.clone(), group.len())
            .durability(Some(PersistMode::SyncData));
        for (revision, bytes) in group {
            batch.insert(&self.changes, revision.to_be_bytes(), bytes);
        }
        batch.commit().map_err(|error| failure(&self.path, "committing", error))
    }

    /// The records from `from` on, in order. A record that can't be read is an [`Error::Corrupt`].
    pub(crate) fn records(&self, from: u64) -> impl Iterator<Item = Result<Record>> + use<> {
        let path = self.path.clone();
        self.changes.range(from.to_be_bytes()..).map(move |guard| {
            let (key, bytes) = guard.into_inner().map_err(|error| failure(&path, "reading the log", error))?;
            let key =
                <[u8; 8]>::try_from(&key[..]).map_err(|_| corrupt(&path, "a key of the log is not a revision"))?;
            Record::decode(u64::from_be_bytes(key), &bytes).map_err(|why| corrupt(&path, &why))
        })
    }

    /// The record of one revision, if it is retained.
    pub(crate) fn record(&self, revision: u64) -> Result<Option<Record>> {
        let found =
            self.changes.get(revision.to_be_bytes()).map_err(|error| failure(&self.path, "reading the log", error))?;
        found.map(|bytes| Record::decode(revision, &bytes).map_err(|why| corrupt(&self.path, &why))).transpose()
    }

    /// The revision up to which history is forgotten.
    pub(crate) fn compacted(&self) -> Result<u64> {
        let found = self.meta.get(COMPACTED).map_err(|error| failure(&self.path, "reading the log", error))?;
        let Some(bytes) = found else { return Ok(0) };
        let bytes =
            <[u8; 8]>::try_from(&bytes[..]).map_err(|_| corrupt(&self.path, "the compacted revision can't be read"))?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Removes records, and says up to where history is forgotten by that: both or neither. Reaches the disk with the next group.
    pub(crate) fn forget(&self, revisions: impl Iterator<Item = u64>, compacted: u64) -> Result<()> {
        let mut batch = self.database.batch();
        for revision in revisions {
            batch.remove(&self.changes, revision.to_be_bytes());
        }
        batch.insert(&self.meta, COMPACTED, compacted.to_le_bytes().to_vec());
        batch.commit().map_err(|error| failure(&self.path, "compacting", error))
    }

    /// Bytes on the disk, journals included.
    pub(crate) fn disk_space(&self) -> u64 {
        self.database.disk_space().unwrap_or_default()
    }

    pub(crate) fn sync(&self) -> Result<()> {
        self.database.persist(PersistMode::SyncAll).map_err(|error| failure(&self.path, "syncing", error))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn open(path: &Path, cache: u64) -> Result<Log> {
    let open = || -> fjall::Result<Log> {
        // The journal is synced by us, once a group.
        let database = Database::builder(path)
            .manual_journal_persist(true)
            .worker_threads(1)
            .cache_size(cache)
            .max_journaling_size(JOURNAL)
            .open()?;
        let changes = database.keyspace("log", || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE)
                .data_block_size_policy(BlockSizePolicy::all(16 << 10))
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        })?;
        let meta = database.keyspace("meta", KeyspaceCreateOptions::default)?;
        Ok(Log { database, changes, meta, path: path.to_owned() })
    };
    // The library asserts some of what it reads from files.
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => opened.map_err(|error| failure(path, "opening the log", error)),
        Err(_) => Err(corrupt(path, "the log can't be opened")),
    }
}

/// A journal is 64 MiB of zeros for the most part: those are not written.
fn copy_sparse(from: &Path, to: &Path) -> std::io::Result<()> {
    let (from, to) = (File::open(from)?, File::create(to)?);
    let mut chunk = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let read = from.read_at(&mut chunk, offset)?;
        if read == 0 {
            return to.set_len(offset);
        }
        if chunk[..read].iter().any(|byte| *byte != 0) {
            to.write_all_at(&chunk[..read], offset)?;
        }
        offset += read as u64;
    }
}

fn check_format(path: &Path) -> Result<()> {
    let file = path.join("format");
    match fs::read_to_string(&file) {
        Ok(text) => {
            let version = text.trim().strip_prefix("skep-store ").and_then(|version| version.parse::<u32>().ok());
            match version {
                Some(found) if found <= FORMAT => Ok(()),
                Some(found) => Err(Error::Format { path: path.to_owned(), found, known: FORMAT }),
                None => Err(corrupt(&file, "it is not the header of a store")),
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if path.join("data").exists() {
                return Err(corrupt(&file, "the header is missing"));
            }
            let write = || -> std::io::Result<()> {
                let partial = path.join("format.partial");
                let mut header = File::create(&partial)?;
                header.write_all(format!("skep-store {FORMAT}\n").as_bytes())?;
                header.sync_all()?;
                fs::rename(&partial, &file)?;
                File::open(path)?.sync_all()
            };
            write().map_err(io("writing the header"))
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(corrupt(&file, "it is not the header of a store")),
        Err(source) => Err(Error::Io { what: "reading the header".to_owned(), source }),
    }
}

/// What a library error means here.
fn failure(path: &Path, what: &str, error: fjall::Error) -> Error {
    let source = match error {
        fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => source,
        fjall::Error::Locked => return Error::Locked(path.to_owned()),
        fjall::Error::Poisoned | fjall::Error::KeyspaceDeleted => std::io::Error::other("an earlier write failed"),
        other => return corrupt(path, &format!("{what}: {other:?}")),
    };
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Error::Full(format!("{what}: {source}"))
        }
        ErrorKind::UnexpectedEof | ErrorKind::InvalidData | ErrorKind::NotFound => {
            corrupt(path, &format!("{what}: {source}"))
        }
        _ => Error::Io { what: what.to_owned(), source },
    }
}

pub(crate) fn corrupt(path: &Path, why: &str) -> Error {
    Error::Corrupt { file: path.to_owned(), offset: 0, why: why.to_owned() }
}

pub(crate) fn io(what: &str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::Full(format!("{what}: {source}")),
        _ => Error::Io { what: what.to_owned(), source },
    }
}
