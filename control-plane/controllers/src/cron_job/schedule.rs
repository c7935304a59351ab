//! Cron schedules as upstream reads them: the standard five fields, and `@hourly`, `@every 5m` and their like.
//!
//! Follows `robfig/cron/v3` (`ParseStandard`, `SpecSchedule.Next`), which upstream uses: day of month and day of week must
//! both match if either is `*`, else one of them; a time that a clock change skips is skipped, one that it repeats is repeated.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// Set in a field that was `*` or `?`.
const STAR: u64 = 1 << 63;
/// How far ahead a time is looked for, as upstream.
const YEARS_AHEAD: i16 = 5;

const MINUTES: Bounds = Bounds { first: 0, last: 59, names: &[] };
const HOURS: Bounds = Bounds { first: 0, last: 23, names: &[] };
const DAYS: Bounds = Bounds { first: 1, last: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    first: 1,
    last: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { first: 0, last: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// When something is to happen, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    /// After each such time, in whole seconds.
    Every(SignedDuration),
    /// At the times that match all fields; a bit a value.
    Fields {
        /// 0 to 59.
        minutes: u64,
        /// 0 to 23.
        hours: u64,
        /// 1 to 31.
        days: u64,
        /// 1 to 12.
        months: u64,
        /// 0 (Sunday) to 6.
        weekdays: u64,
    },
}

/// Why a schedule can't be read. The texts are those of upstream's library.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScheduleError {
    /// It is empty.
    #[error("empty spec string")]
    Empty,
    /// A time zone belongs into `timeZone`.
    #[error("TZ or CRON_TZ in a schedule is not supported, use .spec.timeZone")]
    TimeZone,
    /// An unknown `@` form.
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    /// What follows `@every` is no duration.
    #[error("failed to parse duration {0}")]
    Duration(String),
    /// Not five fields.
    #[error("expected exactly 5 fields, found {0}: [{1}]")]
    Fields(usize, String),
    /// A field can't be read.
    #[error("{0}: {1}")]
    Field(&'static str, String),
}

struct Bounds {
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

impl Schedule {
    /// Reads a schedule.
    pub(super) fn parse(text: &str) -> Result<Self, ScheduleError> {
        if text.is_empty() {
            return Err(ScheduleError::Empty);
        }
        if text.contains("TZ=") {
            return Err(ScheduleError::TimeZone);
        }
        if text.starts_with('@') {
            return Self::descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(ScheduleError::Fields(fields.len(), fields.join(" ")));
        };
        Ok(Self::Fields {
            minutes: field(minutes, &MINUTES)?,
            hours: field(hours, &HOURS)?,
            days: field(days, &DAYS)?,
            months: field(months, &MONTHS)?,
            weekdays: field(weekdays, &WEEKDAYS)?,
        })
    }

    fn descriptor(text: &str) -> Result<Self, ScheduleError> {
        if let Some(duration) = text.strip_prefix("@every ") {
            let seconds = go_duration(duration).ok_or_else(|| ScheduleError::Duration(text.to_owned()))?;
            // Whole seconds, one at least.
            return Ok(Self::Every(SignedDuration::from_secs(seconds.max(1))));
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ => return Err(ScheduleError::Descriptor(text.to_owned())),
        };
        Self::parse(fields)
    }

    /// The first time after `after`; `None` if there is none in the next five years, as of the 31st of February.
    pub(super) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(delay) => Timestamp::from_second(after.as_second()).ok()?.checked_add(*delay).ok(),
            Self::Fields { minutes, hours, months, .. } => {
                let minute = after.as_second().div_euclid(60) + 1;
                let start = Timestamp::from_second(minute * 60).ok()?;
                let mut date = start.to_zoned(zone.clone()).date();
                let end = date.year().checked_add(YEARS_AHEAD)?;
                while date.year() <= end {
                    if has(*months, date.month()) && self.has_day(date) {
                        let (first, next) = (start_of(date, zone)?, start_of(date.tomorrow().ok()?, zone)?);
                        if let Some(time) = time_within(*minutes, *hours, first.max(start), next, zone) {
                            return Some(time);
                        }
                    }
                    date = date.tomorrow().ok()?;
                }
                None
            }
        }
    }

    fn has_day(&self, date: Date) -> bool {
        let Self::Fields { days, weekdays, .. } = self else { return false };
        let day = has(*days, date.day());
        let weekday = has(*weekdays, date.weekday().to_sunday_zero_offset());
        if (days | weekdays) & STAR != 0 { day && weekday } else { day || weekday }
    }
}

/// The first minute of a day's part whose hour and minute match.
fn time_within(minutes: u64, hours: u64, first: Timestamp, end: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let mut time = first;
    while time < end {
        let clock = time.to_zoned(zone.clone()).time();
        if !has(hours, clock.hour()) {
            time = time.checked_add((60 - i64::from(clock.minute())).minutes()).ok()?;
        } else if has(minutes, clock.minute()) {
            return Some(time);
        } else {
            time = time.checked_add(1.minute()).ok()?;
        }
    }
    None
}

fn start_of(date: Date, zone: &TimeZone) -> Option<Timestamp> {
    Some(date.to_zoned(zone.clone()).ok()?.start_of_day().ok()?.timestamp())
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).ok().and_then(|value| 1u64.checked_shl(value)).is_some_and(|bit| bits & bit != 0)
}

fn field(text: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    text.split(',').filter(|range| !range.is_empty()).try_fold(0, |bits, range| Ok(bits | self::range(range, bounds)?))
}

fn range(text: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    let fail = |cause| ScheduleError::Field(cause, text.to_owned());
    let (limits, step) = match text.split_once('/') {
        Some((_, step)) if step.contains('/') => return Err(fail("too many slashes")),
        Some((limits, step)) => (limits, Some(step.parse::<u32>().map_err(|_| fail("failed to parse int from"))?)),
        None => (text, None),
    };
    let value = |text: &str| {
        let lower = text.to_lowercase();
        let named = bounds.names.iter().position(|name| *name == lower);
        let named = named.and_then(|position| u32::try_from(position).ok()).map(|position| position + bounds.first);
        named.or_else(|| text.parse().ok()).ok_or_else(|| fail("failed to parse int from"))
    };
    let (first, last, star) = match limits.split_once('-') {
        _ if limits == "*" || limits == "?" => (bounds.first, bounds.last, STAR),
        Some((_, last)) if last.contains('-') => return Err(fail("too many hyphens")),
        Some((first, last)) => (value(first)?, value(last)?, 0),
        None => {
            let first = value(limits)?;
            (first, if step.is_some() { bounds.last } else { first }, 0)
        }
    };
    let step = step.unwrap_or(1);
    if first < bounds.first {
        return Err(fail("beginning of range below minimum"));
    }
    if last > bounds.last {
        return Err(fail("end of range above maximum"));
    }
    if first > last {
        return Err(fail("beginning of range beyond end of range"));
    }
    if step == 0 {
        return Err(fail("step of range should be a positive number"));
    }
    // With a step, a star is a range like another.
    let star = if step > 1 { 0 } else { star };
    let values = (first..=last).step_by(usize::try_from(step).unwrap_or(usize::MAX));
    Ok(values.fold(star, |bits, value| bits | 1 << value))
}

/// The whole seconds of a duration in Go's form (`1h30m`, `1.5s`).
fn go_duration(text: &str) -> Option<i64> {
    let (mut nanoseconds, mut rest) = (0i128, text.strip_prefix('+').unwrap_or(text));
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit_end =
            rest[digits..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |end| digits + end);
        let unit: i128 = match &rest[digits..unit_end] {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" => 1000,
            "ns" => 1,
            _ => return None,
        };
        let (whole, fraction) = rest[..digits].split_once('.').unwrap_or((&rest[..digits], ""));
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let scale = 10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let fraction: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        nanoseconds =
            nanoseconds.checked_add(whole.checked_mul(unit)?)?.checked_add(fraction.checked_mul(unit)? / scale)?;
        rest = &rest[unit_end..];
    }
    i64::try_from(nanoseconds / 1_000_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone: &str) -> String {
        let zone = TimeZone::get(zone).expect("a zone");
        let schedule = Schedule::parse(schedule).expect("a schedule");
        let next = schedule.next(after.parse().expect("a time"), &zone);
        next.map_or_else(|| "never".to_owned(), |time| time.to_zoned(zone).strftime("%F %R").to_string())
    }

    #[test]
    fn the_next_time_is_the_first_that_matches_all_fields() {
        let table = [
            ("*/5 * * * *", "2026-03-01T10:02:30Z", "2026-03-01 10:05"),
            ("0 0 1 * *", "2026-03-01T00:00:00Z", "2026-04-01 00:00"),
            ("30 6-16/4 * * 1-5", "2026-03-06T18:00:00Z", "2026-03-09 06:30"),
            ("0 12 13 * fri", "2026-03-01T00:00:00Z", "2026-03-06 12:00"),
            ("0 0 29 feb *", "2026-03-01T00:00:00Z", "2028-02-29 00:00"),
            ("59 23 31 2 *", "2026-03-01T00:00:00Z", "never"),
            ("@hourly", "2026-03-01T10:02:30Z", "2026-03-01 11:00"),
            ("@every 1h30m", "2026-03-01T10:02:30Z", "2026-03-01 11:32"),
        ];
        for (schedule, after, expected) in table {
            assert_eq!(next(schedule, after, "UTC"), expected, "{schedule}");
        }
    }

    #[test]
    fn times_are_those_of_the_zone_and_one_that_the_clock_skips_is_skipped() {
        assert_eq!(next("0 9 * * *", "2026-07-01T08:00:00Z", "Europe/Berlin"), "2026-07-02 09:00");
        assert_eq!(next("30 2 * * *", "2026-03-28T12:00:00Z", "Europe/Berlin"), "2026-03-30 02:30");
    }

    #[test]
    fn what_upstream_refuses_is_refused() {
        for text in
            ["", "* * * *", "60 * * * *", "* * 0 * *", "5-1 * * * *", "*/0 * * * *", "@never", "@every x", "a * * * *"]
        {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
        assert_eq!(Schedule::parse("TZ=UTC 0 0 * * *"), Err(ScheduleError::TimeZone));
    }
}
