//! A process under load is killed at random moments. What it had been told is committed is there afterwards, nothing is torn, revisions go on.
//!
//! The test binary runs itself as the child. The child says on its output what was acknowledged; the parent kills it, opens the store, and compares.
//! `SKEP_CRASH_POINTS` sets how often (default 120), `SKEP_CRASH_SEED` where the kills fall.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use skep_store::conformance::{delete, put};
use skep_store::embedded::{Embedded, Options};
use skep_store::{At, Batch, Error, EventKind, Range, Revision, Store};
use tempfile::TempDir;

const DIRECTORY: &str = "SKEP_CRASH_CHILD_DIRECTORY";
const WRITERS: u64 = 12;

fn options() -> Options {
    // Little history, so that compaction runs under the kills as well.
    let retention = Duration::ZERO;
    Options {
        reserve: 0,
        retention,
        retention_bytes: 200_000,
        sweep_interval: Duration::from_millis(5),
        ..Options::default()
    }
}

/// Writer `w` commits batches of two keys with the same number, and now and then deletes both: `w/N/a` and `w/N/b` never differ.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_under_load() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let store = Arc::new(Embedded::open(&directory, options()).expect("the store opens"));
    println!("open");
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        tasks.spawn(async move {
            let start = store.current(&Range::all()).await.expect("the store is there").0;
            for n in start.. {
                let (a, b) = (format!("w/{writer}/a"), format!("w/{writer}/b"));
                let text = format!("{n}{}", "x".repeat((n % 700) as usize));
                let writes =
                    if n % 7 == 0 { vec![delete(&a), delete(&b)] } else { vec![put(&a, &text), put(&b, &text)] };
                let first = store.commit(Batch { writes }).await.expect("the commit succeeds");
                let said = if n % 7 == 0 { "gone" } else { &text };
                let mut out = std::io::stdout().lock();
                // One write, so that a kill leaves no half of a line that could be taken for a whole one.
                let _ = out.write_all(format!("ack {writer} {first} {said}\n").as_bytes());
            }
        });
    }
    tasks.join_all().await;
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(directory: &Path) -> Killed {
    let test = std::env::current_exe().expect("the test's own binary");
    let child = Command::new(test)
        .args(["--exact", "child_under_load", "--nocapture", "--quiet"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the child starts");
    Killed(child)
}

/// Newest acknowledged revision and text of each writer.
type Acknowledged = BTreeMap<u64, (u64, String)>;

/// Kills the child after some acknowledgements, and reads the rest of what it had said.
fn run_and_kill(directory: &Path, after: u64) -> Acknowledged {
    let mut child = start(directory);
    let mut lines = BufReader::new(child.0.stdout.take().expect("its output is ours")).lines().map_while(Result::ok);
    let mut acknowledged = Acknowledged::new();
    let mut seen = 0;
    let note = |line: &str, acknowledged: &mut Acknowledged| {
        let Some(line) = line.split("ack ").nth(1) else { return false };
        let words: Vec<_> = line.split(' ').collect();
        let [writer, revision, text] = words[..] else { return false };
        let (Ok(writer), Ok(revision)) = (writer.parse(), revision.parse()) else { return false };
        acknowledged.insert(writer, (revision, text.to_owned()));
        true
    };
    while seen < after {
        let line = lines.next().expect("the child goes on until it is killed");
        seen += u64::from(note(&line, &mut acknowledged));
    }
    child.0.kill().expect("the child is killed");
    for line in lines {
        note(&line, &mut acknowledged);
    }
    acknowledged
}

async fn check(directory: &Path, acknowledged: &Acknowledged, before: Revision) -> Revision {
    let store = Embedded::open(directory, options()).expect("the store opens after a kill");
    let newest = store.current(&Range::all()).await.expect("the store is there");
    assert!(newest >= before, "revisions go on");
    for writer in 0..WRITERS {
        let read = async |key: &str| {
            let key = format!("w/{writer}/{key}");
            store.get(key.as_bytes(), At::Latest).await.expect("the read succeeds")
        };
        let (a, b) = (read("a").await, read("b").await);
        assert_eq!(a.as_ref().map(|entry| &entry.value), b.as_ref().map(|entry| &entry.value), "a batch is whole");
        if let Some((revision, text)) = acknowledged.get(&writer) {
            assert!(newest.0 > *revision, "the acknowledged revision {revision} is there");
            match a {
                Some(entry) if entry.revision.0 <= *revision => {
                    assert_eq!((entry.revision.0, &entry.value[..]), (*revision, text.as_bytes()));
                }
                // One more batch may have been on its way.
                Some(_) => {}
                None => assert!(text == "gone" || newest.0 > revision + 2, "writer {writer} lost {text}"),
            }
        }
    }
    // What is retained is complete: consecutive, and each change names the one before.
    let oldest = store.stats().oldest;
    let mut events = match store.watch(Range::all(), oldest).await {
        Ok(events) => events,
        Err(Error::Compacted { .. }) => return newest,
        Err(error) => panic!("{error}"),
    };
    let mut expected = oldest.0;
    let mut latest = BTreeMap::new();
    while expected < newest.0 {
        let batch = match events.next().await {
            Ok((batch, _)) => batch,
            Err(Error::Lagging) => return newest,
            Err(error) => panic!("{error}"),
        };
        for event in batch {
            expected += 1;
            assert_eq!(event.revision.0, expected);
            let replaced = event.previous.as_ref().map(|(_, revision)| *revision);
            if let Some(known) =
                latest.insert(event.key, matches!(event.kind, EventKind::Put(_)).then_some(event.revision))
            {
                assert_eq!(replaced, known);
            }
        }
    }
    newest
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[tokio::test]
async fn every_acknowledged_write_survives_a_kill_at_any_moment() {
    let points = from_environment("SKEP_CRASH_POINTS", 120);
    let mut random = from_environment("SKEP_CRASH_SEED", 0x5eed);
    let directory = TempDir::new().expect("a directory for the store");
    let mut newest = Revision(0);
    for _ in 0..points {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let after = (random >> 33) % 150;
        let acknowledged = run_and_kill(directory.path(), after);
        newest = check(directory.path(), &acknowledged, newest).await;
    }
    assert!(newest.0 > points, "the children did work");
}
