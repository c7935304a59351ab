//! Durable creations of 1 KiB values: the embedded store beside etcd, on the same disk, by turns in one run.
//!
//! `cargo run --release -p skep-benches --bin store-against-etcd -- [SECONDS] [--json]` (default 5 a line). etcd (`/usr/bin/etcd`, or `$ETCD`) is started on
//! loopback with a directory of its own, driven over its gRPC API with the transaction that an API server creates an object with, and stopped again.
//! The embedded store is called as the API server calls it, in process: the ratio is what the API server gains, not what the disk formats differ by.

mod etcd;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use skep_benches::sample::Sample;
use skep_benches::store_load::{create, key, run, value};
use skep_store::embedded::{Embedded, Options};
use tempfile::TempDir;

use crate::etcd::Etcd;

/// Turns that each takes at each number of writers, so that a disk which changes its mood changes it for both.
const TURNS: usize = 2;
const WHAT: &str = "durable creations of 1 KiB";
const SIDES: [&str; 2] = ["embedded store", "etcd"];

/// The embedded store beside etcd.
#[derive(Parser)]
struct Args {
    /// How long each turn takes.
    #[arg(default_value_t = 5)]
    seconds: u64,
    /// Print a line of JSON for each side and number of writers, in the place of the tables.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let time = Duration::from_secs(args.seconds);
    let place = TempDir::new()?;
    let etcd = Etcd::start(&place.path().join("etcd")).await?;
    let store = Arc::new(Embedded::open(place.path().join("skep"), Options::default())?);
    eprintln!(
        "{} against the embedded store, 1 KiB values, in {}, {} s a turn",
        etcd.version(),
        place.path().display(),
        args.seconds
    );
    for writers in [1, 16, 256] {
        let mut samples: [Sample; 2] = Default::default();
        for turn in 0..TURNS {
            let name = format!("{writers}-{turn}");
            let clients = etcd.clients(writers).await?;
            let (run_name, embedded) = (name.clone(), store.clone());
            let theirs = run(writers, time, move |writer, n| {
                let (client, key) = (clients[writer].clone(), key(&run_name, writer, n));
                async move { client.create(key, value(n)).await.expect("etcd takes the key") }
            })
            .await;
            let ours = run(writers, time, move |writer, n| {
                let (store, key) = (embedded.clone(), key(&name, writer, n));
                async move { create(&store, key, value(n)).await }
            })
            .await;
            for ((sample, side), turn) in samples.iter_mut().zip(SIDES).zip([ours, theirs]) {
                if !args.json {
                    line(side, writers, &turn);
                }
                sample.extend(turn);
            }
        }
        let [ours, theirs] = samples.map(|sample| sample.measured());
        if args.json {
            for (side, measured) in SIDES.into_iter().zip([ours, theirs]) {
                measured.record(WHAT, side, writers as u64).print()?;
            }
        } else {
            let ratio = ours.per_second / theirs.per_second;
            println!("{writers:>4} writers: the embedded store does {ratio:.2} times as many");
        }
    }
    store.close().await;
    Ok(())
}

fn line(side: &str, writers: usize, turn: &Sample) {
    let measured = turn.measured();
    let (per_second, p50, p99) = (measured.per_second, measured.p50, measured.p99);
    println!("{writers:>4} writers  {side:<14} {per_second:>9.0}/s   p50 {p50:>9.1?}   p99 {p99:>9.1?}");
}
