//! `docs/conformance.md`, of a run over all cases. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::causes::Group;
use super::journal::{Journal, Record};
use super::output::Outcome;
use super::summary;

/// A message in the document has so many letters at most; the report has more.
const LONGEST: usize = 200;

/// The whole document.
pub(crate) fn text(journal: &Journal, groups: &[Group<'_>], upstream: &[Record]) -> String {
    let run = &journal.run;
    let verdicts = summary::verdicts(&journal.records);
    let (_, all) = summary::by_area(&verdicts);
    let mut text = format!(
        "# Conformance\n\n\
         Written by `cargo xtask conformance` from a run over all conformance cases of Kubernetes' own end-to-end suite; not edited by hand.\n\n\
         **{} of {} cases pass.**\n\n\
         | | |\n| --- | --- |\n\
         | version | {} |\n\
         | suite | Kubernetes {} |\n\
         | began | {} |\n\
         | cluster | two nodes on one machine, `cargo xtask deploy` |\n\
         | the suite's clients ask for | {} |\n\
         | at a time | {}, those that disturb others alone |\n\
         | a case may take | {} s |\n\n\
         ## By area\n\n{}",
        all.passed,
        all.total(),
        run.version,
        run.suite,
        run.began,
        run.content_type,
        run.parallel,
        run.limit,
        summary::table(&verdicts),
    );
    if run.rounds > 1 {
        differing(&mut text, journal);
    }
    if !groups.is_empty() {
        text.push_str("\n## What does not pass, by cause\n");
    }
    let there: BTreeMap<_, _> =
        summary::verdicts(upstream).into_iter().map(|record| (&record.case, record.outcome)).collect();
    for group in groups {
        // Writing to a string can't fail.
        let _ = writeln!(text, "\n### {} ({})\n", inline(&group.cause), group.records.len());
        for record in &group.records {
            let _ = write!(text, "- {}", inline(record.case.name()));
            if record.outcome == Outcome::TimedOut {
                text.push_str(" *(timed out)*");
            }
            if there.get(&record.case).is_some_and(|outcome| *outcome != Outcome::Passed) {
                text.push_str(" *(nor on upstream's own cluster here)*");
            }
            let message = record.message.as_deref().map(first_line).unwrap_or_default();
            if !message.is_empty() {
                let _ = write!(text, "<br>{}", inline(&message));
            }
            text.push('\n');
        }
    }
    text
}

fn differing(text: &mut String, journal: &Journal) {
    let differing = summary::differing(&journal.records);
    // Writing to a string can't fail.
    let _ = writeln!(
        text,
        "\nEach ran {} times; {} came to different ends, and count as not passed.\n",
        journal.run.rounds,
        differing.len()
    );
    for case in differing {
        let _ = writeln!(text, "- {}", inline(case.name()));
    }
}

fn first_line(message: &str) -> String {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(LONGEST).collect()
}

/// Text that Markdown shows as it is.
fn inline(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => out.push_str("&lt;"),
            '*' | '_' | '`' | '[' | ']' | '\\' | '|' => out.extend(['\\', letter]),
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
    fn the_document_has_figures_by_area_and_failures_by_cause() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = ["[sig-a] x", "[sig-b] y", "[sig-b] z"];
        let mut journal = Journal::begin(folder.path(), run(&names, 1)).expect("begun");
        journal.append(record(names[0], 1, Outcome::Passed, "")).expect("kept");
        journal.append(record(names[1], 1, Outcome::Failed, "no <kind> 7\nmore")).expect("kept");
        journal.append(record(names[2], 1, Outcome::TimedOut, "it did not end")).expect("kept");
        let verdicts = summary::verdicts(&journal.records);
        let upstream = [record(names[2], 1, Outcome::Failed, "nor here")];
        let text = text(&journal, &Causes::default().group(&verdicts), &upstream);
        assert!(text.contains("**1 of 3 cases pass.**"), "{text}");
        assert!(text.contains("### no &lt;kind> … (1)\n\n- \\[sig-b\\] y<br>no &lt;kind> 7\n"), "{text}");
        assert!(
            text.contains("- \\[sig-b\\] z *(timed out)* *(nor on upstream's own cluster here)*<br>it did not end\n"),
            "{text}"
        );
    }
}
