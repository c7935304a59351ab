//! The workers that drain a queue: take a key, reconcile, and say what comes next.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Queue, is_conflict, is_not_found};

/// What a reconcile came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to do until a watched object changes.
    Done,
    /// Look again after this time.
    After(Duration),
    /// Look again after the key's back-off, without it being an error.
    Retry,
}

impl Outcome {
    /// The earlier of the two.
    #[must_use]
    pub fn or_after(self, delay: Option<Duration>) -> Self {
        match (self, delay) {
            (Self::Done, Some(delay)) => Self::After(delay),
            (Self::After(own), Some(delay)) => Self::After(own.min(delay)),
            (other, _) => other,
        }
    }
}

/// Why a reconcile failed. The key comes back after its back-off.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server refused a request or could not be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The object says what can't be done; the text is for the log.
    #[error("{0}")]
    Invalid(String),
}

/// One controller's work on a key.
pub trait Reconcile: Send + Sync + 'static {
    /// What it is keyed by.
    type Key: Clone + Eq + std::hash::Hash + Send + Sync + std::fmt::Display + 'static;

    /// Brings the object of that key closer to what it should be.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Outcome, ReconcileError>> + Send;
}

/// Runs `concurrency` workers in `tasks` until `shutdown`. A worker ends the key it has before it stops.
pub fn run_workers<R: Reconcile>(
    tasks: &mut JoinSet<()>,
    name: &'static str,
    reconciler: &Arc<R>,
    queue: &Queue<R::Key>,
    concurrency: usize,
    shutdown: &CancellationToken,
) {
    for _ in 0..concurrency.max(1) {
        let (reconciler, queue, shutdown) = (Arc::clone(reconciler), queue.clone(), shutdown.clone());
        tasks.spawn(async move {
            loop {
                let key = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    key = queue.next() => key,
                };
                work(name, &*reconciler, &queue, &key).await;
                queue.done(&key);
            }
        });
    }
}

async fn work<R: Reconcile>(name: &'static str, reconciler: &R, queue: &Queue<R::Key>, key: &R::Key) {
    match reconciler.reconcile(key).await {
        Ok(Outcome::Done) => queue.forget(key),
        Ok(Outcome::After(delay)) => {
            queue.forget(key);
            queue.add_after(key.clone(), delay);
        }
        Ok(Outcome::Retry) => queue.add_rate_limited(key.clone()),
        Err(error) => {
            let expected = matches!(&error, ReconcileError::Api(error) if is_conflict(error) || is_not_found(error));
            if expected {
                debug!(controller = name, key = %key, %error, "will try again");
            } else {
                warn!(controller = name, key = %key, %error, failures = queue.failures(key), "will try again");
            }
            queue.add_rate_limited(key.clone());
        }
    }
}
