//! What the embedded engine does beyond the contract: shared syncs, retention, slow watchers, closing.

use std::sync::Arc;
use std::time::Duration;

use skep_store::conformance::put;
use skep_store::embedded::{Clock, Embedded, Options};
use skep_store::{At, Batch, Error, Op, Range, Revision, Store, Write};
use tempfile::TempDir;

fn open(place: &TempDir, options: Options) -> Arc<Embedded> {
    Arc::new(Embedded::open(place.path(), Options { reserve: 0, ..options }).expect("the store opens"))
}

fn kilobyte(key: &str) -> Write {
    Write { op: Op::Put { value: vec![1; 1024].into(), ttl: None }, ..put(key, "") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_wait_share_a_sync() {
    let place = TempDir::new().expect("a directory");
    let store = open(&place, Options::default());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..200 {
        let store = store.clone();
        writers.spawn(async move {
            for _ in 0..10 {
                store.commit(put(&format!("k/{writer}"), "x").into()).await.expect("the commit succeeds");
            }
        });
    }
    writers.join_all().await;
    let metrics = store.metrics();
    let groups: u64 = metrics.group_size.buckets().map(|(_, count)| count).sum();
    assert_eq!((metrics.commits.get(), metrics.writes.get()), (2_000, 2_000));
    assert!(groups < 500, "2 000 commits took {groups} syncs");
}

#[tokio::test]
async fn history_is_kept_for_its_time_and_up_to_its_bytes() {
    let clock = Clock::manual(1_000_000);
    let place = TempDir::new().expect("a directory");
    let minute = Duration::from_secs(60);
    let options = Options {
        clock: clock.clone(),
        retention: minute * 10,
        retention_bytes: 20_000,
        sweep_interval: minute * 60,
        ..Options::default()
    };
    let store = open(&place, options);
    for n in 0..50 {
        store.commit(kilobyte(&format!("k/{}", n % 5)).into()).await.expect("the commit succeeds");
    }
    clock.advance(minute * 9);
    store.sweep().await.expect("the sweep succeeds");
    assert_eq!(store.stats().oldest, Revision(0), "it is young");
    clock.advance(minute * 2);
    store.sweep().await.expect("the sweep succeeds");
    let stats = store.stats();
    assert!(stats.history_bytes <= 20_000 && stats.history_bytes > 18_000, "{stats:?}");
    assert_eq!((stats.oldest, stats.keys), (Revision(32), 5));
    assert!(matches!(
        store.get(b"k/0", At::Exactly(Revision(31))).await,
        Err(Error::Compacted { oldest: Revision(32) })
    ));
    assert!(store.get(b"k/0", At::Exactly(Revision(32))).await.expect("it is kept").is_some());
}

#[tokio::test]
async fn a_watcher_that_takes_nothing_is_ended_and_slows_nobody() {
    let place = TempDir::new().expect("a directory");
    let store = open(&place, Options { watcher_events: 100, window_bytes: 10_000, ..Options::default() });
    let mut slow = store.watch(Range::all(), Revision(0)).await.expect("the watch starts");
    let mut quick = store.watch(Range::all(), Revision(0)).await.expect("the watch starts");
    let mut seen = 0;
    for n in 0..300_u64 {
        store.commit(put("k", &n.to_string()).into()).await.expect("the commit succeeds");
        while seen <= n {
            seen += quick.next().await.expect("it keeps up").0.len() as u64;
        }
    }
    assert!(matches!(slow.next().await, Err(Error::Lagging)));
    assert!(matches!(slow.next().await, Err(Error::Lagging)));
    assert_eq!(store.metrics().lagging.get(), 1);
    let mut again = store.watch(Range::all(), Revision(0)).await.expect("a new watch starts from history");
    assert_eq!(again.next().await.expect("it goes on").0.first().map(|event| event.revision), Some(Revision(1)));
}

#[tokio::test]
async fn a_watch_with_a_backlog_larger_than_its_queue_is_not_ended_for_it() {
    let place = TempDir::new().expect("a directory");
    let store = open(&place, Options { watcher_events: 10, ..Options::default() });
    for n in 0..100 {
        store.commit(put("k", &n.to_string()).into()).await.expect("the commit succeeds");
    }
    let mut events = store.watch(Range::all(), Revision(0)).await.expect("the watch starts");
    store.commit(put("k", "last").into()).await.expect("the commit succeeds");
    let mut seen = 0;
    while seen < 101 {
        seen += events.next().await.expect("it goes on").0.len();
    }
    assert_eq!(seen, 101);
}

#[tokio::test]
async fn closing_ends_watches_after_their_last_change_and_refuses_commits() {
    let place = TempDir::new().expect("a directory");
    let store = open(&place, Options::default());
    let mut events = store.watch(Range::all(), Revision(0)).await.expect("the watch starts");
    store.commit(put("k", "1").into()).await.expect("the commit succeeds");
    store.close().await;
    assert_eq!(events.next().await.expect("the change is delivered").0.len(), 1);
    assert!(matches!(events.next().await, Err(Error::Closed)));
    assert!(matches!(store.commit(put("k", "2").into()).await, Err(Error::Closed)));
    assert!(store.get(b"k", At::Latest).await.expect("reads go on").is_some());
    store.close().await;
}

#[tokio::test]
async fn dropping_the_store_frees_its_directory() {
    let place = TempDir::new().expect("a directory");
    for n in 1..=5 {
        let store = open(&place, Options::default());
        assert_eq!(store.commit(put("k", "1").into()).await.expect("the commit succeeds"), Revision(n));
    }
}

#[tokio::test]
async fn a_batch_or_value_over_its_limit_is_refused_whole() {
    let place = TempDir::new().expect("a directory");
    let store = open(&place, Options { max_value: 1_024, max_batch: 3_000, ..Options::default() });
    store.commit(kilobyte("a").into()).await.expect("it is at the limit");
    let larger = Write { op: Op::Put { value: vec![1; 1_025].into(), ttl: None }, ..put("b", "") };
    assert!(matches!(
        store.commit(larger.into()).await,
        Err(Error::TooLarge { what: "value", size: 1_025, limit: 1_024 })
    ));
    let batch = Batch { writes: vec![kilobyte("c"), kilobyte("d"), kilobyte("e")] };
    assert!(matches!(store.commit(batch).await, Err(Error::TooLarge { what: "batch", size: 3_075, .. })));
    assert_eq!(store.stats().keys, 1);
}
