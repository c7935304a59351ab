//! Durable commits of the embedded store at 1, 16 and 256 writers, and what reads cost meanwhile: `cargo bench -p skep-benches --bench store`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use skep_benches::store_load::{create, key, value};
use skep_store::embedded::{Embedded, Options};
use skep_store::{At, Batch, Condition, Op, Range, Revision, Store, Write};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

fn open(directory: &TempDir) -> Arc<Embedded> {
    Arc::new(Embedded::open(directory.path(), Options::default()).expect("the store opens"))
}

fn commits(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let directory = TempDir::new().expect("a directory for the store");
    let store = open(&directory);
    let run = AtomicU64::new(0);
    let mut group = criterion.benchmark_group("durable commits of 1 KiB");
    group.sample_size(10).throughput(Throughput::Elements(1));
    for writers in [1, 16, 256] {
        group.bench_function(BenchmarkId::new("embedded store", writers), |bencher| {
            bencher.to_async(&runtime).iter_custom(async |count| {
                let run = run.fetch_add(1, Ordering::Relaxed).to_string();
                let begun = Instant::now();
                let mut tasks = JoinSet::new();
                for writer in 0..writers {
                    let (store, run) = (store.clone(), run.clone());
                    let share = (count + writer as u64) / writers as u64;
                    tasks.spawn(async move {
                        for n in 0..share {
                            create(&store, key(&run, writer, n), value(n)).await;
                        }
                    });
                }
                tasks.join_all().await;
                begun.elapsed()
            });
        });
    }
    group.finish();
}

/// Thousands of keys, 200 bytes each.
async fn fill(store: &Embedded, thousands: u32) {
    for chunk in 0..thousands {
        let writes = (0..1_000).map(|n| Write {
            key: format!("/pods/{chunk:03}/{n:04}").into(),
            op: Op::Put { value: value(n).slice(..200), ttl: None },
            condition: Condition::None,
        });
        store.commit(Batch { writes: writes.collect() }).await.expect("the disk has room");
    }
}

fn reads(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let directory = TempDir::new().expect("a directory for the store");
    let store = open(&directory);
    runtime.block_on(fill(&store, 100));
    let mut group = criterion.benchmark_group("reads among 100 000 keys");
    group.sample_size(20);
    group.bench_function("get", |bencher| {
        bencher.to_async(&runtime).iter(async || store.get(b"/pods/050/0500", At::Latest).await.expect("it is there"));
    });
    group.bench_function("list in pages of 500", |bencher| {
        bencher.to_async(&runtime).iter(async || {
            let (mut at, mut after, mut seen) = (At::Latest, None, 0);
            loop {
                let page = store.list(&Range::all(), at, 500, after.as_deref()).await.expect("the list succeeds");
                seen += page.entries.len();
                if page.remaining == 0 {
                    break seen;
                }
                at = At::Exactly(page.revision);
                after = page.entries.last().map(|entry| entry.key.clone());
            }
        });
    });
    group.bench_function("get 1 000 revisions back", |bencher| {
        let old = Revision(runtime.block_on(store.current(&Range::all())).expect("the store is there").0 - 1_000);
        bencher
            .to_async(&runtime)
            .iter(async || store.get(b"/pods/050/0500", At::Exactly(old)).await.expect("it is there"));
    });
    group.finish();
}

fn starts(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("starting the store");
    group.sample_size(10);
    for thousands in [100, 1_000] {
        let directory = TempDir::new().expect("a directory for the store");
        let store = open(&directory);
        runtime.block_on(fill(&store, thousands));
        drop(store);
        group.bench_function(BenchmarkId::from_parameter(thousands * 1_000), |bencher| {
            bencher.iter_batched(|| (), |()| open(&directory), BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, commits, reads, starts);
criterion_main!(benches);
