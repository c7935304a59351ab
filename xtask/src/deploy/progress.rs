//! The steps of a deployment as people see them: a line that moves on a terminal, a line a step elsewhere.

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// So many steps, one after the other.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// # Errors
    /// Never: the template is well-formed.
    pub(crate) fn new(steps: u64) -> Result<Self> {
        let style = ProgressStyle::with_template("{spinner} [{pos}/{len}] {msg} ({elapsed})")?;
        Ok(Self { bar: ProgressBar::new(steps).with_style(style) })
    }

    /// Runs a step; its error says which step failed.
    pub(crate) fn step<T>(&self, what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        self.bar.set_message(what.to_owned());
        self.bar.enable_steady_tick(std::time::Duration::from_millis(100));
        if self.bar.is_hidden() {
            eprintln!("[{}/{}] {what}", self.bar.position() + 1, self.bar.length().unwrap_or_default());
        }
        let outcome = run().with_context(|| format!("failed at: {what}"));
        match &outcome {
            Ok(_) => self.bar.inc(1),
            Err(_) => self.bar.abandon(),
        }
        outcome
    }

    /// Runs a step that shows its own output.
    pub(crate) fn loud_step<T>(&self, what: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        self.step(what, || self.bar.suspend(run))
    }

    /// Takes the line away.
    pub(crate) fn done(self) {
        self.bar.finish_and_clear();
    }
}
