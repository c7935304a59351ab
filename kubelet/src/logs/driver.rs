//! The log driver: copies a container's stdout and stderr to its log until both end.
//!
//! Invariant: it stops at the end of the streams, not at SIGTERM, because lines written before the container's end may
//! still be in the pipes. The shim kills a driver that hangs.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::thread;

use parking_lot::Mutex;
use tokio::signal::unix::{SignalKind, signal};

use super::inherited_fd;
use super::writer::{LogWriter, MAX_LINE_BYTES, Rotation, Stream};

/// The IO address to give containerd as a task's stdout and stderr, so that `kubelet_binary` logs to `path`.
///
/// There is exactly one query parameter, since containerd passes several in no fixed order.
pub fn io_uri(kubelet_binary: &Path, path: &Path, rotation: Rotation) -> String {
    let target = format!("{},{},{}", rotation.max_bytes, rotation.max_files, path.display());
    format!("binary://{}?log-driver={}", escape(&kubelet_binary.display().to_string()), escape(&target))
}

/// Reads `<max bytes>,<max files>,<absolute path>`; none when it has another form.
pub fn parse_target(target: &str) -> Option<(Rotation, PathBuf)> {
    let mut parts = target.splitn(3, ',');
    let rotation = Rotation { max_bytes: parts.next()?.parse().ok()?, max_files: parts.next()?.parse().ok()? };
    let path = PathBuf::from(parts.next()?);
    (rotation.max_bytes > 0 && rotation.max_files > 0 && path.is_absolute()).then_some((rotation, path))
}

/// Runs the driver in a process that a shim started, until the container's output ends.
///
/// # Errors
/// When the shim's descriptors are not there, or the log can't be written.
pub fn run(path: &Path, rotation: Rotation) -> io::Result<()> {
    let inherited = inherited_fd::take()
        .ok_or_else(|| io::Error::other("descriptors 3 to 5 are not open: the log driver is started by a shim"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let _guard = runtime.enter();
    // Holding the stream keeps SIGTERM from ending the process; see the module's invariant.
    let _terminate = signal(SignalKind::terminate())?;
    let writer = Mutex::new(LogWriter::open(path, rotation)?);
    drop(inherited.ready);
    thread::scope(|scope| {
        let stderr = scope.spawn(|| copy(inherited.stderr, Stream::Stderr, &writer));
        let stdout = copy(inherited.stdout, Stream::Stdout, &writer);
        stdout.and(stderr.join().unwrap_or_else(|_| Err(io::Error::other("the stderr thread panicked"))))
    })
}

/// Copies one stream to the log, line by line. After a failed write it goes on reading and drops what it can't store,
/// so that a full disk never blocks the container; the first error is returned at the end.
pub fn copy(source: impl Read, stream: Stream, writer: &Mutex<LogWriter>) -> io::Result<()> {
    let mut source = BufReader::with_capacity(MAX_LINE_BYTES, source);
    let mut line = Vec::with_capacity(MAX_LINE_BYTES);
    let mut outcome = Ok(());
    loop {
        line.clear();
        let read = source.by_ref().take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line)?;
        if read == 0 {
            return outcome;
        }
        let full = line.last() == Some(&b'\n');
        if full {
            line.pop();
        }
        // A line cut by the end of the stream is whole: nothing follows that would complete it.
        let partial = !full && read == MAX_LINE_BYTES;
        let written = writer.lock().write(jiff::Timestamp::now(), stream, partial, &line);
        outcome = outcome.and(written);
    }
}

fn escape(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"/-._~,".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_of_the_io_address_is_what_the_driver_reads() {
        let rotation = Rotation { max_bytes: 10, max_files: 3 };
        let uri = io_uri(Path::new("/usr/bin/skep-kubelet"), Path::new("/var/log/pods/a_b_c/main/0.log"), rotation);
        let target = uri.strip_prefix("binary:///usr/bin/skep-kubelet?log-driver=").expect("one parameter");
        assert_eq!(parse_target(target), Some((rotation, PathBuf::from("/var/log/pods/a_b_c/main/0.log"))));
    }

    #[test]
    fn a_relative_path_or_a_zero_limit_is_no_target() {
        assert_eq!(parse_target("10,3,a.log"), None);
        assert_eq!(parse_target("0,3,/a.log"), None);
        assert_eq!(parse_target("10,/a.log"), None);
    }

    #[test]
    fn a_long_line_is_split_and_the_last_line_needs_no_newline() {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("0.log");
        let rotation = Rotation { max_bytes: 1 << 20, max_files: 2 };
        let writer = Mutex::new(LogWriter::open(&path, rotation).expect("open"));
        let mut input = vec![b'a'; MAX_LINE_BYTES + 1];
        input.extend_from_slice(b"\n\nend");
        copy(&input[..], Stream::Stdout, &writer).expect("copy");
        let text = std::fs::read_to_string(&path).expect("log");
        let tags: Vec<_> = text.lines().map(|line| line.split(' ').nth(2).expect("tag")).collect();
        assert_eq!(tags, ["P", "F", "F", "F"]);
        assert!(text.ends_with("stdout F end\n"));
    }
}
