//! Times that were taken, what they come to, and the line of JSON that `cargo xtask bench` reads.

use std::time::Duration;

use serde::Serialize;

/// Times of single calls, and how long all of them took.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// From asking to the answer, in any order.
    pub latencies: Vec<Duration>,
    /// From the first call to the last answer; calls may have been concurrent.
    pub elapsed: Duration,
}

/// What a sample comes to.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Answers a second.
    pub per_second: f64,
    /// The median time from asking to the answer.
    pub p50: Duration,
    /// 99 of 100 answers came within this.
    pub p99: Duration,
}

/// What was measured of one side of a comparison. The reader of its JSON is `cargo xtask bench`.
#[derive(Clone, Debug, Serialize)]
pub struct Record<'a> {
    /// What is compared.
    pub what: &'a str,
    /// Who did it.
    pub side: &'a str,
    /// How large the case was, in what the comparison counts.
    pub size: u64,
    /// How many a second, where that was measured.
    pub per_second: Option<f64>,
    /// The median time of one, in nanoseconds.
    pub p50_ns: f64,
    /// 99 of 100 were within this, in nanoseconds.
    pub p99_ns: Option<f64>,
}

impl Sample {
    /// Takes in what another turn measured.
    pub fn extend(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.elapsed += other.elapsed;
    }

    /// The rate and the percentiles; all zero where nothing was taken.
    #[must_use]
    pub fn measured(&self) -> Measured {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default();
        let seconds = self.elapsed.as_secs_f64();
        let per_second = if seconds > 0.0 { sorted.len() as f64 / seconds } else { 0.0 };
        Measured { per_second, p50: at(50), p99: at(99) }
    }
}

impl Measured {
    /// The record of one side.
    #[must_use]
    pub fn record<'a>(&self, what: &'a str, side: &'a str, size: u64) -> Record<'a> {
        let nanoseconds = |time: Duration| time.as_secs_f64() * 1e9;
        Record {
            what,
            side,
            size,
            per_second: Some(self.per_second),
            p50_ns: nanoseconds(self.p50),
            p99_ns: Some(nanoseconds(self.p99)),
        }
    }
}

impl Record<'_> {
    /// Prints it as a line of JSON.
    ///
    /// # Errors
    /// Never: it is plain data.
    pub fn print(&self) -> serde_json::Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_turns_together() {
        let turn = |from: u64| Sample {
            latencies: (from..from + 50).rev().map(Duration::from_micros).collect(),
            elapsed: Duration::from_millis(250),
        };
        let mut sample = turn(50);
        sample.extend(turn(0));
        let measured = sample.measured();
        assert_eq!((measured.p50, measured.p99), (Duration::from_micros(50), Duration::from_micros(99)));
        assert!((measured.per_second - 200.0).abs() < 1e-9);
    }

    #[test]
    fn nothing_taken_is_nothing_measured() {
        let measured = Sample::default().measured();
        assert_eq!((measured.p50, measured.per_second), (Duration::ZERO, 0.0));
    }
}
