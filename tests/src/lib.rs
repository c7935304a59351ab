//! What the whole-system tests share: a real control plane as a child process, a whole cluster, real `kubectl`s, and waiting for conditions.
//!
//! Invariant: everything started here ends with the value that stands for it, whatever the test's outcome.

pub mod cluster;
mod control_plane;
mod kubectl;
pub mod machine;

pub use control_plane::ControlPlane;
pub use kubectl::{Following, Kubectl, Output, kubectls};

use std::future::Future;
use std::time::{Duration, Instant};

/// How long a test waits for something before it says that it does not happen. Never a measure of speed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until the answer is `Some`, or panics with `what` when patience is over.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
