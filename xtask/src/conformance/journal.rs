//! What a run is about and what came of it so far, on disk as it comes: a line a case, so that a run that was stopped loses nothing but
//! the cases that were running.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::cases::Case;
use super::output::Outcome;

/// A case that ran.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) case: Case,
    /// Which repetition, from 1.
    pub(crate) round: u32,
    pub(crate) outcome: Outcome,
    /// From the start of its process to its end.
    pub(crate) seconds: f64,
    /// Why it did not pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

/// What a run is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Run {
    /// Whose cluster.
    pub(crate) cluster: String,
    /// The version that its API server tells.
    pub(crate) version: String,
    /// The version of the suite.
    pub(crate) suite: String,
    /// When it began, in UTC.
    pub(crate) began: String,
    /// What the suite's clients ask the API server for.
    pub(crate) content_type: String,
    /// So many cases at the same time.
    pub(crate) parallel: usize,
    /// The seconds that a case may take.
    pub(crate) limit: u64,
    /// How often each runs.
    pub(crate) rounds: u32,
    /// Whether these are all cases.
    pub(crate) whole: bool,
    /// In the order in which they run.
    pub(crate) cases: Vec<Case>,
}

/// A run's folder.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    pub(crate) run: Run,
    pub(crate) records: Vec<Record>,
}

const RUN: &str = "run.json";
const RECORDS: &str = "results.jsonl";

impl Journal {
    /// Begins a run; what the folder has of an earlier one goes.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn begin(folder: &Path, run: Run) -> Result<Self> {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("can't empty {}", folder.display()));
            }
            _ => {}
        }
        fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
        let path = folder.join(RUN);
        fs::write(&path, serde_json::to_string_pretty(&run)?)
            .with_context(|| format!("can't write {}", path.display()))?;
        Ok(Self { folder: folder.to_owned(), run, records: Vec::new() })
    }

    /// The run in a folder; none where there is none.
    ///
    /// # Errors
    /// When it can't be read.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(RUN);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
        };
        let run: Run = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
        let lines = fs::read_to_string(folder.join(RECORDS)).unwrap_or_default();
        Ok(Some(Self { folder: folder.to_owned(), run, records: records(&lines) }))
    }

    /// The cases that are still to run in a round.
    pub(crate) fn remaining(&self, round: u32) -> Vec<Case> {
        let ran = |case: &&Case| self.records.iter().any(|record| record.round == round && record.case == **case);
        self.run.cases.iter().filter(|case| !ran(case)).cloned().collect()
    }

    /// Keeps a result.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn append(&mut self, record: Record) -> Result<()> {
        let path = self.folder.join(RECORDS);
        let mut file: File = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("can't write {}", path.display()))?;
        let line = format!("{}\n", serde_json::to_string(&record)?);
        file.write_all(line.as_bytes()).with_context(|| format!("can't write {}", path.display()))?;
        self.records.push(record);
        Ok(())
    }

    /// Whether every case ran in every round.
    pub(crate) fn is_complete(&self) -> bool {
        (1..=self.run.rounds).all(|round| self.remaining(round).is_empty())
    }

    /// A folder or file of this run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// A process that was killed may leave half a line, which is no result.
fn records(lines: &str) -> Vec<Record> {
    lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(case: &str, round: u32, outcome: Outcome, message: &str) -> Record {
        let message = (!message.is_empty()).then(|| message.to_owned());
        Record { case: case.into(), round, outcome, seconds: 1.5, message }
    }

    pub(crate) fn run(cases: &[&str], rounds: u32) -> Run {
        Run {
            cluster: "skep".to_owned(),
            version: "v1.37.2+skep".to_owned(),
            suite: "v1.37.2".to_owned(),
            began: "2026-11-24T12:00:00Z".to_owned(),
            content_type: "application/json".to_owned(),
            parallel: 2,
            limit: 60,
            rounds,
            whole: true,
            cases: cases.iter().map(|case| Case::from(*case)).collect(),
        }
    }

    #[test]
    fn a_run_that_was_stopped_goes_on_with_what_has_no_result() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut journal = Journal::begin(folder.path(), run(&["a", "b"], 2)).expect("begun");
        journal.append(record("a", 1, Outcome::Passed, "")).expect("kept");
        let mut file = OpenOptions::new().append(true).open(folder.path().join(RECORDS)).expect("the file");
        file.write_all(b"{\"case\":\"b\",\"rou").expect("half a line");

        let again = Journal::read(folder.path()).expect("read").expect("a run");
        assert_eq!(again.records, journal.records);
        assert_eq!(again.remaining(1), [Case::from("b")]);
        assert_eq!(again.remaining(2).len(), 2);
        assert!(!again.is_complete());
    }

    #[test]
    fn a_new_run_forgets_the_last_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut first = Journal::begin(folder.path(), run(&["a"], 1)).expect("begun");
        first.append(record("a", 1, Outcome::Failed, "no")).expect("kept");
        assert!(first.is_complete());
        let second = Journal::begin(folder.path(), run(&["a"], 1)).expect("begun");
        assert!(!second.is_complete());
        assert!(Journal::read(folder.path()).expect("read").expect("a run").records.is_empty());
    }

    #[test]
    fn an_empty_folder_has_no_run() {
        assert!(Journal::read(tempfile::tempdir().expect("a folder").path()).expect("read").is_none());
    }
}
