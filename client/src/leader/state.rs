//! The election's decisions, without I/O: from the Lease that was read and the clocks to what to write.
//!
//! Follows `client-go/tools/leaderelection/leaderelection.go`, `tryAcquireOrRenew` and `release`.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// What to do with the Lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// There is none: create this (name and namespace are the caller's to set).
    Create(Lease),
    /// It is ours, free or expired: write this; its resource version guards against others.
    Update(Lease),
    /// Another replica holds it.
    Wait,
}

/// A replica's view of the Lease.
#[derive(Clone, Debug)]
pub struct Candidate {
    identity: String,
    lease_duration: Duration,
    observed: Option<Lease>,
    observed_at: Option<Instant>,
}

impl Candidate {
    /// A replica that has seen nothing yet.
    #[must_use]
    pub fn new(identity: &str, lease_duration: Duration) -> Self {
        Self { identity: identity.to_owned(), lease_duration, observed: None, observed_at: None }
    }

    /// Who holds the Lease, as last seen; empty for nobody.
    #[must_use]
    pub fn holder(&self) -> &str {
        self.spec().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
    }

    /// Whether this replica held the Lease when last seen.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.holder() == self.identity
    }

    /// Takes note of the Lease as read or written at `at`. Its clock restarts only if the record changed.
    pub fn observe(&mut self, lease: Option<&Lease>, at: Instant) {
        let changed = self.observed.as_ref().map(|seen| &seen.spec) != lease.map(|lease| &lease.spec);
        if changed || self.observed_at.is_none() {
            self.observed_at = Some(at);
        }
        self.observed = lease.cloned();
    }

    /// What to do about the Lease just read; `at` is the own monotonic clock, `now` the time to write into it.
    pub fn step(&mut self, found: Option<Lease>, at: Instant, now: Timestamp) -> Step {
        self.observe(found.as_ref(), at);
        let Some(mut lease) = found else {
            return Step::Create(Lease { spec: Some(self.record(None, now)), ..Lease::default() });
        };
        let free = self.holder().is_empty();
        if !free && !self.holds() && !self.is_expired(at) {
            return Step::Wait;
        }
        let spec = lease.spec.take();
        lease.spec = Some(self.record(spec.as_ref(), now));
        Step::Update(lease)
    }

    /// The Lease given free, if this replica holds it: expires in a second, as upstream writes it.
    #[must_use]
    pub fn released(&self, now: Timestamp) -> Option<Lease> {
        if !self.holds() {
            return None;
        }
        let mut lease = self.observed.clone()?;
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(now));
        spec.acquire_time = Some(MicroTime(now));
        Some(lease)
    }

    fn is_expired(&self, at: Instant) -> bool {
        let seconds = self.spec().and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
        let duration = seconds.map_or(self.lease_duration, Duration::from_secs);
        self.observed_at.is_none_or(|seen| at.saturating_duration_since(seen) >= duration)
    }

    fn spec(&self) -> Option<&LeaseSpec> {
        self.observed.as_ref()?.spec.as_ref()
    }

    fn record(&self, previous: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
        let renewal = previous.is_some_and(|spec| spec.holder_identity.as_deref() == Some(self.identity.as_str()));
        let transitions = previous.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        let acquired = previous.and_then(|spec| spec.acquire_time.clone()).filter(|_| renewal);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.lease_duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: Some(acquired.unwrap_or(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if renewal || previous.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..previous.cloned().unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).expect("a time")
    }

    fn created(step: Step) -> Lease {
        match step {
            Step::Create(lease) | Step::Update(lease) => lease,
            Step::Wait => panic!("expected a write"),
        }
    }

    #[test]
    fn without_a_lease_it_is_created_for_this_replica() {
        let mut a = Candidate::new("a", DURATION);
        let lease = created(a.step(None, Instant::now(), at(0)));
        let spec = lease.spec.expect("a spec");
        assert_eq!(spec.holder_identity.as_deref(), Some("a"));
        assert_eq!((spec.lease_duration_seconds, spec.lease_transitions), (Some(15), Some(0)));
    }

    #[test]
    fn a_fresh_lease_of_another_is_waited_for_and_an_unchanged_one_taken_after_its_duration() {
        let start = Instant::now();
        let lease = created(Candidate::new("a", DURATION).step(None, start, at(0)));
        let mut b = Candidate::new("b", DURATION);
        assert_eq!(b.step(Some(lease.clone()), start, at(0)), Step::Wait);
        assert_eq!(b.step(Some(lease.clone()), start + Duration::from_secs(14), at(14)), Step::Wait);
        let taken = created(b.step(Some(lease), start + Duration::from_secs(15), at(15))).spec.expect("a spec");
        assert_eq!((taken.holder_identity.as_deref(), taken.lease_transitions), (Some("b"), Some(1)));
        assert_eq!(taken.acquire_time, Some(MicroTime(at(15))));
    }

    #[test]
    fn a_renewed_lease_restarts_the_clock_of_those_who_wait() {
        let start = Instant::now();
        let mut a = Candidate::new("a", DURATION);
        let first = created(a.step(None, start, at(0)));
        let second = created(a.step(Some(first.clone()), start + Duration::from_secs(10), at(10)));
        let mut b = Candidate::new("b", DURATION);
        assert_eq!(b.step(Some(first), start, at(0)), Step::Wait);
        assert_eq!(b.step(Some(second.clone()), start + Duration::from_secs(10), at(10)), Step::Wait);
        assert_eq!(b.step(Some(second), start + Duration::from_secs(24), at(24)), Step::Wait);
    }

    #[test]
    fn a_renewal_keeps_the_time_of_acquiring_and_the_count_of_transitions() {
        let start = Instant::now();
        let mut a = Candidate::new("a", DURATION);
        let first = created(a.step(None, start, at(0)));
        let renewed = created(a.step(Some(first), start, at(2))).spec.expect("a spec");
        assert_eq!(renewed.acquire_time, Some(MicroTime(at(0))));
        assert_eq!(renewed.renew_time, Some(MicroTime(at(2))));
        assert_eq!(renewed.lease_transitions, Some(0));
    }

    #[test]
    fn a_released_lease_is_taken_at_once_and_only_its_holder_can_release_it() {
        let start = Instant::now();
        let mut a = Candidate::new("a", DURATION);
        let lease = created(a.step(None, start, at(0)));
        assert!(a.released(at(1)).is_none(), "not yet written");
        a.observe(Some(&lease), start);
        let released = a.released(at(1)).expect("held");
        let mut b = Candidate::new("b", DURATION);
        assert!(matches!(b.step(Some(released), start, at(1)), Step::Update(_)));
        assert!(b.released(at(1)).is_none());
    }
}
