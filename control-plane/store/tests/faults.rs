//! Disks that are full, files that can't grow, bytes that changed: an acknowledged write is there, or the store refuses to start and says so.
//!
//! The full disk is a tmpfs of the test's own, so this file assumes root.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Resource, Rlimit, setrlimit};
use skep_store::conformance::{delete, put};
use skep_store::embedded::{Embedded, Options};
use skep_store::{At, Batch, Entry, Error, Op, Range, Revision, Store, Write};
use tempfile::TempDir;

fn options() -> Options {
    Options { reserve: 0, ..Options::default() }
}

fn large(key: &str) -> Write {
    Write { op: Op::Put { value: vec![7; 64 << 10].into(), ttl: None }, ..put(key, "") }
}

async fn entries(store: &Embedded) -> Vec<Entry> {
    store.list(&Range::all(), At::Latest, 0, None).await.expect("the list succeeds").entries
}

/// A small file system; unmounted when dropped.
struct Disk(TempDir);

impl Disk {
    fn new(size: &str) -> Self {
        let place = TempDir::new().expect("a mount point");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "skep-test"])
            .arg(place.path())
            .status();
        assert!(mounted.expect("mount runs").success(), "mounting a tmpfs needs root");
        Self(place)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_keeps_reads_and_heals() {
    let disk = Disk::new("48m");
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![1; 24 << 20]).expect("there is room");
    let directory = disk.0.path().join("store");
    let store = Embedded::open(&directory, options()).expect("the store opens");
    let mut acknowledged = Vec::new();
    let error = loop {
        let key = format!("k/{:04}", acknowledged.len());
        match store.commit(large(&key).into()).await {
            Ok(_) => acknowledged.push(key),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 2_000, "the disk gets full");
    };
    assert!(matches!(error, Error::Full(_)), "{error}");
    let keys = |entries: Vec<Entry>| {
        entries.iter().map(|entry| String::from_utf8_lossy(&entry.key).into_owned()).collect::<Vec<_>>()
    };
    assert_eq!(keys(entries(&store).await), acknowledged);
    assert!(matches!(store.commit(large("refused").into()).await, Err(Error::Full(_) | Error::Unavailable { .. })));

    fs::remove_file(&ballast).expect("the ballast is removed");
    store.commit(large("k/later").into()).await.expect("there is room again");
    acknowledged.push("k/later".to_owned());
    assert_eq!(keys(entries(&store).await), acknowledged);
    let newest = store.current(&Range::all()).await.expect("the store is there");
    drop(store);
    let store = Embedded::open(&directory, options()).expect("the store opens again");
    assert_eq!(keys(entries(&store).await), acknowledged);
    assert_eq!(store.current(&Range::all()).await.expect("the store is there"), newest);
}

#[tokio::test]
async fn the_reserve_refuses_puts_and_leaves_room_for_deletes() {
    let place = TempDir::new().expect("a directory");
    let store = Embedded::open(place.path(), options()).expect("the store opens");
    store.commit(put("a", "1").into()).await.expect("there is room");
    drop(store);
    let store = Embedded::open(place.path(), Options { reserve: u64::MAX, ..options() }).expect("the store opens");
    assert!(matches!(store.commit(put("b", "1").into()).await, Err(Error::Full(_))));
    assert!(store.get(b"a", At::Latest).await.expect("reads go on").is_some());
    store.commit(delete("a").into()).await.expect("deletes make room");
    assert_eq!(store.current(&Range::all()).await.expect("the store is there"), Revision(2));
}

const LIMITED: &str = "SKEP_LIMITED_CHILD_DIRECTORY";
const LIMIT: &str = "SKEP_LIMITED_CHILD_BYTES";

/// Under a file size limit, in bytes: a write is cut short, then fails. Says what was acknowledged.
#[tokio::test]
async fn child_with_a_file_size_limit() {
    let Ok(directory) = std::env::var(LIMITED) else { return };
    let limit = std::env::var(LIMIT).ok().and_then(|limit| limit.parse().ok());
    let store = Embedded::open(&directory, options()).expect("the store opens");
    setrlimit(Resource::Fsize, Rlimit { current: limit, maximum: None }).expect("a limit can be lowered");
    for n in 0..10_000 {
        match store.commit(Batch { writes: vec![large(&format!("k/{n:04}")), put("last", &n.to_string())] }).await {
            Ok(_) => println!("ack {n}"),
            Err(error) => {
                assert!(matches!(error, Error::Full(_) | Error::Unavailable { .. }), "{error}");
                assert_eq!(
                    entries(&store).await.len(),
                    n + usize::from(n > 0),
                    "reads go on with what was acknowledged"
                );
                println!("failed");
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_write_cut_short_loses_nothing_that_was_acknowledged() {
    for limit in [400_000, 600_001, 1_000_003] {
        let place = TempDir::new().expect("a directory");
        // The signal is ignored, so that the write fails instead of the process.
        let script = "trap '' XFSZ; exec \"$0\" --exact child_with_a_file_size_limit --nocapture --quiet";
        let child = Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg(std::env::current_exe().expect("the test's own binary"))
            .env(LIMITED, place.path())
            .env(LIMIT, limit.to_string())
            .stderr(Stdio::null())
            .output()
            .expect("the child runs");
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(said.contains("failed"), "the limit of {limit} bytes is reached: {said}");
        let acknowledged = said.lines().filter(|line| line.contains("ack ")).count();
        let store = Embedded::open(place.path(), options()).expect("the store opens again");
        let there = entries(&store).await;
        assert_eq!(there.len(), acknowledged + 1, "each acknowledged batch, whole, and no other");
        let current = store.current(&Range::all()).await.expect("the store is there").0;
        assert_eq!(store.commit(put("more", "1").into()).await.expect("there is room"), Revision(current + 1));
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The length of a file without the zeros at its end.
fn used(file: &Path) -> usize {
    let bytes = fs::read(file).expect("the file can be read");
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).expect("it is below"));
        fs::create_dir_all(target.parent().expect("it has one")).expect("the directory is made");
        // Journals end in megabytes of zeros.
        let bytes = fs::read(&file).expect("the file can be read");
        fs::write(&target, &bytes[..used(&file)]).expect("the file is copied");
        let grown = fs::OpenOptions::new().write(true).open(target).and_then(|file| file.set_len(bytes.len() as u64));
        grown.expect("the copy is as long");
    }
}

/// A store with tables, journals and some compaction behind it; returns what it holds.
async fn filled(directory: &Path) -> Vec<Entry> {
    let store = Embedded::open(directory, options()).expect("the store opens");
    for n in 0..30 {
        let writes = (0..20).map(|key| put(&format!("k/{key:02}"), &format!("{n}{}", "x".repeat(50)))).collect();
        store.commit(Batch { writes }).await.expect("there is room");
    }
    store.compact(Revision(300)).await.expect("compaction succeeds");
    store.commit(put("last", "1").into()).await.expect("there is room");
    entries(&store).await
}

async fn right_or_refused(directory: &Path, expected: &[Entry], what: &str) -> bool {
    match Embedded::open(directory, options()) {
        Ok(store) => {
            assert_eq!(entries(&store).await, expected, "{what}");
            false
        }
        Err(Error::Corrupt { .. } | Error::Format { .. }) => true,
        Err(error) => panic!("{what}: {error}"),
    }
}

#[tokio::test]
async fn a_changed_byte_is_refused_or_changes_nothing() {
    let place = TempDir::new().expect("a directory");
    let whole = place.path().join("whole");
    let expected = filled(&whole).await;
    let mut refused = 0;
    for file in files(&whole) {
        let name = file.strip_prefix(&whole).expect("it is below").to_owned();
        let length = used(&file);
        for at in (0..length).step_by((length / 25).max(1)) {
            let damaged = place.path().join("damaged");
            copy(&whole, &damaged);
            let file = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(damaged.join(&name))
                .expect("the file can be opened");
            let mut byte = [0];
            file.read_exact_at(&mut byte, at as u64).expect("the byte can be read");
            file.write_all_at(&[byte[0] ^ 0x41], at as u64).expect("the byte can be written");
            let what = format!("byte {at} of {}", name.display());
            refused += u32::from(right_or_refused(&damaged, &expected, &what).await);
            fs::remove_dir_all(&damaged).expect("the copy is removed");
        }
    }
    assert!(refused > 10, "only {refused} were noticed");
}

#[tokio::test]
async fn a_journal_that_lost_acknowledged_changes_is_refused_and_kept() {
    let place = TempDir::new().expect("a directory");
    let whole = place.path().join("whole");
    let expected = filled(&whole).await;
    let journal = files(&whole).into_iter().find(|file| file.extension().is_some_and(|extension| extension == "jnl"));
    let name = journal.expect("there is a journal").strip_prefix(&whole).expect("it is below").to_owned();
    let length = used(&whole.join(&name));
    let mut refused = 0;
    for at in (0..length).step_by((length / 40).max(1)) {
        let damaged = place.path().join("damaged");
        copy(&whole, &damaged);
        let file = fs::OpenOptions::new().write(true).open(damaged.join(&name)).expect("the file can be opened");
        file.set_len(at as u64).expect("the file is cut");
        if right_or_refused(&damaged, &expected, &format!("cut to {at}")).await {
            refused += 1;
            let kept = damaged.join("journal-before").join(name.file_name().expect("it has a name"));
            assert_eq!(fs::metadata(kept).expect("the journal is kept").len(), at as u64);
            assert!(right_or_refused(&damaged, &expected, "the second start").await, "it is refused again");
        }
        fs::remove_dir_all(&damaged).expect("the copy is removed");
    }
    assert!(refused > 5, "only {refused} cuts were noticed");
}
