//! What the engine counts about itself. Plain counters: the process that has the engine exposes them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters since the store was opened.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Batches committed.
    pub commits: Counter,
    /// Writes committed.
    pub writes: Counter,
    /// Bytes of records written.
    pub bytes: Counter,
    /// Batches refused for a condition that did not hold.
    pub conflicts: Counter,
    /// Groups that failed (disk full, I/O error).
    pub failures: Counter,
    /// Keys that went away because their time to live was over.
    pub expired: Counter,
    /// Watchers ended because they were too slow.
    pub lagging: Counter,
    /// Changes handed to watchers.
    pub delivered: Counter,
    /// Records forgotten by compaction.
    pub forgotten: Counter,
    /// Batches that shared one sync, in powers of two.
    pub group_size: Histogram,
    /// Time a group took to reach the disk, in microseconds, in powers of two.
    pub sync_microseconds: Histogram,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counts by size: bucket `i` holds what is at most 2^i and above the bucket before; the last one holds everything greater as well.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; 26],
    sum: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, value: u64) {
        let bucket = value.max(1).next_power_of_two().trailing_zeros() as usize;
        self.buckets[bucket.min(self.buckets.len() - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(crate) fn observe_time(&self, time: Duration) {
        self.observe(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Upper bound and count of each bucket.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets.iter().enumerate().map(|(at, count)| (1 << at, count.load(Ordering::Relaxed)))
    }

    /// The sum of all that was observed.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_the_bucket_whose_bound_is_at_or_above_it() {
        let histogram = Histogram::default();
        for value in [0, 1, 2, 3, 4, u64::MAX >> 1] {
            histogram.observe(value);
        }
        let counts: Vec<_> = histogram.buckets().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counts, [(1, 2), (2, 1), (4, 2), (1 << 25, 1)]);
    }
}
