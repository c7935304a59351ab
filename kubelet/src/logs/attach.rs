//! A container's live streams, by its log driver's socket.
//!
//! A client says in one byte whether it brings stdin, then sends that as it is until it shuts down its side. The driver
//! sends frames: the stream (1 stdout, 2 stderr), the length (4 bytes, the highest first), the bytes. It closes the
//! connection when the container's output has ended.

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::writer::Stream;

pub(super) const WITH_STDIN: u8 = b'i';
pub(super) const OUTPUT_ONLY: u8 = b'o';
/// The most bytes of a frame; a driver sends less.
const MAX_FRAME: usize = 1 << 20;
/// Longest path that a socket's address holds (108 bytes with its end).
const MAX_ADDRESS: usize = 107;

/// A connection to a container's streams.
#[derive(Debug)]
pub struct Attached {
    /// The container's stdin; dropping it is its end, as far as the container takes one. None if not asked for.
    pub stdin: Option<OwnedWriteHalf>,
    /// What the container prints from now on.
    pub output: Output,
}

/// What a container prints, in order, stream by stream.
#[derive(Debug)]
pub struct Output {
    reader: BufReader<OwnedReadHalf>,
    /// Closing it would tell the driver that we are gone.
    _connection: Option<OwnedWriteHalf>,
}

impl Output {
    /// The next piece, or none when the container's output has ended.
    ///
    /// # Errors
    /// When the driver died within a frame, or speaks otherwise. Not to be cancelled: a piece would be lost.
    pub async fn next(&mut self) -> io::Result<Option<(Stream, Bytes)>> {
        let stream = match self.reader.read_u8().await {
            Ok(1) => Stream::Stdout,
            Ok(2) => Stream::Stderr,
            Ok(other) => return Err(io::Error::other(format!("a log driver sent stream {other}"))),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = self.reader.read_u32().await? as usize;
        if length > MAX_FRAME {
            return Err(io::Error::other(format!("a log driver sent {length} bytes at once")));
        }
        let mut piece = vec![0; length];
        self.reader.read_exact(&mut piece).await?;
        Ok(Some((stream, piece.into())))
    }
}

/// Attaches to the container whose driver listens at `socket`.
///
/// # Errors
/// When no driver listens there: the container has ended, or was started without.
pub async fn connect(socket: &Path, stdin: bool) -> io::Result<Attached> {
    let stream = at(socket, |path| std::os::unix::net::UnixStream::connect(path))?;
    stream.set_nonblocking(true)?;
    let (reader, mut writer) = UnixStream::from_std(stream)?.into_split();
    writer.write_all(&[if stdin { WITH_STDIN } else { OUTPUT_ONLY }]).await?;
    let (stdin, connection) = if stdin { (Some(writer), None) } else { (None, Some(writer)) };
    Ok(Attached { stdin, output: Output { reader: BufReader::new(reader), _connection: connection } })
}

/// Calls with a path for `socket` that fits into an address, by way of its directory's descriptor if need be.
pub(super) fn at<T>(socket: &Path, call: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if socket.as_os_str().len() <= MAX_ADDRESS {
        return call(socket);
    }
    let (Some(directory), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    call(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}

pub(super) fn frame_header(stream: Stream, length: usize) -> [u8; 5] {
    let number = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    // A piece is a driver's buffer at most.
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [number, a, b, c, d]
}
