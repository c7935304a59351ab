//! The cases of the suite, and which of them a run is about. Pure.
//!
//! The list is the suite's own (`e2e.test --list-conformance-tests`), so that it can't differ from what runs.

use anyhow::{Context, Result, bail};
use regex::Regex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A conformance case, by the name that the suite gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Case(String);

impl Case {
    /// The whole name, tags included.
    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// The special interest group that owns it, such as `sig-node`: the first tag.
    pub(crate) fn area(&self) -> &str {
        self.0.strip_prefix('[').and_then(|rest| rest.split_once(']')).map_or("other", |(area, _)| area)
    }

    /// Whether it disturbs cases that run at the same time (upstream's tags `[Serial]` and `[Disruptive]`).
    pub(crate) fn alone(&self) -> bool {
        ["[Serial]", "[Disruptive]"].iter().any(|tag| self.0.contains(tag))
    }

    /// A name for files: what can be read of it, and enough of a hash to be its own.
    pub(crate) fn slug(&self) -> String {
        let mut words = String::new();
        for letter in self.0.chars().filter(|letter| !"[]".contains(*letter)) {
            match letter {
                'a'..='z' | 'A'..='Z' | '0'..='9' => words.push(letter.to_ascii_lowercase()),
                _ if words.ends_with('-') => {}
                _ => words.push('-'),
            }
        }
        words.truncate(80);
        let hash = Sha256::digest(self.0.as_bytes());
        format!("{}-{:02x}{:02x}{:02x}{:02x}", words.trim_matches('-'), hash[0], hash[1], hash[2], hash[3])
    }

    /// Ginkgo's focus for this case alone. Ginkgo puts the suite's description before the name.
    pub(crate) fn focus(&self) -> String {
        format!(" {}$", regex::escape(&self.0))
    }
}

#[cfg(test)]
impl From<&str> for Case {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

/// Reads the suite's list.
///
/// # Errors
/// When it is another form than expected, or has no case.
pub(crate) fn parse(list: &str) -> Result<Vec<Case>> {
    #[derive(Deserialize)]
    struct Entry {
        codename: String,
    }
    let entries: Vec<Entry> = serde_yaml::from_str(list).context("the suite's list of cases has another form")?;
    if entries.is_empty() {
        bail!("the suite lists no case");
    }
    let mut cases: Vec<Case> = entries.into_iter().map(|entry| Case(entry.codename)).collect();
    cases.sort_unstable();
    cases.dedup();
    Ok(cases)
}

/// Which cases are asked for.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// Names that match; all where there is none.
    pub(crate) focus: Option<Regex>,
    /// Names that are left out.
    pub(crate) skip: Option<Regex>,
    /// Areas; all where there is none.
    pub(crate) areas: Vec<String>,
    /// These names only.
    pub(crate) only: Option<Vec<String>>,
}

impl Selection {
    /// Whether nothing is left out.
    pub(crate) fn is_whole(&self) -> bool {
        self.focus.is_none() && self.skip.is_none() && self.areas.is_empty() && self.only.is_none()
    }

    /// The cases that are asked for, in an order that spreads what is alike: neighbours of one file want the same resources
    /// at the same time. It is the same order every time.
    ///
    /// # Errors
    /// When there is none, or a name is no case's.
    pub(crate) fn of(&self, all: &[Case]) -> Result<Vec<Case>> {
        let unknown = |name: &&String| !all.iter().any(|case| case.name() == name.as_str());
        if let Some(name) = self.only.iter().flatten().find(unknown) {
            bail!("the suite has no conformance case {name:?}");
        }
        let wanted = |case: &&Case| {
            self.focus.as_ref().is_none_or(|focus| focus.is_match(case.name()))
                && !self.skip.as_ref().is_some_and(|skip| skip.is_match(case.name()))
                && (self.areas.is_empty() || self.areas.iter().any(|area| area == case.area()))
                && self.only.as_ref().is_none_or(|names| names.iter().any(|name| name == case.name()))
        };
        let mut cases: Vec<Case> = all.iter().filter(wanted).cloned().collect();
        if cases.is_empty() {
            bail!("no conformance case is asked for");
        }
        cases.sort_by_key(|case| (case.alone(), Sha256::digest(case.name().as_bytes())));
        Ok(cases)
    }
}

/// The names in a file: a line each; what is empty or begins with `#` is none.
pub(crate) fn names(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "- testname: A\n  codename: '[sig-node] Pods should run\n    well [Conformance]'\n  file: a.go\n\
                        - testname: B\n  codename: '[sig-apps] Daemon set [Serial] should run [Conformance]'\n  file: b.go\n";

    #[test]
    fn the_suites_list_is_read_with_folded_lines() {
        let cases = parse(LIST).expect("cases");
        let names: Vec<&str> = cases.iter().map(Case::name).collect();
        assert_eq!(
            names,
            [
                "[sig-apps] Daemon set [Serial] should run [Conformance]",
                "[sig-node] Pods should run well [Conformance]"
            ]
        );
        assert_eq!((cases[0].area(), cases[0].alone()), ("sig-apps", true));
        assert_eq!((cases[1].area(), cases[1].alone()), ("sig-node", false));
        assert!(parse("[]").is_err());
    }

    #[test]
    fn cases_that_disturb_others_come_last() {
        let cases = Selection::default().of(&parse(LIST).expect("cases")).expect("some");
        assert_eq!(cases.iter().map(Case::alone).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_selection_is_by_pattern_and_by_area() {
        let all = parse(LIST).expect("cases");
        let by_area = Selection { areas: vec!["sig-apps".to_owned()], ..Selection::default() };
        assert_eq!(by_area.of(&all).expect("one").len(), 1);
        let none = Selection { skip: Some(Regex::new("should").expect("a pattern")), ..Selection::default() };
        assert!(none.of(&all).is_err());
        assert!(!none.is_whole());
    }

    #[test]
    fn a_name_that_is_no_case_is_refused_rather_than_left_out() {
        let only = Selection { only: Some(vec!["gone".to_owned()]), ..Selection::default() };
        assert!(only.of(&parse(LIST).expect("cases")).expect_err("refused").to_string().contains("gone"));
    }

    #[test]
    fn a_focus_matches_its_case_alone() {
        let case = Case::from("[sig-node] Pods (a|b) should run [Conformance]");
        let focus = Regex::new(&case.focus()).expect("a pattern");
        assert!(focus.is_match(&format!("Kubernetes e2e suite {}", case.name())));
        assert!(!focus.is_match(&format!("Kubernetes e2e suite {} [NodeConformance]", case.name())));
    }

    #[test]
    fn slugs_are_names_of_files_and_differ() {
        let (one, other) = (Case::from("[sig-node] A/b: c"), Case::from("[sig-node] A b c"));
        assert!(one.slug().starts_with("sig-node-a-b-c-"), "{}", one.slug());
        assert_ne!(one.slug(), other.slug());
    }

    #[test]
    fn a_list_of_names_has_comments() {
        assert_eq!(names("# some\n\na b\n  c\n"), ["a b", "c"]);
    }
}
