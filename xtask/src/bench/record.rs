//! What a bench measured, from the two forms in which benches say it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

/// What was measured of one side at one size.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Record {
    /// What is measured; a criterion group.
    pub(crate) what: String,
    /// Who did it, or which variant; a criterion function.
    pub(crate) side: String,
    /// How large the case was; none where there is only one.
    pub(crate) size: Option<u64>,
    /// How many a second, where that was measured.
    pub(crate) per_second: Option<f64>,
    /// The median time of one, in nanoseconds.
    pub(crate) p50_ns: f64,
    /// 99 of 100 were within this, in nanoseconds; criterion does not say.
    pub(crate) p99_ns: Option<f64>,
}

/// The part that is read of criterion's `benchmark.json`.
#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
}

/// The part that is read of criterion's `estimates.json`.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// The records that a binary printed, a line each.
pub(crate) fn of_lines(text: &str) -> Result<Vec<Record>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("this line is no record: {line}"))).collect()
}

/// The results below a criterion folder, in the order in which they were measured.
pub(crate) fn of_criterion(home: &Path) -> Result<Vec<Record>> {
    let mut found = Vec::new();
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() && path.ends_with("new") {
                found.push((fs::metadata(path.join("benchmark.json"))?.modified()?, path));
            } else if path.is_dir() {
                folders.push(path);
            }
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, folder)| result(&folder)).collect()
}

fn result(folder: &Path) -> Result<Record> {
    let read = |path: PathBuf| fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()));
    from_json(&read(folder.join("benchmark.json"))?, &read(folder.join("estimates.json"))?)
        .with_context(|| format!("criterion's files in {} are others than expected", folder.display()))
}

/// The two files of one criterion result.
fn from_json(benchmark: &str, estimates: &str) -> serde_json::Result<Record> {
    let benchmark: Benchmark = serde_json::from_str(benchmark)?;
    let estimates: Estimates = serde_json::from_str(estimates)?;
    let size = benchmark.value_str.as_deref().and_then(|value| value.parse().ok());
    // A value that is no number is a variant.
    let variant = if size.is_none() { benchmark.value_str } else { None };
    let side: Vec<String> = benchmark.function_id.into_iter().chain(variant).collect();
    Ok(Record {
        what: benchmark.group_id,
        side: side.join(" "),
        size,
        per_second: None,
        p50_ns: estimates.median.point_estimate,
        p99_ns: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESTIMATES: &str =
        r#"{"mean": {"point_estimate": 9.0}, "median": {"confidence_interval": {}, "point_estimate": 330.5}}"#;

    #[test]
    fn a_line_is_a_record_and_other_text_is_an_error() {
        let line = r#"{"what":"w","side":"s","size":16,"per_second":2.0,"p50_ns":5.0,"p99_ns":null}"#;
        let records = of_lines(&format!("{line}\n\n{line}\n")).expect("records");
        assert_eq!((records.len(), records[0].size, records[0].p99_ns), (2, Some(16), None));
        let error = of_lines("starting").expect_err("no record");
        assert!(error.to_string().contains("starting"), "{error}");
    }

    #[test]
    fn criterions_median_is_taken_and_its_value_is_the_size() {
        let benchmark = r#"{"group_id":"placing a pod","function_id":"basic","value_str":"500","throughput":null}"#;
        let record = from_json(benchmark, ESTIMATES).expect("a record");
        assert_eq!((record.what.as_str(), record.side.as_str(), record.size), ("placing a pod", "basic", Some(500)));
        assert!((record.p50_ns - 330.5).abs() < 1e-9);
    }

    #[test]
    fn a_value_that_is_no_number_is_part_of_the_name() {
        let benchmark = r#"{"group_id":"reads","function_id":"get","value_str":"old"}"#;
        let record = from_json(benchmark, ESTIMATES).expect("a record");
        assert_eq!((record.side.as_str(), record.size), ("get old", None));
    }

    #[test]
    fn results_are_found_below_a_folder_and_older_ones_are_not_taken() {
        let home = tempfile::tempdir().expect("a folder");
        for (folder, group) in [("a/1/new", "new one"), ("a/1/base", "older one")] {
            let folder = home.path().join(folder);
            fs::create_dir_all(&folder).expect("made");
            let benchmark = format!(r#"{{"group_id":"{group}","function_id":null,"value_str":"1"}}"#);
            fs::write(folder.join("benchmark.json"), benchmark).expect("written");
            fs::write(folder.join("estimates.json"), ESTIMATES).expect("written");
        }
        let records = of_criterion(home.path()).expect("read");
        assert_eq!(records.iter().map(|record| record.what.as_str()).collect::<Vec<_>>(), ["new one"]);
    }
}
