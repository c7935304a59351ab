//! A container's log as `kubectl logs` shows it: entries of all files of one attempt, from old to new, joined to lines.
//!
//! Invariant: following misses nothing over rotations, since files are held open and their successors are found by their
//! inode; it ends when the container has ended and its driver has let go of the log.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{FlockOperation, flock};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

use super::format::Formatter;
pub use super::format::LogOptions;
use super::{tail, writer};

const CHUNK: usize = 64 * 1024;
/// A driver closes its log an instant before it lets go of it, and only the first is told.
const LETS_GO: Duration = Duration::from_millis(20);

/// The log whose current file is `path`, in pieces that need not end with a line. `running` is whether the container
/// still runs; it matters only for following, and its sender's end means no.
///
/// The stream fails with `NotFound` when there is no log.
pub fn stream(
    path: PathBuf,
    options: LogOptions,
    running: watch::Receiver<bool>,
) -> impl futures::Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold(State::New(path, options, running), |state| async move {
        let mut reading = match state {
            State::New(path, options, running) => Box::new(Reading::open(path, options, running).await?),
            State::Open(reading) => reading,
        };
        Ok(reading.next().await?.map(|piece| (piece, State::Open(reading))))
    })
}

/// The end of a log: its last `lines` lines, and of those the last `bytes` bytes (what upstream takes for a termination
/// message that falls back to the log: 80 and 2048).
///
/// # Errors
/// `NotFound` when there is no log.
pub async fn last(path: PathBuf, lines: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let options = LogOptions { tail_lines: Some(lines), ..LogOptions::default() };
    let mut reading = Reading::open(path, options, watch::channel(false).1).await?;
    let mut kept = Vec::new();
    while let Some(piece) = reading.next().await? {
        kept.extend_from_slice(&piece);
        let excess = kept.len().saturating_sub(bytes);
        kept.drain(..excess);
    }
    Ok(kept)
}

enum State {
    New(PathBuf, LogOptions, watch::Receiver<bool>),
    Open(Box<Reading>),
}

struct Reading {
    path: PathBuf,
    current: LogFile,
    /// What comes after the current file.
    files: VecDeque<LogFile>,
    formatter: Formatter,
    /// None: to be read to its present end only.
    follow: Option<Follow>,
    done: bool,
}

struct Follow {
    changes: Receiver,
    running: watch::Receiver<bool>,
    /// Nothing is written any more: the next end is the last.
    ended: bool,
}

struct LogFile {
    file: Arc<File>,
    inode: u64,
    offset: u64,
}

impl Reading {
    async fn open(path: PathBuf, options: LogOptions, running: watch::Receiver<bool>) -> io::Result<Self> {
        // Before the first read, so that nothing is written unseen between the two.
        let follow = if options.follow {
            Some(Follow { changes: watch_directory(&path)?, running, ended: false })
        } else {
            None
        };
        let (since, tail_lines) = (options.since, options.tail_lines);
        let listed = path.clone();
        let mut files = blocking(move || begin(&listed, since, tail_lines)).await?;
        let current = files.pop_front().ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { path, current, files, formatter: Formatter::new(options), follow, done: false })
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.done {
            let mut out = Vec::new();
            if self.read(&mut out).await? {
                self.done = self.formatter.is_full();
            } else if let Some(next) = self.files.pop_front() {
                self.current = next;
                self.formatter.next_file();
            } else if self.is_over().await? {
                self.formatter.finish(&mut out);
                self.done = true;
            }
            if !out.is_empty() {
                return Ok(Some(out.into()));
            }
        }
        Ok(None)
    }

    /// Reads a piece of the current file; false at its end.
    async fn read(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let (file, offset) = (self.current.file.clone(), self.current.offset);
        let piece = blocking(move || {
            let mut piece = vec![0; CHUNK];
            let read = file.read_at(&mut piece, offset)?;
            piece.truncate(read);
            Ok(piece)
        });
        let piece = piece.await?;
        self.current.offset += piece.len() as u64;
        self.formatter.push(&piece, out);
        Ok(!piece.is_empty())
    }

    /// At the end of the last file: whether that is the log's. Waits for a change when it is not.
    async fn is_over(&mut self) -> io::Result<bool> {
        let Some(follow) = &mut self.follow else { return Ok(true) };
        let (path, inode) = (self.path.clone(), self.current.inode);
        self.files = blocking(move || successors(&path, inode)).await?;
        // What was written to the current file before it was put aside is read first: its end is looked at once more.
        if !self.files.is_empty() {
            // The lock that was found free was that of a file put aside meanwhile.
            follow.ended = false;
            return Ok(false);
        }
        if follow.ended {
            return Ok(true);
        }
        let running = *follow.running.borrow_and_update() && follow.running.has_changed().is_ok();
        if running {
            tokio::select! {
                changed = wait(&mut follow.changes) => changed?,
                _ = follow.running.changed() => (),
            }
        } else if flock(&*self.current.file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            flock(&*self.current.file, FlockOperation::Unlock)?;
            follow.ended = true;
        } else if let Ok(changed) = tokio::time::timeout(LETS_GO, wait(&mut follow.changes)).await {
            changed?;
        }
        Ok(false)
    }
}

fn begin(path: &Path, since: Option<Timestamp>, tail_lines: Option<u64>) -> io::Result<VecDeque<LogFile>> {
    let mut files = open_all(path)?;
    if let Some(lines) = tail_lines {
        let handles: Vec<File> = files.iter().map(|log| log.file.try_clone()).collect::<io::Result<_>>()?;
        let (index, offset) = tail::position(&handles, lines)?;
        files.drain(..index);
        if let Some(first) = files.front_mut() {
            first.offset = offset;
        }
    }
    // A file holds nothing newer than its last change.
    while let (Some(since), true) = (since, files.len() > 1) {
        let changed = files[0].file.metadata()?;
        if Timestamp::new(changed.mtime(), 999_999_999).is_ok_and(|changed| changed < since) {
            files.pop_front();
        } else {
            break;
        }
    }
    Ok(files)
}

/// The log's files from old to new, none missing: a file that was put aside while they were listed would be found under
/// both names, and then they are listed again.
fn open_all(path: &Path) -> io::Result<VecDeque<LogFile>> {
    loop {
        let current = open(path)?;
        let aside = writer::rotated(path)?;
        let mut files: VecDeque<_> =
            aside.iter().filter_map(|path| open(path).transpose()).collect::<io::Result<_>>()?;
        let Some(current) = current else {
            // Between being put aside and made anew.
            return Ok(files);
        };
        if files.iter().all(|file| file.inode != current.inode) {
            files.push_back(current);
            return Ok(files);
        }
    }
}

fn open(path: &Path) -> io::Result<Option<LogFile>> {
    match File::open(path) {
        Ok(file) => {
            let inode = file.metadata()?.ino();
            Ok(Some(LogFile { file: Arc::new(file), inode, offset: 0 }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn successors(path: &Path, inode: u64) -> io::Result<VecDeque<LogFile>> {
    if std::fs::metadata(path).is_ok_and(|current| current.ino() == inode) {
        return Ok(VecDeque::new());
    }
    let mut files = match open_all(path) {
        // The log was removed with its pod.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
        files => files?,
    };
    // One that isn't there any more was older than all that are.
    if let Some(index) = files.iter().position(|file| file.inode == inode) {
        files.drain(..=index);
    }
    Ok(files)
}

fn watch_directory(path: &Path) -> io::Result<Receiver> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    let changes = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE;
    inotify::add_watch(&inotify, path.parent().unwrap_or(path), changes)?;
    // To tokio it is a descriptor that is read as a pipe is.
    Receiver::from_owned_fd_unchecked(inotify)
}

/// Waits for any change; which one doesn't matter, since the files themselves say.
async fn wait(changes: &mut Receiver) -> io::Result<()> {
    changes.read(&mut [0; 4096]).await.map(drop)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
