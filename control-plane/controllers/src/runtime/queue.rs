//! A queue of keys in which no key is twice, with delays and back-off (`client-go/util/workqueue`).
//!
//! Invariant: a key is ready, or being worked on, or both marked to come back; never with two workers. The queue is bounded
//! by the number of keys, which is the number of objects.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::metrics::QueueMetrics;

/// Upstream's per-item back-off: 5 ms, doubled at each failure…
const BACKOFF_BASE: Duration = Duration::from_millis(5);
/// …up to 1000 s.
const BACKOFF_LIMIT: Duration = Duration::from_secs(1000);

/// A shared queue. Cheap to clone.
pub struct Queue<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
    metrics: QueueMetrics,
}

struct State<T> {
    ready: VecDeque<(T, Instant)>,
    /// Keys that are in `ready` or must come back after their worker is done.
    dirty: HashSet<T>,
    processing: HashMap<T, Instant>,
    delayed: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed_keys: HashMap<u64, T>,
    /// The earliest time that a key waits for, so that a key has one entry that counts.
    delayed_until: HashMap<T, (Instant, u64)>,
    serial: u64,
    failures: HashMap<T, u32>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("ready", &self.shared.state.lock().ready.len()).finish()
    }
}

impl<T: Clone + Eq + Hash> Queue<T> {
    /// An empty queue that measures itself under `metrics`.
    #[must_use]
    pub fn new(metrics: QueueMetrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    ready: VecDeque::new(),
                    dirty: HashSet::new(),
                    processing: HashMap::new(),
                    delayed: BinaryHeap::new(),
                    delayed_keys: HashMap::new(),
                    delayed_until: HashMap::new(),
                    serial: 0,
                    failures: HashMap::new(),
                }),
                changed: Notify::new(),
                metrics,
            }),
        }
    }

    /// Adds a key now. A key that is ready already isn't added again; one that is being worked on comes back after.
    pub fn add(&self, key: T) {
        let added = self.shared.state.lock().add(key, Instant::now(), &self.shared.metrics);
        if added {
            self.shared.changed.notify_one();
        }
    }

    /// Adds a key after a time. Of several times for one key the earliest counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            self.add(key);
            return;
        }
        let at = Instant::now() + delay;
        {
            let mut state = self.shared.state.lock();
            if state.delayed_until.get(&key).is_some_and(|(earlier, _)| *earlier <= at) {
                return;
            }
            state.serial += 1;
            let serial = state.serial;
            if let Some((_, replaced)) = state.delayed_until.insert(key.clone(), (at, serial)) {
                state.delayed_keys.remove(&replaced);
            }
            state.delayed_keys.insert(serial, key);
            state.delayed.push(Reverse((at, serial)));
        }
        self.shared.changed.notify_one();
    }

    /// Adds a key after its back-off, and lengthens that.
    pub fn add_rate_limited(&self, key: T) {
        self.shared.metrics.retry();
        let failures = {
            let mut state = self.shared.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let before = *failures;
            *failures = failures.saturating_add(1);
            before
        };
        self.add_after(key, backoff(failures));
    }

    /// Ends a key's back-off: its work succeeded.
    pub fn forget(&self, key: &T) {
        self.shared.state.lock().failures.remove(key);
    }

    /// How often the key failed since it was last forgotten.
    #[must_use]
    pub fn failures(&self, key: &T) -> u32 {
        self.shared.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key, when there is one. The caller must call [`Queue::done`] with it.
    pub async fn next(&self) -> T {
        loop {
            let wake = {
                let mut state = self.shared.state.lock();
                let now = Instant::now();
                state.promote(now, &self.shared.metrics);
                if let Some(key) = state.take(now, &self.shared.metrics) {
                    if !state.ready.is_empty() {
                        self.shared.changed.notify_one();
                    }
                    return key;
                }
                state.delayed.peek().map(|Reverse((at, _))| *at)
            };
            match wake {
                Some(at) => tokio::select! {
                    () = self.shared.changed.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.shared.changed.notified().await,
            }
        }
    }

    /// The worker is done with the key.
    pub fn done(&self, key: &T) {
        let again = {
            let mut state = self.shared.state.lock();
            let now = Instant::now();
            if let Some(since) = state.processing.remove(key) {
                self.shared.metrics.worked(now - since);
            }
            if state.dirty.contains(key) {
                state.ready.push_back((key.clone(), now));
                self.shared.metrics.depth(state.ready.len());
                true
            } else {
                false
            }
        };
        if again {
            self.shared.changed.notify_one();
        }
    }

    /// How many keys are ready.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    /// Whether no key is ready, being worked on, or delayed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let state = self.shared.state.lock();
        state.ready.is_empty() && state.processing.is_empty() && state.delayed_until.is_empty()
    }

    /// Whether no key is ready.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    fn add(&mut self, key: T, now: Instant, metrics: &QueueMetrics) -> bool {
        if !self.dirty.insert(key.clone()) {
            return false;
        }
        metrics.added();
        if self.processing.contains_key(&key) {
            return false;
        }
        self.ready.push_back((key, now));
        metrics.depth(self.ready.len());
        true
    }

    fn take(&mut self, now: Instant, metrics: &QueueMetrics) -> Option<T> {
        let (key, since) = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone(), now);
        metrics.depth(self.ready.len());
        metrics.waited(now - since);
        Some(key)
    }

    fn promote(&mut self, now: Instant, metrics: &QueueMetrics) {
        while let Some(Reverse((at, serial))) = self.delayed.peek().copied() {
            if at > now {
                return;
            }
            self.delayed.pop();
            let Some(key) = self.delayed_keys.remove(&serial) else { continue };
            self.delayed_until.remove(&key);
            self.add(key, now, metrics);
        }
    }
}

fn backoff(failures: u32) -> Duration {
    2u32.checked_pow(failures)
        .and_then(|factor| BACKOFF_BASE.checked_mul(factor))
        .map_or(BACKOFF_LIMIT, |delay| delay.min(BACKOFF_LIMIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue<&'static str> {
        Queue::new(super::super::Metrics::default().queue("test"))
    }

    #[tokio::test]
    async fn a_key_added_twice_comes_once() {
        let queue = queue();
        queue.add("a");
        queue.add("a");
        assert_eq!((queue.next().await, queue.len()), ("a", 0));
    }

    #[tokio::test]
    async fn a_key_added_while_it_is_worked_on_comes_back_when_that_is_done() {
        let queue = queue();
        queue.add("a");
        let key = queue.next().await;
        queue.add("a");
        assert_eq!(queue.len(), 0);
        queue.done(&key);
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_delays_the_earlier_counts_and_the_key_comes_once() {
        let queue = queue();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(60));
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(30));
        let key = queue.next().await;
        assert_eq!(start.elapsed().as_secs(), 5);
        queue.done(&key);
        assert!(queue.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_double_the_delay_until_forgotten() {
        let queue = queue();
        for expected in [5u128, 10, 20] {
            let start = Instant::now();
            queue.add_rate_limited("a");
            let key = queue.next().await;
            assert_eq!(start.elapsed().as_millis(), expected);
            queue.done(&key);
        }
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
        assert_eq!(backoff(40), BACKOFF_LIMIT);
    }

    #[tokio::test]
    async fn each_of_many_workers_gets_a_key() {
        let queue = queue();
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.next().await })
            })
            .collect();
        for key in ["a", "b", "c"] {
            queue.add(key);
        }
        let mut keys = Vec::new();
        for worker in workers {
            keys.push(worker.await.expect("worker"));
        }
        keys.sort_unstable();
        assert_eq!(keys, ["a", "b", "c"]);
    }
}
