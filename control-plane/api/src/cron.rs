//! Cron schedules, as CronJobs have them: what `github.com/robfig/cron/v3`'s `ParseStandard` takes, in its words where it does not.

use std::time::Duration;

/// When something is due. Times are of the schedule's time zone, which is none of its business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At the minutes that all five fields allow.
    Fields(Fields),
    /// Again and again after this long, in whole seconds, at least one.
    Every(Duration),
}

/// The minutes of a [`Schedule`]; bit `n` of a field stands for the value `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// 0–59
    pub minute: u64,
    /// 0–23
    pub hour: u64,
    /// 1–31
    pub day_of_month: u64,
    /// 1–12
    pub month: u64,
    /// 0–6 from Sunday
    pub day_of_week: u64,
    /// The day of the month was `*` or `?`.
    pub any_day_of_month: bool,
    /// The day of the week was `*` or `?`.
    pub any_day_of_week: bool,
}

impl Fields {
    /// Whether a day is one of the schedule's: both day fields must allow it, unless both are restricted; then one is enough.
    #[must_use]
    pub const fn allows_day(&self, day_of_month: u8, day_of_week: u8) -> bool {
        let of_month = self.day_of_month & (1 << day_of_month) != 0;
        let of_week = self.day_of_week & (1 << day_of_week) != 0;
        if self.any_day_of_month || self.any_day_of_week { of_month && of_week } else { of_month || of_week }
    }
}

/// What is wrong with a schedule, in the library's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

struct Bounds {
    min: u64,
    max: u64,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAYS_OF_MONTH: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const DAYS_OF_WEEK: Bounds = Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// Reads a schedule. A time zone before it (`TZ=…`) is skipped.
///
/// # Errors
/// The first mistake.
pub fn parse(text: &str) -> Result<Schedule, ParseError> {
    if text.is_empty() {
        return Err(ParseError("empty spec string".to_owned()));
    }
    let mut text = text;
    if let Some(zone) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
        let Some((_, rest)) = zone.split_once(' ') else {
            return Err(ParseError("runtime error: slice bounds out of range".to_owned()));
        };
        text = rest.trim();
    }
    if text.starts_with('@') {
        return descriptor(text);
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day_of_month, month, day_of_week] = fields[..] else {
        let found = fields.join(" ");
        return Err(ParseError(format!("expected exactly 5 fields, found {}: [{found}]", fields.len())));
    };
    let (minute, _) = field(minute, &MINUTES)?;
    let (hour, _) = field(hour, &HOURS)?;
    let (day_of_month, any_day_of_month) = field(day_of_month, &DAYS_OF_MONTH)?;
    let (month, _) = field(month, &MONTHS)?;
    let (day_of_week, any_day_of_week) = field(day_of_week, &DAYS_OF_WEEK)?;
    Ok(Schedule::Fields(Fields { minute, hour, day_of_month, month, day_of_week, any_day_of_month, any_day_of_week }))
}

fn descriptor(text: &str) -> Result<Schedule, ParseError> {
    match text {
        "@yearly" | "@annually" => parse("0 0 1 1 *"),
        "@monthly" => parse("0 0 1 * *"),
        "@weekly" => parse("0 0 * * 0"),
        "@daily" | "@midnight" => parse("0 0 * * *"),
        "@hourly" => parse("0 * * * *"),
        _ => match text.strip_prefix("@every ") {
            Some(duration) => match go_duration(duration) {
                // Rounded down to seconds, and one at least (`cron.Every`).
                Some(duration) => Ok(Schedule::Every(Duration::from_secs(duration.as_secs().max(1)))),
                None => {
                    Err(ParseError(format!("failed to parse duration {text}: time: invalid duration {duration:?}")))
                }
            },
            None => Err(ParseError(format!("unrecognized descriptor: {text}"))),
        },
    }
}

/// The values of a field, and whether it has a star without a step.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), ParseError> {
    let mut bits = 0;
    let mut star = false;
    for expression in text.split(',').filter(|expression| !expression.is_empty()) {
        let (more, any) = range(expression, bounds)?;
        bits |= more;
        star |= any;
    }
    Ok((bits, star))
}

fn range(expression: &str, bounds: &Bounds) -> Result<(u64, bool), ParseError> {
    let (ends, step) = match expression.split('/').collect::<Vec<_>>()[..] {
        [ends] => (ends, None),
        [ends, step] => (ends, Some(step)),
        _ => return Err(ParseError(format!("too many slashes: {expression}"))),
    };
    let parts: Vec<&str> = ends.split('-').collect();
    let mut star = matches!(parts[0], "*" | "?");
    let (start, mut end) = match parts[..] {
        _ if star => (bounds.min, bounds.max),
        [one] => {
            let value = value(one, bounds)?;
            (value, value)
        }
        [low, high] => (value(low, bounds)?, value(high, bounds)?),
        _ => return Err(ParseError(format!("too many hyphens: {expression}"))),
    };
    let step = match step {
        None => 1,
        Some(step) => {
            let step = number(step)?;
            if parts.len() == 1 {
                end = bounds.max;
            }
            star &= step <= 1;
            step
        }
    };
    let Bounds { min, max, .. } = bounds;
    if start < *min {
        return Err(ParseError(format!("beginning of range ({start}) below minimum ({min}): {expression}")));
    }
    if end > *max {
        return Err(ParseError(format!("end of range ({end}) above maximum ({max}): {expression}")));
    }
    if start > end {
        return Err(ParseError(format!("beginning of range ({start}) beyond end of range ({end}): {expression}")));
    }
    let Some(step) = usize::try_from(step).ok().filter(|step| *step > 0) else {
        return Err(ParseError(format!("step of range should be a positive number: {expression}")));
    };
    Ok(((start..=end).step_by(step).fold(0, |bits, value| bits | 1 << value), star))
}

fn value(text: &str, bounds: &Bounds) -> Result<u64, ParseError> {
    match bounds.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        Some(at) => Ok(bounds.min + at as u64),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u64, ParseError> {
    match text.parse::<i64>() {
        Ok(number) => {
            u64::try_from(number).map_err(|_| ParseError(format!("negative number ({number}) not allowed: {text}")))
        }
        Err(_) => {
            Err(ParseError(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")))
        }
    }
}

/// What Go's `time.ParseDuration` reads, as far as it is not negative: `1h30m`, `1.5s`.
fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut seconds = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units = [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, factor) = units.iter().find(|(unit, _)| *unit == &rest[..end])?;
        seconds += amount * factor;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_schedule_is_read() {
        for text in [
            "* * * * *",
            "*/5 0-6 1,15 jan-mar MON",
            "? ? ? ? ?",
            "@hourly",
            "@every 1h30m",
            "TZ=UTC 0 0 * * *",
            "0 0 31 2 *",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
        let Ok(Schedule::Fields(fields)) = parse("*/15 0 * * 1-5") else { panic!("not fields") };
        assert_eq!(fields.minute, 1 | 1 << 15 | 1 << 30 | 1 << 45);
        assert_eq!(fields.day_of_week, 0b11_1110);
        assert!(fields.any_day_of_month && !fields.any_day_of_week);
        assert_eq!(parse("@every 1h30m"), Ok(Schedule::Every(Duration::from_secs(5400))));
    }

    #[test]
    fn mistakes_are_told_in_the_librarys_words() {
        for (text, why) in [
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-3 * * * *", "beginning of range (5) beyond end of range (3): 5-3"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), why);
        }
    }

    #[test]
    fn one_restricted_day_field_is_enough_only_when_both_are() {
        let Ok(Schedule::Fields(both)) = parse("0 0 13 * 5") else { panic!("not fields") };
        assert!(both.allows_day(13, 1) && both.allows_day(1, 5) && !both.allows_day(1, 1));
        let Ok(Schedule::Fields(one)) = parse("0 0 13 * *") else { panic!("not fields") };
        assert!(one.allows_day(13, 1) && !one.allows_day(1, 5));
    }
}
