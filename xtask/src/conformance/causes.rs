//! Failures grouped by their cause: one that `tests/conformance/causes.toml` knows, or a message that is the same but for names and numbers. Pure.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use regex::Regex;
use serde::Deserialize;

use super::journal::Record;
use super::output::Outcome;

/// A cause that is known by hand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// What is missing, as people read it.
    name: String,
    /// A pattern of cases' names; any where there is none.
    #[serde(default, deserialize_with = "pattern")]
    case: Option<Regex>,
    /// A pattern of messages; any where there is none.
    #[serde(default, deserialize_with = "pattern")]
    message: Option<Regex>,
}

/// The known causes; the first that fits a failure is its cause.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Causes {
    #[serde(default)]
    cause: Vec<Known>,
}

/// Failures that have one cause.
#[derive(Debug, PartialEq)]
pub(crate) struct Group<'a> {
    pub(crate) cause: String,
    pub(crate) records: Vec<&'a Record>,
}

impl Causes {
    /// Reads the table.
    ///
    /// # Errors
    /// When it is damaged, or a pattern is.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).context("tests/conformance/causes.toml is damaged")
    }

    /// Groups what did not pass, the largest group first.
    pub(crate) fn group<'a>(&self, verdicts: &[&'a Record]) -> Vec<Group<'a>> {
        let mut groups: BTreeMap<String, Vec<&'a Record>> = BTreeMap::new();
        for record in verdicts.iter().filter(|record| record.outcome != Outcome::Passed) {
            groups.entry(self.of(record)).or_default().push(record);
        }
        let mut groups: Vec<Group<'a>> = groups.into_iter().map(|(cause, records)| Group { cause, records }).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.records.len()));
        groups
    }

    fn of(&self, record: &Record) -> String {
        let message = record.message.as_deref().unwrap_or_default();
        let fits = |pattern: &Option<Regex>, text: &str| pattern.as_ref().is_none_or(|pattern| pattern.is_match(text));
        let known =
            self.cause.iter().find(|known| fits(&known.case, record.case.name()) && fits(&known.message, message));
        known.map_or_else(|| normalised(message), |known| known.name.clone())
    }
}

/// A message's first line without what is different each time: names with a random end, addresses, times, numbers.
pub(crate) fn normalised(message: &str) -> String {
    static NAMES: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"0x[0-9a-f]+|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22,}|\b[a-z][a-z0-9.]*(?:-[a-z0-9.]+)*-(?:[a-z]*[0-9][a-z0-9]*)\b|\b[0-9]+(?:\.[0-9]+)*\b")
            .expect("the pattern is a constant, and a test uses it")
    });
    let line = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no message");
    let line = NAMES.replace_all(line, "…");
    let mut end = 160.min(line.len());
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line[..end].trim_end_matches([':', ' ']).to_owned()
}

fn pattern<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Regex>, D::Error> {
    let text = String::deserialize(from)?;
    Regex::new(&text).map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::super::journal::tests::record;
    use super::*;

    #[test]
    fn messages_that_differ_in_names_and_numbers_are_one() {
        let one = normalised("failed to create job in namespace job-1752: got 3 of 10.0.0.1\nmore");
        let other = normalised("failed to create job in namespace job-9: got 12 of 10.0.7.1");
        assert_eq!(one, other);
        assert_eq!(one, "failed to create job in namespace …: got … of …");
        assert_eq!(normalised(""), "no message");
    }

    #[test]
    fn the_first_known_cause_that_fits_is_taken_and_other_failures_go_by_message() {
        let causes = Causes::parse(
            "[[cause]]\nname = \"Jobs\"\ncase = 'Job'\nmessage = 'could not find'\n[[cause]]\nname = \"any kind\"\nmessage = 'could not find'\n",
        )
        .expect("a table");
        let records = [
            record("[sig-apps] Job a", 1, Outcome::Failed, "could not find it"),
            record("[sig-apps] Job b", 1, Outcome::TimedOut, "could not find it"),
            record("[sig-apps] Set", 1, Outcome::Failed, "could not find it"),
            record("[sig-apps] Job c", 1, Outcome::Failed, "other 7"),
            record("[sig-apps] Job d", 1, Outcome::Passed, ""),
        ];
        let verdicts: Vec<&Record> = records.iter().collect();
        let groups: Vec<(String, usize)> =
            causes.group(&verdicts).into_iter().map(|group| (group.cause, group.records.len())).collect();
        assert_eq!(groups, [("Jobs".to_owned(), 2), ("any kind".to_owned(), 1), ("other …".to_owned(), 1)]);
    }

    #[test]
    fn the_committed_table_is_well_formed() {
        Causes::parse(include_str!("../../../tests/conformance/causes.toml")).expect("a table");
    }

    #[test]
    fn a_pattern_that_is_none_is_refused() {
        assert!(Causes::parse("[[cause]]\nname = \"x\"\ncase = '('\n").is_err());
    }
}
