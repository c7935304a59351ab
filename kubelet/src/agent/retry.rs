//! When a step that failed is tried again: later with every failure in a row, and at once when the plan wants something else.
//!
//! Invariant: pure. The time of the next try is kept here and asked for in each round, so that nothing that wakes a worker in
//! between makes it try sooner.

use std::mem::{Discriminant, discriminant};

use jiff::{SignedDuration, Timestamp};

use crate::pod::plan::Step;

/// The first and the longest wait.
const WAIT: (SignedDuration, SignedDuration) = (SignedDuration::from_millis(500), SignedDuration::from_secs(60));

/// The kind of step that failed last, and when it is tried again.
#[derive(Debug, Default)]
pub(super) struct Retry {
    last: Option<Failed>,
}

#[derive(Debug)]
struct Failed {
    kind: Discriminant<Step>,
    times: u32,
    again_at: Timestamp,
}

impl Retry {
    /// When `step` may be tried again, if that is not now.
    pub(super) fn waits_until(&self, step: &Step, now: Timestamp) -> Option<Timestamp> {
        let last = self.last.as_ref().filter(|last| last.kind == discriminant(step))?;
        (last.again_at > now).then_some(last.again_at)
    }

    /// `step` failed at `now`.
    pub(super) fn failed(&mut self, step: &Step, now: Timestamp) {
        let kind = discriminant(step);
        let times = self.last.as_ref().filter(|last| last.kind == kind).map_or(0, |last| last.times);
        let wait = (WAIT.0 * (1 << times.min(7))).min(WAIT.1);
        let again_at = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        self.last = Some(Failed { kind, times: times.saturating_add(1), again_at });
    }

    /// `step` succeeded.
    pub(super) fn succeeded(&mut self, step: &Step) {
        self.last.take_if(|last| last.kind == discriminant(step));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).expect("a time")
    }

    #[test]
    fn each_failure_in_a_row_waits_twice_as_long_up_to_a_minute() {
        let mut retry = Retry::default();
        let waits = [(); 9].map(|()| {
            retry.failed(&Step::CreateSandbox, at(0));
            retry.waits_until(&Step::CreateSandbox, at(0)).expect("a wait").as_millisecond()
        });
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(retry.waits_until(&Step::CreateSandbox, at(60_000)), None);
    }

    #[test]
    fn a_pod_that_can_not_be_made_is_removed_without_waiting() {
        let mut retry = Retry::default();
        retry.failed(&Step::CreateSandbox, at(0));
        assert_eq!(retry.waits_until(&Step::DeleteFromApi, at(0)), None);
    }

    #[test]
    fn a_success_forgets_the_failures() {
        let mut retry = Retry::default();
        retry.failed(&Step::CreateSandbox, at(0));
        retry.failed(&Step::CreateSandbox, at(0));
        retry.succeeded(&Step::RemoveSandbox);
        assert_eq!(retry.waits_until(&Step::CreateSandbox, at(0)), Some(at(1000)));
        retry.succeeded(&Step::CreateSandbox);
        retry.failed(&Step::CreateSandbox, at(0));
        assert_eq!(retry.waits_until(&Step::CreateSandbox, at(0)), Some(at(500)));
    }
}
