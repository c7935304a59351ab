//! Durable creations of 1 KiB values by concurrent writers, each waiting for its answer before the next: what an API server asks of its store.

use std::future::Future;
use std::time::{Duration, Instant};

use bytes::Bytes;
use skep_store::embedded::Embedded;
use skep_store::{Condition, Op, Store as _, Write};
use tokio::task::JoinSet;

use crate::sample::Sample;

/// Bytes of a value.
pub const VALUE: usize = 1024;

/// A value that does not compress.
#[must_use]
pub fn value(seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut value = Vec::with_capacity(VALUE);
    while value.len() < VALUE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.into()
}

/// The key of a writer's n-th value.
#[must_use]
pub fn key(run: &str, writer: usize, n: u64) -> Bytes {
    Bytes::from(format!("/bench/{run}/{writer:04}/{n:08}"))
}

/// Creates one key in the embedded store.
///
/// # Panics
/// When the store refuses.
pub async fn create(store: &Embedded, key: Bytes, value: Bytes) {
    let write = Write { key, op: Op::Put { value, ttl: None }, condition: Condition::Absent };
    store.commit(write.into()).await.expect("the key is new and the disk has room");
}

/// Lets `writers` tasks write for a while; `write(writer, n)` is one acknowledged write.
///
/// # Panics
/// When a writer does.
pub async fn run<F: Future<Output = ()> + Send>(
    writers: usize,
    time: Duration,
    write: impl Fn(usize, u64) -> F + Clone + Send + 'static,
) -> Sample {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let write = write.clone();
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while begun.elapsed() < time {
                let asked = Instant::now();
                write(writer, latencies.len() as u64).await;
                latencies.push(asked.elapsed());
            }
            latencies
        });
    }
    let latencies = tasks.join_all().await.into_iter().flatten().collect();
    Sample { latencies, elapsed: begun.elapsed() }
}
