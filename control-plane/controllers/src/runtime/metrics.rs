//! The work queues' metrics, under the names and labels that upstream's have (`workqueue_*{name}`).

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Name {
    name: String,
}

/// The metrics of all controllers. Cheap to clone; register once.
#[derive(Clone, Debug)]
pub struct Metrics {
    depth: Family<Name, Gauge>,
    adds: Family<Name, Counter>,
    retries: Family<Name, Counter>,
    queue_duration: Family<Name, Histogram>,
    work_duration: Family<Name, Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        // Upstream: ten buckets from 10 ns, each ten times the last.
        let histogram: fn() -> Histogram =
            || Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(1e-8, 10.0, 10));
        Self {
            depth: Family::default(),
            adds: Family::default(),
            retries: Family::default(),
            queue_duration: Family::new_with_constructor(histogram),
            work_duration: Family::new_with_constructor(histogram),
        }
    }
}

impl Metrics {
    /// Puts the metrics into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("workqueue_depth", "Current depth of workqueue", self.depth.clone());
        registry.register("workqueue_adds", "Total number of adds handled by workqueue", self.adds.clone());
        registry.register("workqueue_retries", "Total number of retries handled by workqueue", self.retries.clone());
        registry.register(
            "workqueue_queue_duration_seconds",
            "How long in seconds an item stays in workqueue before being requested",
            self.queue_duration.clone(),
        );
        registry.register(
            "workqueue_work_duration_seconds",
            "How long in seconds processing an item from workqueue takes",
            self.work_duration.clone(),
        );
    }

    /// The metrics of one queue.
    #[must_use]
    pub fn queue(&self, name: &str) -> QueueMetrics {
        let name = Name { name: name.to_owned() };
        QueueMetrics {
            depth: self.depth.get_or_create(&name).clone(),
            adds: self.adds.get_or_create(&name).clone(),
            retries: self.retries.get_or_create(&name).clone(),
            queue_duration: self.queue_duration.get_or_create(&name).clone(),
            work_duration: self.work_duration.get_or_create(&name).clone(),
        }
    }
}

/// The metrics of one queue.
#[derive(Clone, Debug)]
pub struct QueueMetrics {
    depth: Gauge,
    adds: Counter,
    retries: Counter,
    queue_duration: Histogram,
    work_duration: Histogram,
}

impl QueueMetrics {
    pub(super) fn depth(&self, ready: usize) {
        self.depth.set(i64::try_from(ready).unwrap_or(i64::MAX));
    }

    pub(super) fn added(&self) {
        self.adds.inc();
    }

    pub(super) fn retry(&self) {
        self.retries.inc();
    }

    pub(super) fn waited(&self, duration: Duration) {
        self.queue_duration.observe(duration.as_secs_f64());
    }

    pub(super) fn worked(&self, duration: Duration) {
        self.work_duration.observe(duration.as_secs_f64());
    }
}
