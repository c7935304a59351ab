//! Durable creations of 1 KiB values: the embedded store beside etcd, on the same disk, by turns in one run.
//!
//! `cargo run --release -p skep-benches --bin store-against-etcd -- [SECONDS]` (default 5 a line). etcd (`/usr/bin/etcd`, or `$ETCD`) is started on loopback
//! with a directory of its own, driven over its gRPC API with the transaction that an API server creates an object with, and stopped again.
//! The embedded store is called as the API server calls it, in process: the ratio is what the API server gains, not what the disk formats differ by.

mod etcd;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use skep_benches::store_load::{Measured, create, key, run, value};
use skep_store::embedded::{Embedded, Options};
use tempfile::TempDir;

use crate::etcd::Etcd;

/// Turns that each takes at each number of writers, so that a disk which changes its mood changes it for both.
const TURNS: usize = 2;

#[tokio::main]
async fn main() -> Result<()> {
    let seconds = match std::env::args().nth(1) {
        Some(seconds) => seconds.parse().context("the argument is a number of seconds")?,
        None => 5,
    };
    let time = Duration::from_secs(seconds);
    let place = TempDir::new()?;
    let etcd = Etcd::start(&place.path().join("etcd")).await?;
    let store = Arc::new(Embedded::open(place.path().join("skep"), Options::default())?);
    println!(
        "{} against the embedded store, 1 KiB values, in {}, {seconds} s a line",
        etcd.version(),
        place.path().display()
    );
    for writers in [1, 16, 256] {
        let mut rates = [0.0; 2];
        for turn in 0..TURNS {
            let name = format!("{writers}-{turn}");
            let clients = etcd.clients(writers).await?;
            let run_name = name.clone();
            let measured = run(writers, time, move |writer, n| {
                let (client, key) = (clients[writer].clone(), key(&run_name, writer, n));
                async move { client.create(key, value(n)).await.expect("etcd takes the key") }
            })
            .await;
            rates[0] += measured.per_second;
            line("etcd", writers, measured);
            let embedded = store.clone();
            let measured = run(writers, time, move |writer, n| {
                let (store, key) = (embedded.clone(), key(&name, writer, n));
                async move { create(&store, key, value(n)).await }
            })
            .await;
            rates[1] += measured.per_second;
            line("embedded", writers, measured);
        }
        println!("{writers:>4} writers: the embedded store does {:.2} times as many", rates[1] / rates[0]);
    }
    store.close().await;
    Ok(())
}

fn line(name: &str, writers: usize, measured: Measured) {
    let Measured { per_second, p50, p99 } = measured;
    println!("{writers:>4} writers  {name:<9} {per_second:>9.0}/s   p50 {p50:>9.1?}   p99 {p99:>9.1?}");
}
