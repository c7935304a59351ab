//! One table of all records: what, how large, what Skep takes, what a rival takes, the ratio, and how both grow with the size.

use super::record::Record;

/// Something that rivals are measured at too.
struct Comparison {
    what: &'static str,
    /// What its size counts.
    unit: &'static str,
    /// The side that is Skep's; every other one is a rival's.
    ours: &'static str,
    /// What grows with the size.
    growth: Growth,
}

/// By what a cost is said to grow.
#[derive(Clone, Copy)]
enum Growth {
    /// The median time of one.
    Median,
    /// The time over all that are done at once: the size counts those who ask at the same time.
    Throughput,
}

const COMPARISONS: &[Comparison] = &[
    Comparison { what: "TCP connections through a Service", unit: "Services", ours: "eBPF", growth: Growth::Median },
    Comparison { what: "loading all Services", unit: "Services", ours: "eBPF", growth: Growth::Median },
    Comparison { what: "connect(2) of a UDP socket", unit: "Services", ours: "eBPF", growth: Growth::Median },
    Comparison {
        what: "durable creations of 1 KiB",
        unit: "writers",
        ours: "embedded store",
        growth: Growth::Throughput,
    },
];

/// What sizes count where nothing is compared: each side is a variant then.
const UNITS: &[(&str, &str)] = &[
    ("connect(2) by criterion", "Services"),
    ("a packet from outside (tcx ingress)", "Services"),
    ("durable commits of 1 KiB", "writers"),
    ("placing a pod", "nodes"),
    ("starting the store", "keys"),
];

/// The table's head.
const HEAD: [&str; 7] = ["what", "size", "Skep", "rival", "its figure", "ratio", "growth: Skep, rival"];

/// A line of the table, in the order of the head.
pub(crate) type Row = [String; 7];

/// The rows, in the order in which things were measured.
pub(crate) fn rows(records: &[Record]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut done: Vec<(&str, &str)> = Vec::new();
    for record in records {
        let compared = COMPARISONS.iter().find(|comparison| comparison.what == record.what);
        let series = (record.what.as_str(), record.side.as_str());
        if done.contains(&series) {
            continue;
        }
        done.push(series);
        match compared {
            Some(comparison) if record.side != comparison.ours => rows.extend(against(records, record, comparison)),
            // It is in its rivals' rows.
            Some(_) => {}
            None => rows.extend(alone(records, record)),
        }
    }
    rows
}

/// The table for a terminal.
pub(crate) fn text(rows: &[Row]) -> String {
    let head = HEAD.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
    let line = |row: &Row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    all().map(line).collect()
}

/// The table for the document.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let line = |row: &Row| format!("| {} |\n", row.join(" | "));
    let rule = format!("|{}\n", " --- |".repeat(HEAD.len()));
    line(&HEAD.map(str::to_owned)) + &rule + &rows.iter().map(line).collect::<String>()
}

/// A rival's rows: one for each size that both sides were measured at.
fn against(records: &[Record], rival: &Record, comparison: &Comparison) -> Vec<Row> {
    let Comparison { what, unit, ours, growth: by } = *comparison;
    let (ours, theirs) = (series(records, what, ours), series(records, what, &rival.side));
    let both = theirs.iter().filter_map(|their| Some((*ours.iter().find(|our| our.size == their.size)?, *their)));
    both.map(|(our, their)| {
        [
            what.to_owned(),
            size(their, unit),
            figure(our),
            rival.side.clone(),
            figure(their),
            ratio(our, their),
            [growth(&ours, our, by), growth(&theirs, their, by)].into_iter().flatten().collect::<Vec<_>>().join(", "),
        ]
    })
    .collect()
}

/// The rows of what has no rival.
fn alone(records: &[Record], first: &Record) -> Vec<Row> {
    let unit = UNITS.iter().find(|(what, _)| *what == first.what).map_or("", |(_, unit)| unit);
    let all = series(records, &first.what, &first.side);
    let what = if first.side.is_empty() { first.what.clone() } else { format!("{}: {}", first.what, first.side) };
    let row = |record: &&Record| {
        let grown = growth(&all, record, Growth::Median).unwrap_or_default();
        [what.clone(), size(record, unit), figure(record), String::new(), String::new(), String::new(), grown]
    };
    all.iter().map(row).collect()
}

fn series<'a>(records: &'a [Record], what: &str, side: &str) -> Vec<&'a Record> {
    records.iter().filter(|record| record.what == what && record.side == side).collect()
}

/// What one costs, as a multiple of what it costs at the smallest size; none at that.
fn growth(series: &[&Record], record: &Record, by: Growth) -> Option<String> {
    let smallest = series.iter().min_by_key(|record| record.size)?;
    let cost = |record: &Record| match by {
        Growth::Median => record.p50_ns,
        Growth::Throughput => record.per_second.map_or(record.p50_ns, |rate| 1e9 / rate),
    };
    (smallest.size != record.size).then(|| format!("×{}", significant(cost(record) / cost(smallest))))
}

fn size(record: &Record, unit: &str) -> String {
    record.size.map(|size| format!("{} {unit}", thousands(size)).trim_end().to_owned()).unwrap_or_default()
}

/// How many times as many Skep does, where rates were measured, and how many times as long its rival takes for one.
fn ratio(ours: &Record, theirs: &Record) -> String {
    let median = significant(theirs.p50_ns / ours.p50_ns);
    match (ours.per_second, theirs.per_second) {
        (Some(ours), Some(theirs)) => format!("{}, p50 {median}", significant(ours / theirs)),
        _ => median,
    }
}

fn figure(record: &Record) -> String {
    let p50 = time(record.p50_ns);
    let rate = record.per_second.map(|rate| format!("{}/s, p50 {p50}", thousands(rate.round() as u64)));
    let p99 = record.p99_ns.map(|p99| format!(", p99 {}", time(p99))).unwrap_or_default();
    rate.unwrap_or(p50) + &p99
}

fn time(nanoseconds: f64) -> String {
    let (scale, unit) = match nanoseconds {
        small if small < 1e3 => (1.0, "ns"),
        small if small < 1e6 => (1e3, "µs"),
        small if small < 1e9 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    format!("{} {unit}", significant(nanoseconds / scale))
}

/// Two decimals below ten, one below a hundred, none above.
fn significant(number: f64) -> String {
    match number {
        small if small < 9.995 => format!("{small:.2}"),
        small if small < 99.95 => format!("{small:.1}"),
        _ => thousands(number.round() as u64),
    }
}

/// Digits in groups of three.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(what: &str, side: &str, size: u64, per_second: Option<f64>, p50_ns: f64) -> Record {
        Record { what: what.into(), side: side.into(), size: Some(size), per_second, p50_ns, p99_ns: None }
    }

    fn connections() -> Vec<Record> {
        let what = "TCP connections through a Service";
        vec![
            record(what, "direct", 1, Some(20_000.0), 40_000.0),
            record(what, "eBPF", 1, Some(16_000.0), 50_000.0),
            record(what, "direct", 10_000, Some(20_000.0), 40_000.0),
            record(what, "eBPF", 10_000, Some(15_000.0), 52_000.0),
        ]
    }

    #[test]
    fn a_rival_has_a_row_for_each_size_with_the_ratio_and_both_growths() {
        let rows = rows(&connections());
        assert_eq!(
            rows[0],
            [
                "TCP connections through a Service",
                "1 Services",
                "16 000/s, p50 50.0 µs",
                "direct",
                "20 000/s, p50 40.0 µs",
                "0.80, p50 0.80",
                ""
            ]
        );
        assert_eq!(
            rows[1][1..],
            [
                "10 000 Services",
                "15 000/s, p50 52.0 µs",
                "direct",
                "20 000/s, p50 40.0 µs",
                "0.75, p50 0.77",
                "×1.04, ×1.00"
            ]
        );
        assert_eq!(rows.len(), 2);
    }

    #[test]
    fn growth_with_those_who_ask_at_once_is_of_the_throughput() {
        let what = "durable creations of 1 KiB";
        let records = [
            record(what, "embedded store", 1, Some(4_000.0), 200_000.0),
            record(what, "etcd", 1, Some(2_000.0), 500_000.0),
            record(what, "embedded store", 256, Some(80_000.0), 3_000_000.0),
            record(what, "etcd", 256, Some(8_000.0), 26_000_000.0),
        ];
        assert_eq!(rows(&records)[1][5..], ["10.0, p50 8.67", "×0.05, ×0.25"]);
    }

    #[test]
    fn times_are_compared_where_no_rate_was_measured() {
        let records = [
            record("connect(2) of a UDP socket", "direct", 1, None, 400.0),
            record("connect(2) of a UDP socket", "eBPF", 1, None, 800.0),
        ];
        assert_eq!(rows(&records)[0][2..6], ["800 ns", "direct", "400 ns", "0.50"]);
    }

    #[test]
    fn what_has_no_rival_shows_how_it_grows() {
        let records = [
            record("placing a pod", "basic", 500, None, 36_000.0),
            record("placing a pod", "basic", 5_000, None, 330_000.0),
        ];
        let rows = rows(&records);
        assert_eq!(rows[1], ["placing a pod: basic", "5 000 nodes", "330 µs", "", "", "", "×9.17"]);
    }

    #[test]
    fn both_forms_have_all_rows_below_the_head() {
        let rows = rows(&connections());
        assert_eq!(text(&rows).lines().count(), 3);
        let markdown = markdown(&rows);
        assert_eq!(markdown.lines().count(), 4);
        assert!(markdown.lines().all(|line| line.matches('|').count() == HEAD.len() + 1), "{markdown}");
    }

    #[test]
    fn figures_have_three_digits_and_their_unit() {
        let times = [9.0, 950.0, 1_234.0, 56_780.0, 4_800_000.0, 1_150_000_000.0].map(time);
        assert_eq!(times, ["9.00 ns", "950 ns", "1.23 µs", "56.8 µs", "4.80 ms", "1.15 s"]);
        assert_eq!(thousands(1_234_567), "1 234 567");
    }
}
