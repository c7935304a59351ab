//! A control plane that is killed loses nothing that it acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use skep_tests::{ControlPlane, eventually};

const OBJECTS: usize = 2000;

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"key": "x".repeat(200)}})).expect("a ConfigMap")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_kill_and_a_watch_misses_nothing() {
    let mut cluster = ControlPlane::start().await.expect("a control plane");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await.expect("a client"), "default");
    let before = maps.list(&ListParams::default()).await.expect("a list").metadata.resource_version.expect("a version");

    let acknowledged = Arc::new(parking(BTreeSet::new()));
    let done = Arc::new(AtomicUsize::new(0));
    let creating = tokio::spawn({
        let (maps, acknowledged, done) = (maps.clone(), acknowledged.clone(), done.clone());
        async move {
            futures::stream::iter(0..OBJECTS)
                .for_each_concurrent(32, |at| {
                    let (maps, acknowledged, done) = (&maps, &acknowledged, &done);
                    async move {
                        let name = format!("map-{at}");
                        if let Ok(created) = maps.create(&PostParams::default(), &config_map(&name)).await {
                            let version = created.metadata.resource_version.expect("a version");
                            acknowledged.lock().expect("not poisoned").insert((name, version));
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
                .await;
        }
    });
    eventually("a third is created", || async { (done.load(Ordering::Relaxed) > OBJECTS / 3).then_some(()) }).await;
    cluster.kill().await.expect("a running control plane");
    creating.await.expect("the creating task ends");
    cluster.restart().await.expect("a second start");

    let acknowledged = acknowledged.lock().expect("not poisoned").clone();
    assert!(acknowledged.len() > OBJECTS / 4, "only {} were acknowledged", acknowledged.len());
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client().await.expect("a client"), "default");
    let there = maps.list(&ListParams::default()).await.expect("a list");
    let of = |map: &ConfigMap| {
        (map.metadata.name.clone().unwrap_or_default(), map.metadata.resource_version.clone().unwrap_or_default())
    };
    let listed: BTreeSet<_> = there.items.iter().map(of).collect();
    let lost: Vec<_> = acknowledged.difference(&listed).collect();
    assert!(lost.is_empty(), "lost {lost:?}");

    // A watch from before the kill sees every object that is there, in order.
    let mut events = maps.watch(&WatchParams::default().timeout(60), &before).await.expect("a watch").boxed();
    let mut seen = BTreeSet::new();
    let mut last = 0;
    while seen.len() < listed.iter().filter(|(name, _)| name.starts_with("map-")).count() {
        match events.try_next().await.expect("an event").expect("the watch goes on") {
            WatchEvent::Added(map) if map.metadata.name.as_ref().is_some_and(|name| name.starts_with("map-")) => {
                let (name, version) = of(&map);
                let number: u64 = version.parse().expect("a number");
                assert!(number > last, "{number} came after {last}");
                last = number;
                assert!(seen.insert((name, version)), "twice: {map:?}");
            }
            _ => {}
        }
    }
    assert!(seen.is_superset(&acknowledged));
}

/// A plain mutex: held for an insert only, never across an await.
fn parking<T>(value: T) -> std::sync::Mutex<T> {
    std::sync::Mutex::new(value)
}
