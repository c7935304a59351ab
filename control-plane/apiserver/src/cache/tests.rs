use super::*;
use crate::object::{Object, encode};
use bytes::Bytes;
use serde_json::json;
use skep_store::embedded::{Embedded, Options};
use skep_store::{Batch, Condition, Op, Write};
use tokio_util::sync::CancellationToken;

struct Plain;
impl skep_api::kinds::Strategy for Plain {}

const THINGS: GroupResource = GroupResource::new("x", "things");

struct Running {
    cache: Arc<Cache>,
    shutdown: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn start() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(folder.path(), Options::default()).unwrap());
    let cache = Cache::new(store);
    cache.register(THINGS);
    let shutdown = CancellationToken::new();
    tokio::spawn(run(cache.clone(), shutdown.clone()));
    Running { cache, shutdown, _folder: folder }
}

fn value(name: &str, labels: serde_json::Value) -> Bytes {
    let kind = crate::testing::kind("x", "v1", "Thing", "things", Arc::new(Plain));
    encode(&kind, &json!({"apiVersion": "x/v1", "kind": "Thing", "metadata": {"name": name, "labels": labels}}))
}

async fn put(cache: &Cache, name: &str, labels: serde_json::Value) -> Revision {
    let key = keys::object(&THINGS, "a", name);
    let op = Op::Put { value: value(name, labels), ttl: None };
    cache.store().commit(Batch::from(Write { key, op, condition: Condition::None })).await.unwrap()
}

async fn delete(cache: &Cache, name: &str) -> Revision {
    let key = keys::object(&THINGS, "a", name);
    cache.store().commit(Batch::from(Write { key, op: Op::Delete, condition: Condition::None })).await.unwrap()
}

fn everything() -> Filter {
    Filter { prefix: keys::range(&THINGS, "").start, matches: None }
}

fn labelled() -> Filter {
    let matches = |object: &Object| object.index.labels.iter().any(|(key, _)| key == "on");
    Filter { prefix: keys::range(&THINGS, "").start, matches: Some(Box::new(matches)) }
}

#[tokio::test]
async fn a_read_after_a_write_sees_it() {
    let running = start();
    let cache = &running.cache;
    for at in 0..50 {
        put(cache, &format!("t{at}"), json!({})).await;
        cache.wait_for_latest(&THINGS).await.unwrap();
        assert!(cache.get(&THINGS, "a", &format!("t{at}")).is_some());
    }
    assert_eq!(cache.resource(&THINGS).unwrap().list(&everything(), None, 0).objects.len(), 50);
}

#[tokio::test]
async fn a_watcher_sees_each_change_once_and_in_order() {
    let running = start();
    let cache = &running.cache;
    let first = put(cache, "t", json!({})).await;
    cache.wait_for(first).await.unwrap();
    let start = cache.resource(&THINGS).unwrap().watch(everything(), first);
    let mut watching = start.watching;
    assert!(start.missed.is_empty());
    put(cache, "t", json!({"a": "b"})).await;
    delete(cache, "t").await;
    let seen: Vec<_> = [watching.next().await.unwrap(), watching.next().await.unwrap()]
        .iter()
        .map(|seen| (seen.parts().0, seen.parts().1.revision.0))
        .collect();
    assert_eq!(seen, [(ChangeKind::Modified, first.0 + 1), (ChangeKind::Deleted, first.0 + 2)]);
}

#[tokio::test]
async fn an_object_that_leaves_a_selection_is_deleted_for_its_watcher() {
    let running = start();
    let cache = &running.cache;
    let first = put(cache, "t", json!({"on": "1"})).await;
    cache.wait_for(first).await.unwrap();
    let (objects, mut watching) = cache.resource(&THINGS).unwrap().watch_from_now(labelled());
    assert_eq!(objects.len(), 1);
    let left = put(cache, "t", json!({})).await;
    let seen = watching.next().await.unwrap();
    assert_eq!((seen.parts().0, seen.parts().1.revision), (ChangeKind::Deleted, left));
    put(cache, "t", json!({"on": "2"})).await;
    assert_eq!(watching.next().await.unwrap().parts().0, ChangeKind::Added);
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_cut_off_and_holds_nobody_back() {
    let running = start();
    let cache = &running.cache;
    let first = put(cache, "t", json!({})).await;
    cache.wait_for(first).await.unwrap();
    let (_, mut slow) = cache.resource(&THINGS).unwrap().watch_from_now(everything());
    let writes = (0..watcher::QUEUE + 10)
        .map(|at| put(cache, if at % 2 == 0 { "even" } else { "odd" }, json!({"n": at.to_string()})));
    futures::future::join_all(writes).await;
    cache.wait_for_latest(&THINGS).await.unwrap();
    assert_eq!(cache.resource(&THINGS).unwrap().watchers(), 0);
    let mut seen = 0;
    while slow.next().await.is_some() {
        seen += 1;
    }
    assert_eq!(seen, watcher::QUEUE);
}
