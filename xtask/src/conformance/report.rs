//! The report for programs: `report.json`, and the same as JUnit. Pure but for writing the files.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::causes::Group;
use super::journal::{Journal, Record, Run};
use super::output::Outcome;
use super::{runner, summary};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    #[serde(flatten)]
    run: &'a Run,
    complete: bool,
    passed: usize,
    of: usize,
    differing: Vec<&'a str>,
    results: Vec<Line<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    #[serde(flatten)]
    record: &'a Record,
    area: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    /// What it came to on upstream's own cluster, on the same kind of machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<Outcome>,
    /// Its log and its cluster's state.
    #[serde(skip_serializing_if = "Option::is_none")]
    folder: Option<PathBuf>,
}

/// Writes both forms into a folder, and returns their paths.
///
/// # Errors
/// When they can't be written.
pub(crate) fn write(
    folder: &Path,
    name: &str,
    journal: &Journal,
    groups: &[Group<'_>],
    upstream: &[Record],
) -> Result<[PathBuf; 2]> {
    let verdicts = summary::verdicts(&journal.records);
    let (_, all) = summary::by_area(&verdicts);
    let cause = |record: &Record| {
        groups
            .iter()
            .find(|group| group.records.iter().any(|one| one.case == record.case))
            .map(|group| group.cause.as_str())
    };
    let there = summary::verdicts(upstream);
    let results = verdicts
        .iter()
        .map(|record| Line {
            record,
            area: record.case.area(),
            cause: cause(record),
            upstream: there.iter().find(|one| one.case == record.case).map(|one| one.outcome),
            folder: (record.outcome != Outcome::Passed).then(|| journal.path("").join(runner::failed_folder(record))),
        })
        .collect();
    let report = Report {
        run: &journal.run,
        complete: journal.is_complete(),
        passed: all.passed,
        of: journal.run.cases.len(),
        differing: summary::differing(&journal.records).into_iter().map(super::cases::Case::name).collect(),
        results,
    };
    let paths = [folder.join(format!("{name}.json")), folder.join(format!("{name}.xml"))];
    let texts = [serde_json::to_string_pretty(&report)?, junit(&verdicts)];
    for (path, text) in paths.iter().zip(texts) {
        fs::write(path, text).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(paths)
}

/// JUnit's form, as CI systems read it.
fn junit(verdicts: &[&Record]) -> String {
    let (_, all) = summary::by_area(verdicts);
    let seconds: f64 = verdicts.iter().map(|record| record.seconds).sum();
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    // Writing to a string can't fail.
    let _ = writeln!(
        text,
        "<testsuite name=\"conformance\" tests=\"{}\" failures=\"{}\" skipped=\"{}\" time=\"{seconds:.1}\">",
        all.total(),
        all.failed + all.timed_out,
        all.skipped
    );
    for record in verdicts {
        let message = escaped(record.message.as_deref().unwrap_or_default());
        let inner = match record.outcome {
            Outcome::Passed => String::new(),
            Outcome::Failed => format!("<failure type=\"failed\">{message}</failure>"),
            Outcome::TimedOut => format!("<failure type=\"timed out\">{message}</failure>"),
            Outcome::Skipped => format!("<skipped message=\"{message}\"/>"),
        };
        let _ = writeln!(
            text,
            "  <testcase classname=\"{}\" name=\"{}\" time=\"{:.1}\">{inner}</testcase>",
            escaped(record.case.area()),
            escaped(record.case.name()),
            record.seconds
        );
    }
    text.push_str("</testsuite>\n");
    text
}

/// Text as XML allows it: control characters are none of it.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(letter),
            letter if letter.is_control() => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::causes::Causes;
    use super::super::journal::tests::{record, run};
    use super::*;

    #[test]
    fn junit_escapes_what_xml_does_not_allow() {
        let failed = record("[sig-a] x \"<y>\"", 1, Outcome::Failed, "a & b\u{1b}[0m");
        let text = junit(&[&failed]);
        assert!(text.contains("name=\"[sig-a] x &quot;&lt;y&gt;&quot;\""), "{text}");
        assert!(text.contains("<failure type=\"failed\">a &amp; b\u{fffd}[0m</failure>"), "{text}");
        assert!(text.contains("tests=\"1\" failures=\"1\""), "{text}");
    }

    #[test]
    fn the_report_says_what_upstream_does_with_a_case_that_fails() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut journal = Journal::begin(&folder.path().join("run"), run(&["[sig-a] x"], 1)).expect("begun");
        journal.append(record("[sig-a] x", 1, Outcome::Failed, "no 7")).expect("kept");
        let upstream = [record("[sig-a] x", 1, Outcome::Failed, "no 8")];
        let verdicts = summary::verdicts(&journal.records);
        let groups = Causes::default().group(&verdicts);
        let [path, _] = write(folder.path(), "report", &journal, &groups, &upstream).expect("written");
        let report: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(path).expect("read")).expect("a report");
        assert_eq!(report["complete"], true);
        assert_eq!(report["results"][0]["upstream"], "failed");
        assert_eq!(report["results"][0]["cause"], "no …");
        assert_eq!(report["contentType"], "application/json");
    }
}
