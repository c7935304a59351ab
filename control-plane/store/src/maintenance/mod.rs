//! What an administrator does with a store: [`backup`], [`restore`], [`verify`], [`stats`].
//!
//! Invariant: a backup is one revision of the whole store; nothing here changes a store that is there. These functions block: call them
//! from a thread that may.

mod archive;

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use self::archive::{Reader, Writer};
use crate::embedded::load::load;
use crate::embedded::log::{Directory, io};
use crate::embedded::{Embedded, Options, Stats};
use crate::{Error, Result, Revision};

/// What a backup holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The revision that it is of.
    pub revision: Revision,
    /// Keys with a value.
    pub keys: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// What a checksum walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The newest revision.
    pub revision: Revision,
    /// The oldest revision that can be read.
    pub oldest: Revision,
    /// Keys with a value.
    pub keys: u64,
    /// Records read and found right.
    pub records: u64,
}

/// Writes the newest state of a running store to a file that is not there yet, while the store goes on. The file appears under its name
/// once it is whole and on the disk.
///
/// # Errors
/// [`Error::Io`], also when the file exists; [`Error::Full`].
pub fn backup(store: &Embedded, file: &Path) -> Result<Summary> {
    if file.exists() {
        let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(Error::Io { what: format!("writing the backup {}", file.display()), source });
    }
    let partial = beside(file);
    let state = store.snapshot();
    let write = || -> std::io::Result<u64> {
        let mut writer = Writer::begin(BufWriter::new(File::create(&partial)?), state.revision)?;
        for version in state.versions() {
            writer.entry(&version)?;
        }
        let (mut buffer, bytes) = writer.end()?;
        buffer.flush()?;
        buffer.get_ref().sync_all()?;
        fs::rename(&partial, file)?;
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()?;
        Ok(bytes)
    };
    let written = write().map_err(io("writing the backup"));
    if written.is_err() {
        let _ = fs::remove_file(&partial);
    }
    Ok(Summary { revision: Revision(state.revision), keys: state.len(), bytes: written? })
}

/// Makes a store from a backup, in a directory that is empty or not there. It has the backup's revision, and no history before it.
///
/// # Errors
/// [`Error::Corrupt`] when the backup is damaged (the directory is left without a store), [`Error::Format`], [`Error::Io`], also when the directory is not empty.
pub fn restore(file: &Path, directory: &Path) -> Result<Summary> {
    // The whole file is checked before anything is made of it.
    let summary = check_backup(file)?;
    if fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()) {
        let source = std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty);
        return Err(Error::Io { what: format!("restoring into {}", directory.display()), source });
    }
    let partial = beside(directory);
    let _ = fs::remove_dir_all(&partial);
    let restored = fill(file, &partial, summary.revision.0);
    if restored.is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    restored?;
    let place = || -> std::io::Result<()> {
        match fs::remove_dir(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::rename(&partial, directory)?;
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()
    };
    place().map_err(io("putting the restored store in its place"))?;
    Ok(summary)
}

/// Reads a backup through and checks its checksums.
///
/// # Errors
/// [`Error::Corrupt`], [`Error::Format`], [`Error::Io`].
pub fn check_backup(file: &Path) -> Result<Summary> {
    let mut reader = open(file)?;
    let mut keys = 0;
    while reader.entry()?.is_some() {
        keys += 1;
    }
    Ok(Summary { revision: Revision(reader.revision()), keys, bytes: reader.position() })
}

/// Reads every record of a store that nobody has open, and checks checksums, the order of revisions and what each change says it replaced.
///
/// # Errors
/// [`Error::Corrupt`] for the first thing that is wrong, [`Error::Locked`], [`Error::Format`], [`Error::Io`], also when there is no store.
pub fn verify(directory: &Path) -> Result<Verified> {
    require(directory)?;
    let locked = Directory::lock(directory)?;
    let log = locked.open(Options::default().cache_bytes)?;
    let loaded = load(&locked, &log)?;
    locked.settle();
    Ok(Verified {
        revision: Revision(loaded.revision),
        oldest: Revision(loaded.compacted),
        keys: loaded.tree.len() as u64,
        records: loaded.records,
    })
}

/// Sizes of a store that nobody has open. A running one tells by [`Embedded::stats`].
///
/// # Errors
/// As for [`verify`].
pub fn stats(directory: &Path) -> Result<Stats> {
    require(directory)?;
    let store = Embedded::open(directory, Options::default())?;
    Ok(store.stats())
}

/// An administrator's typo must not make an empty store.
fn require(directory: &Path) -> Result<()> {
    match fs::metadata(directory.join("format")) {
        Ok(_) => Ok(()),
        Err(_) if directory.join("data").exists() => Ok(()),
        Err(source) => Err(Error::Io { what: format!("there is no store in {}", directory.display()), source }),
    }
}

/// Where something is made before it gets its name.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn open(file: &Path) -> Result<Reader<BufReader<File>>> {
    let opened = File::open(file).map_err(io("opening the backup"))?;
    Reader::begin(BufReader::with_capacity(1 << 20, opened), file)
}

fn fill(file: &Path, directory: &Path, revision: u64) -> Result<()> {
    /// Entries of one commit to the new log.
    const CHUNK: usize = 4_096;
    let locked = Directory::lock(directory)?;
    let log = locked.open(Options::default().cache_bytes)?;
    let mut reader = open(file)?;
    loop {
        let mut records = Vec::with_capacity(CHUNK);
        while records.len() < CHUNK {
            let Some(record) = reader.entry()? else { break };
            let revision = record.revision;
            records.push((revision, record.encode().0));
        }
        if records.is_empty() {
            break;
        }
        log.append(records.into_iter())?;
    }
    log.forget(std::iter::empty(), revision)?;
    log.sync()?;
    locked.acknowledge(revision).map_err(io("writing the high-water mark"))
}
