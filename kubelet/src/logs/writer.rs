//! One container's log file in the CRI format: `<RFC 3339 with nanoseconds> <stream> <P|F> <text>`, rotated by size.
//!
//! Invariant: a file holds whole entries only, and a line split into parts is never torn over two files. The file being
//! written is locked (shared, advisory), so that a reader knows whether more can come.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The most bytes of one entry; a longer line is written in parts (containerd's CRI uses the same).
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// Which of the container's streams a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// When a log is rotated, and how much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rotation {
    /// A file that reached this many bytes is put aside (upstream's `containerLogMaxSize`).
    pub max_bytes: u64,
    /// Files kept, the current one included (upstream's `containerLogMaxFiles`).
    pub max_files: usize,
}

/// Appends to a log and rotates it.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: File,
    size: u64,
    buffered: Vec<u8>,
    rotation: Rotation,
}

impl LogWriter {
    /// Opens the log at `path` for appending, with its directories.
    ///
    /// # Errors
    /// When a directory or the file can't be made.
    pub fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        lock(&file);
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, size, buffered: Vec::new(), rotation })
    }

    /// Writes one entry; `partial` says that the line goes on in the next one.
    ///
    /// # Errors
    /// When the file can't be written or put aside.
    pub fn write(&mut self, now: Timestamp, stream: Stream, partial: bool, text: &[u8]) -> io::Result<()> {
        self.buffer(now, stream, partial, text)?;
        self.flush()
    }

    /// As [`LogWriter::write`], leaving the entry for [`LogWriter::flush`] to write together with others.
    ///
    /// # Errors
    /// When a file that is full with it can't be written or put aside.
    pub fn buffer(&mut self, now: Timestamp, stream: Stream, partial: bool, text: &[u8]) -> io::Result<()> {
        let before = self.buffered.len();
        // Writing to a Vec can't fail.
        let _ = write!(self.buffered, "{now:.9} {} {} ", stream.name(), if partial { 'P' } else { 'F' });
        self.buffered.extend_from_slice(text);
        self.buffered.push(b'\n');
        self.size += (self.buffered.len() - before) as u64;
        if self.size >= self.rotation.max_bytes && !partial {
            self.flush()?;
            self.rotate(now)?;
        }
        Ok(())
    }

    /// Writes what was buffered; what can't be written is dropped.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn flush(&mut self) -> io::Result<()> {
        let written = self.file.write_all(&self.buffered);
        self.buffered.clear();
        written
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        if self.rotation.max_files > 1 {
            fs::rename(&self.path, self.free_name(now))?;
        } else {
            fs::remove_file(&self.path)?;
        }
        *self = Self::open(&self.path, self.rotation)?;
        let mut old = rotated(&self.path)?;
        let excess = old.len().saturating_sub(self.rotation.max_files - 1);
        old.drain(..excess).try_for_each(fs::remove_file)
    }

    /// A name that nothing has been put aside under: several files may be filled at one time.
    fn free_name(&self, mut now: Timestamp) -> PathBuf {
        loop {
            let mut aside = self.path.clone().into_os_string();
            aside.push(now.strftime(".%Y%m%d-%H%M%S.%9f").to_string());
            match now.checked_add(SignedDuration::from_nanos(1)) {
                Ok(later) if Path::new(&aside).exists() => now = later,
                _ => return aside.into(),
            }
        }
    }
}

/// Locks a log against readers that look whether it is locked; they let go at once. It is given up where a file system
/// has no locks, or somebody else holds one: a container must not wait for it.
fn lock(file: &File) {
    for _ in 0..1000 {
        match flock(file, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => std::thread::yield_now(),
            _ => return,
        }
    }
}

/// The files that were put aside of the log at `path`, oldest first.
///
/// # Errors
/// When the directory can't be read.
pub fn rotated(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Vec::new()) };
    let mut prefix = OsString::from(name);
    prefix.push(".");
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
            found.push(entry.path());
        }
    }
    // The suffix is a time of fixed width, so the order of names is the order of time.
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_time_stream_tag_and_text() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("main/0.log");
        let mut log = LogWriter::open(&path, Rotation { max_bytes: 1000, max_files: 2 }).expect("open");
        log.write(Timestamp::UNIX_EPOCH, Stream::Stderr, false, b"hello").expect("write");
        assert_eq!(fs::read_to_string(&path).expect("log"), "1970-01-01T00:00:00.000000000Z stderr F hello\n");
    }

    #[test]
    fn rotation_keeps_the_newest_files() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("0.log");
        let mut log = LogWriter::open(&path, Rotation { max_bytes: 1, max_files: 3 }).expect("open");
        for second in 0..5 {
            let now = Timestamp::from_second(second).expect("time");
            log.write(now, Stream::Stdout, false, second.to_string().as_bytes()).expect("write");
        }
        let kept = rotated(&path).expect("list");
        let texts: Vec<_> = kept.iter().map(|file| fs::read_to_string(file).expect("file")).collect();
        assert_eq!(texts.len(), 2);
        assert!(texts[0].ends_with("F 3\n") && texts[1].ends_with("F 4\n"), "{texts:?}");
    }

    #[test]
    fn files_filled_at_one_time_are_all_kept_in_order() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("0.log");
        let mut log = LogWriter::open(&path, Rotation { max_bytes: 1, max_files: 9 }).expect("open");
        for text in [b"a", b"b", b"c"] {
            log.write(Timestamp::UNIX_EPOCH, Stream::Stdout, false, text).expect("write");
        }
        let kept = rotated(&path).expect("list");
        let texts = kept.iter().map(|file| fs::read_to_string(file).expect("file"));
        assert!(texts.map(|text| text.trim_end().chars().last()).eq(['a', 'b', 'c'].map(Some)));
    }

    #[test]
    fn a_split_line_stays_in_one_file() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("0.log");
        let mut log = LogWriter::open(&path, Rotation { max_bytes: 1, max_files: 2 }).expect("open");
        log.write(Timestamp::UNIX_EPOCH, Stream::Stdout, true, b"first ").expect("write");
        log.write(Timestamp::UNIX_EPOCH, Stream::Stdout, false, b"second").expect("write");
        let kept = rotated(&path).expect("list");
        assert_eq!(fs::read_to_string(&kept[0]).expect("file").lines().count(), 2);
    }
}
