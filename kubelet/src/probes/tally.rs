//! When results in a row make a probe's verdict turn. Pure.

use k8s_openapi::api::core::v1::Probe;

/// Counts results of one sort in a row.
#[derive(Debug, Default)]
pub(super) struct Tally {
    last: Option<bool>,
    run: u32,
}

impl Tally {
    /// The verdict that follows from this result and those before it; none while too few say the same.
    pub(super) fn count(&mut self, probe: &Probe, success: bool) -> Option<bool> {
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold =
            if success { at_least_one(probe.success_threshold, 1) } else { at_least_one(probe.failure_threshold, 3) };
        (self.run >= threshold).then_some(success)
    }
}

/// A number of a probe, with the API's default where it is not set, and never under 1.
pub(super) fn at_least_one(value: Option<i32>, default: u32) -> u32 {
    value.map_or(default, |value| u32::try_from(value).unwrap_or(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(probe: &Probe, results: &[bool]) -> Vec<Option<bool>> {
        let mut tally = Tally::default();
        results.iter().map(|result| tally.count(probe, *result)).collect()
    }

    #[test]
    fn a_verdict_needs_its_threshold_in_a_row() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
        let results = [false, false, true, false, false, false, true, true];
        let expected = [None, None, None, None, None, Some(false), None, Some(true)];
        assert_eq!(verdicts(&probe, &results), expected);
    }

    #[test]
    fn thresholds_default_to_one_success_and_three_failures() {
        assert_eq!(verdicts(&Probe::default(), &[true, false, false, false]), [Some(true), None, None, Some(false)]);
    }
}
