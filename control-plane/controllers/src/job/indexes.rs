//! Sets of completion indexes in the form of the status: `1,3-5,7`.
//!
//! Follows `indexed_job_utils.go` (`orderedIntervals`).

use std::fmt;

/// Indexes as ordered ranges, both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads the text form; what can't be read or is not below `completions` is left out.
    pub(super) fn parse(text: &str, completions: i32) -> Self {
        let mut indexes = Self::default();
        for range in text.split(',').filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else { continue };
            if first >= completions {
                break;
            }
            if first >= 0 && first <= last {
                indexes.push(first, last.min(completions - 1));
            }
        }
        indexes
    }

    /// Itself and these indexes, in any order.
    pub(super) fn with(&self, indexes: impl IntoIterator<Item = i32>) -> Self {
        self.merge(&Self(indexes.into_iter().map(|index| (index, index)).collect()))
    }

    /// Both.
    pub(super) fn merge(&self, other: &Self) -> Self {
        let mut ranges: Vec<(i32, i32)> = self.0.iter().chain(&other.0).copied().collect();
        ranges.sort_unstable();
        let mut merged = Self::default();
        for (first, last) in ranges {
            merged.push(first, last);
        }
        merged
    }

    /// How many there are.
    pub(super) fn len(&self) -> i32 {
        self.0.iter().fold(0i32, |sum, (first, last)| sum.saturating_add(last - first + 1))
    }

    pub(super) fn contains(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many are in both.
    pub(super) fn overlap(&self, other: &Self) -> i32 {
        let pairs = self.0.iter().flat_map(|own| other.0.iter().map(move |other| (own, other)));
        pairs.map(|(own, other)| (own.1.min(other.1) - own.0.max(other.0) + 1).max(0)).sum()
    }

    /// The first `count` indexes below `completions` that are not in it.
    pub(super) fn missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut missing = Vec::new();
        let mut candidate = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            while candidate < first.min(completions) && missing.len() < count {
                missing.push(candidate);
                candidate += 1;
            }
            candidate = candidate.max(last.saturating_add(1));
        }
        missing
    }

    /// Adds a range that begins at or after the last one's beginning.
    fn push(&mut self, first: i32, last: i32) {
        match self.0.last_mut() {
            Some(end) if first <= end.1.saturating_add(1) => end.1 = end.1.max(last),
            _ => self.0.push((first, last)),
        }
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.0.iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}
