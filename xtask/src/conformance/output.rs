//! What Ginkgo's output says of the one case that a process ran. Pure.
//!
//! Its reports as JSON and JUnit list all of the suite's thousands of specs, those that did not run as well: a second of work
//! for each case. What is printed has all that is needed.

use serde::{Deserialize, Serialize};

/// What became of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    Passed,
    Failed,
    /// It was given up when its time was over.
    TimedOut,
    /// The suite says that it can't run here. It counts as one that does not pass.
    Skipped,
}

/// What the output says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    /// Why it did not pass.
    pub(crate) message: Option<String>,
}

/// A message has this many bytes at most; the log has all of it.
const LONGEST_MESSAGE: usize = 2000;

/// Reads the output of a process that ended by itself or was killed.
pub(crate) fn verdict(output: &str, killed: bool) -> Verdict {
    let of = |outcome, message: String| Verdict { outcome, message: Some(shortened(&message)) };
    if output.contains("SUCCESS! -- 1 Passed") {
        return Verdict { outcome: Outcome::Passed, message: None };
    }
    let failure = failure(output);
    if killed {
        return of(Outcome::TimedOut, failure.map_or("it did not end".to_owned(), |(_, message)| message));
    }
    if let Some((state, message)) = failure {
        return of(if state == "TIMEDOUT" { Outcome::TimedOut } else { Outcome::Failed }, message);
    }
    if output.contains("Suite Timeout Elapsed") {
        return of(Outcome::TimedOut, "it did not end".to_owned());
    }
    if let Some(reason) = skipped(output) {
        return of(Outcome::Skipped, reason);
    }
    if output.contains("\nRan 0 of ") {
        return of(Outcome::Failed, "the suite did not find the case".to_owned());
    }
    of(Outcome::Failed, crash(output))
}

/// The suite's identifier of this run, with which it labels its namespaces.
pub(crate) fn run_id(output: &str) -> Option<&str> {
    output.split_once("Starting e2e run \"")?.1.split_once('"').map(|(id, _)| id)
}

/// The first failure: its state and its message.
fn failure(output: &str) -> Option<(&str, String)> {
    const STATES: [&str; 5] = ["FAILED", "PANICKED", "TIMEDOUT", "INTERRUPTED", "ABORTED"];
    let mut lines = output.lines();
    let state = lines.by_ref().find_map(|line| {
        let rest = line.strip_prefix("• [").or_else(|| line.strip_prefix('['))?;
        // `[SynchronizedBeforeSuite] [FAILED] [1.2 seconds]` is a failure as well.
        let rest = rest.split_once("Suite] [").map_or(rest, |(_, rest)| rest);
        let state = rest.split_once("] [").map(|(state, _)| state)?;
        STATES.into_iter().find(|known| *known == state)
    })?;
    let mut message: Vec<&str> = Vec::new();
    for line in lines {
        let text = line.trim();
        let opened =
            STATES.into_iter().find_map(|state| text.strip_prefix('[')?.strip_prefix(state)?.strip_prefix(']'));
        match (opened, message.is_empty()) {
            (Some(first), true) if line.starts_with("  [") => message.push(first),
            (_, true) => {}
            (_, false) if line.starts_with("  In [") || line.starts_with("-----") => break,
            (_, false) => message.push(text),
        }
    }
    Some((state, message.join("\n").trim().to_owned()))
}

fn skipped(output: &str) -> Option<String> {
    let (_, rest) = output.split_once("S [SKIPPED]")?;
    let reason = rest.lines().find_map(|line| line.trim().strip_prefix("[SKIPPED]"))?;
    Some(reason.trim().to_owned())
}

/// What a process said last that ended without a summary.
fn crash(output: &str) -> String {
    let plain = without_escapes(output);
    match plain.find("\npanic: ") {
        Some(at) => plain[at..].trim().lines().take(2).map(str::trim).collect::<Vec<_>>().join(" "),
        None => format!("it ended without a summary: {}", plain.trim().lines().next_back().unwrap_or_default()),
    }
}

fn without_escapes(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once("\u{1b}[") {
        plain.push_str(before);
        rest = escape.split_once('m').map_or("", |(_, rest)| rest);
    }
    plain + rest
}

fn shortened(message: &str) -> String {
    let mut end = LONGEST_MESSAGE.min(message.len());
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "  I1124 e2e.go:109] Starting e2e run \"1c-2\" on Ginkgo node 1\n\
        [SynchronizedBeforeSuite] PASSED [0.037 seconds]\n\
        \x20 [FAILED] in [It] - /a/job.go:733 @ 11/24/26 16:12:21.29\n\
        • [FAILED] [0.154 seconds]\n[sig-apps] Job [It] runs [Conformance]\n/a/job.go:719\n\n\
        \x20 [FAILED] failed to create job in namespace: job-1: the server\n  is away\n\
        \x20 In [It] at: /a/job.go:733 @ 11/24/26 16:12:21.29\n------\n\
        Ran 1 of 3206 Specs in 0.771 seconds\nFAIL! -- 0 Passed | 1 Failed | 0 Pending | 3205 Skipped\n";

    #[test]
    fn a_case_that_passed_has_no_message() {
        let output =
            "• [2.1 seconds]\nRan 1 of 9 Specs in 2.5 seconds\nSUCCESS! -- 1 Passed | 0 Failed | 0 Pending\nPASS\n";
        assert_eq!(verdict(output, false), Verdict { outcome: Outcome::Passed, message: None });
    }

    #[test]
    fn the_message_of_a_failure_is_what_stands_between_its_mark_and_its_place() {
        let verdict = verdict(FAILED, false);
        assert_eq!(verdict.outcome, Outcome::Failed);
        assert_eq!(verdict.message.as_deref(), Some("failed to create job in namespace: job-1: the server\nis away"));
        assert_eq!(run_id(FAILED), Some("1c-2"));
    }

    #[test]
    fn a_suite_that_could_not_begin_is_a_failure_with_its_message() {
        let output = "[SynchronizedBeforeSuite] [FAILED] [1.0 seconds]\n[SynchronizedBeforeSuite] \n/a/e2e.go:69\n\n  [FAILED] no nodes\n  In [SynchronizedBeforeSuite] at: /a\n";
        let verdict = verdict(output, false);
        assert_eq!((verdict.outcome, verdict.message.as_deref()), (Outcome::Failed, Some("no nodes")));
    }

    #[test]
    fn a_case_that_hangs_is_timed_out_whether_ginkgo_or_we_gave_it_up() {
        let output = "• [TIMEDOUT] [60.0 seconds]\nname\n\n  [TIMEDOUT] A suite timeout occurred\n  In [It] at: /a\n";
        assert_eq!(verdict(output, false).outcome, Outcome::TimedOut);
        assert_eq!(verdict("Will run 1 of 9 specs\n", true).outcome, Outcome::TimedOut);
    }

    #[test]
    fn a_crash_says_its_panic_without_colours() {
        let output = "Will run 1\npanic: \u{1b}[1mYour Test Panicked\u{1b}[0m\n\tframework.Failf(\"no\")\n\tmore\n";
        let verdict = verdict(output, false);
        assert_eq!(verdict.outcome, Outcome::Failed);
        assert_eq!(verdict.message.as_deref(), Some("panic: Your Test Panicked framework.Failf(\"no\")"));
    }

    #[test]
    fn a_case_that_the_suite_leaves_out_says_why() {
        let output =
            "S [SKIPPED] [0.1 seconds]\nname\n\n  [SKIPPED] needs 3 nodes\n  In [It] at: /a\nRan 0 of 9 Specs\n";
        let verdict = verdict(output, false);
        assert_eq!((verdict.outcome, verdict.message.as_deref()), (Outcome::Skipped, Some("needs 3 nodes")));
    }

    #[test]
    fn a_name_that_the_suite_does_not_know_fails() {
        assert_eq!(
            verdict("x\nRan 0 of 9 Specs in 0.1 seconds\nSUCCESS! -- 0 Passed\n", false).outcome,
            Outcome::Failed
        );
    }
}
