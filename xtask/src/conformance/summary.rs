//! Counting: by area, the slowest, and what differed between rounds. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::cases::Case;
use super::journal::Record;
use super::output::Outcome;

/// How many cases came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) timed_out: usize,
    pub(crate) skipped: usize,
}

impl Tally {
    /// All of them.
    pub(crate) fn total(self) -> usize {
        self.passed + self.failed + self.timed_out + self.skipped
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::TimedOut => self.timed_out += 1,
            Outcome::Skipped => self.skipped += 1,
        }
    }
}

/// One record a case: the first that did not pass, or the last. A case passes when it does in every round.
pub(crate) fn verdicts(records: &[Record]) -> Vec<&Record> {
    let mut of: BTreeMap<&Case, &Record> = BTreeMap::new();
    for record in records {
        let kept = of.entry(&record.case).or_insert(record);
        if kept.outcome == Outcome::Passed {
            *kept = record;
        }
    }
    of.into_values().collect()
}

/// The count of each area, and of all.
pub(crate) fn by_area(verdicts: &[&Record]) -> (BTreeMap<String, Tally>, Tally) {
    let (mut areas, mut all) = (BTreeMap::<String, Tally>::new(), Tally::default());
    for record in verdicts {
        areas.entry(record.case.area().to_owned()).or_default().count(record.outcome);
        all.count(record.outcome);
    }
    (areas, all)
}

/// The cases that took longest.
pub(crate) fn slowest<'a>(verdicts: &[&'a Record], count: usize) -> Vec<&'a Record> {
    let mut sorted = verdicts.to_vec();
    sorted.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    sorted.truncate(count);
    sorted
}

/// The cases that came to different ends in different rounds.
pub(crate) fn differing(records: &[Record]) -> Vec<&Case> {
    let mut first: BTreeMap<&Case, Outcome> = BTreeMap::new();
    let mut differing: Vec<&Case> = records
        .iter()
        .filter(|record| *first.entry(&record.case).or_insert(record.outcome) != record.outcome)
        .map(|record| &record.case)
        .collect();
    differing.sort_unstable();
    differing.dedup();
    differing
}

/// The table at the end of a run, in Markdown, which reads well on a terminal.
pub(crate) fn table(verdicts: &[&Record]) -> String {
    let (areas, all) = by_area(verdicts);
    let mut text = format!("| {:<21} | passed | failed | timed out | skipped | of |\n", "area");
    text.push_str("| --------------------- | -----: | -----: | --------: | ------: | --: |\n");
    for (area, tally) in areas.iter().map(|(area, tally)| (area.as_str(), tally)).chain([("all", &all)]) {
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "| {area:<21} | {:>6} | {:>6} | {:>9} | {:>7} | {:>3} |",
            tally.passed,
            tally.failed,
            tally.timed_out,
            tally.skipped,
            tally.total()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::journal::tests::record;
    use super::*;

    #[test]
    fn a_case_passes_when_it_does_in_every_round() {
        let records = [
            record("[sig-a] x", 1, Outcome::Passed, ""),
            record("[sig-a] y", 1, Outcome::Passed, ""),
            record("[sig-a] x", 2, Outcome::Failed, "no"),
            record("[sig-a] y", 2, Outcome::Passed, ""),
        ];
        let verdicts = verdicts(&records);
        assert_eq!(by_area(&verdicts).1, Tally { passed: 1, failed: 1, ..Tally::default() });
        assert_eq!(differing(&records), [&Case::from("[sig-a] x")]);
    }

    #[test]
    fn the_table_has_a_line_an_area_and_one_for_all() {
        let records =
            [record("[sig-a] x", 1, Outcome::Passed, ""), record("[sig-b] y", 1, Outcome::TimedOut, "it did not end")];
        let table = table(&verdicts(&records));
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[2], "| sig-a                 |      1 |      0 |         0 |       0 |   1 |");
        assert_eq!(lines[4], "| all                   |      1 |      0 |         1 |       0 |   2 |");
    }

    #[test]
    fn the_slowest_come_first() {
        let (mut slow, fast) = (record("s", 1, Outcome::Passed, ""), record("f", 1, Outcome::Passed, ""));
        slow.seconds = 9.0;
        let both = [&fast, &slow];
        assert_eq!(slowest(&both, 1), [&slow]);
    }
}
