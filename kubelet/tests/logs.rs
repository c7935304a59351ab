//! Reading a log while it is written, rotated and removed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use skep_kubelet::logs::reader::{self, LogOptions};
use skep_kubelet::logs::writer::{LogWriter, Rotation, Stream};
use tokio::sync::watch;

/// A log whose files hold two lines each.
struct Log {
    directory: tempfile::TempDir,
    writer: LogWriter,
    written: i64,
}

impl Log {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("tempdir");
        // An entry is 44 bytes long.
        let rotation = Rotation { max_bytes: 88, max_files: 3 };
        let writer = LogWriter::open(&directory.path().join("0.log"), rotation).expect("open");
        Self { directory, writer, written: 0 }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("0.log")
    }

    /// Writes lines "0", "1", …, a second apart.
    fn write(&mut self, lines: i64) {
        for _ in 0..lines {
            let now = Timestamp::from_second(self.written).expect("time");
            let text = format!("{:03}", self.written);
            self.writer.write(now, Stream::Stdout, false, text.as_bytes()).expect("write");
            self.written += 1;
        }
    }

    async fn read(&self, options: LogOptions) -> String {
        let pieces = reader::stream(self.path(), options, watch::channel(false).1).try_collect::<Vec<_>>();
        String::from_utf8(within(pieces).await.expect("read").concat()).expect("text")
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("in time")
}

#[tokio::test]
async fn what_was_put_aside_is_read_before_the_current_file() {
    let mut log = Log::new();
    log.write(5);
    assert_eq!(log.read(LogOptions::default()).await, "000\n001\n002\n003\n004\n");
}

#[tokio::test]
async fn the_last_lines_reach_into_what_was_put_aside() {
    let mut log = Log::new();
    log.write(5);
    let tail = |lines| LogOptions { tail_lines: Some(lines), ..LogOptions::default() };
    assert_eq!(log.read(tail(4)).await, "001\n002\n003\n004\n");
    assert_eq!(log.read(tail(3)).await, "002\n003\n004\n");
    assert_eq!(log.read(tail(100)).await, "000\n001\n002\n003\n004\n");
    assert_eq!(log.read(tail(0)).await, "");
}

#[tokio::test]
async fn what_is_older_is_left_out() {
    let mut log = Log::new();
    log.write(5);
    let since = Timestamp::from_second(3).ok();
    assert_eq!(log.read(LogOptions { since, ..LogOptions::default() }).await, "003\n004\n");
}

#[tokio::test]
async fn the_end_of_a_log_is_cut_from_its_beginning() {
    let mut log = Log::new();
    log.write(5);
    assert_eq!(reader::last(log.path(), 2, 100).await.expect("read"), b"003\n004\n");
    assert_eq!(reader::last(log.path(), 2, 6).await.expect("read"), b"3\n004\n");
}

#[tokio::test]
async fn a_follower_misses_nothing_over_rotations_and_ends_with_the_writer() {
    let mut log = Log::new();
    log.write(1);
    let (runs, running) = watch::channel(true);
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut followed = Box::pin(reader::stream(log.path(), options, running));
    let mut text = Vec::new();
    for _ in 0..20 {
        log.write(3);
        let expected = (log.written * 4) as usize;
        while text.len() < expected {
            text.extend_from_slice(&within(followed.next()).await.expect("not ended").expect("read"));
        }
    }
    runs.send(false).expect("followed");
    // The container has ended, but its driver still has something to write.
    log.write(1);
    let Log { directory: _directory, writer, written } = log;
    let rest = async { followed.try_collect::<Vec<_>>().await.expect("read").concat() };
    let (rest, ()) = within(async { tokio::join!(rest, async { drop(writer) }) }).await;
    text.extend_from_slice(&rest);
    let expected: String = (0..written).map(|line| format!("{line:03}\n")).collect();
    assert_eq!(String::from_utf8(text).expect("text"), expected);
}

#[tokio::test]
async fn a_follower_from_the_end_sees_only_what_is_new() {
    let mut log = Log::new();
    log.write(3);
    let (_runs, running) = watch::channel(true);
    let options = LogOptions { follow: true, tail_lines: Some(1), ..LogOptions::default() };
    let mut followed = Box::pin(reader::stream(log.path(), options, running));
    assert_eq!(within(followed.next()).await.expect("not ended").expect("read"), "002\n");
    log.write(1);
    assert_eq!(within(followed.next()).await.expect("not ended").expect("read"), "003\n");
}

#[tokio::test]
async fn a_log_that_is_not_there_is_not_found() {
    let directory = tempfile::tempdir().expect("tempdir");
    let path = directory.path().join("0.log");
    let read = reader::stream(path, LogOptions::default(), watch::channel(false).1).try_collect::<Vec<_>>().await;
    assert_eq!(read.expect_err("nothing there").kind(), io::ErrorKind::NotFound);
}
