//! Sets of completion indexes as Jobs write them: `1,3-5,7`.

/// How many indexes a text names below `completions` (`validateIndexesFormat`).
///
/// # Errors
/// Upstream's words for what is wrong.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    let mut last: Option<i64> = None;
    let mut total = 0;
    for interval in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = interval_of(interval, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The first index that both sets have; what can't be read has none.
pub(super) fn overlap(a: &str, b: &str, completions: i64) -> Option<i64> {
    let intervals = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|interval| interval_of(interval, completions).ok()).collect()
    };
    let (a, b) = (intervals(a), intervals(b));
    let (mut x, mut y) = (a.iter().peekable(), b.iter().peekable());
    while let (Some((from_a, to_a)), Some((from_b, to_b))) = (x.peek(), y.peek()) {
        if from_a <= to_b && from_b <= to_a {
            return Some(*from_a.max(from_b));
        }
        if from_a <= from_b {
            x.next();
        } else {
            y.next();
        }
    }
    None
}

fn interval_of(interval: &str, completions: i64) -> Result<(i64, i64), String> {
    let parts: Vec<&str> = interval.split('-').collect();
    let read = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
        Ok(index) if index >= completions => Err(format!("too large index: {text:?}")),
        Ok(index) => Ok(index),
    };
    match parts[..] {
        [one] => read(one).map(|index| (index, index)),
        [first, end] => {
            let (first, end) = (read(first)?, read(end)?);
            if first >= end {
                return Err(format!("non-increasing order, previous: {first}, current: {end}"));
            }
            Ok((first, end))
        }
        _ => Err(format!(
            "the fragment {interval:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted_and_ordered() {
        assert_eq!(count("", 3), Ok(0));
        assert_eq!(count("0,2-4", 5), Ok(4));
        assert_eq!(count("3,2", 5), Err("non-increasing order, previous: 3, current: 2".to_owned()));
        assert_eq!(count("5", 5), Err("too large index: \"5\"".to_owned()));
        assert!(count("1-2-3", 5).is_err() && count("x", 5).is_err());
        assert_eq!(overlap("0,4-6", "1-2,5", 9), Some(5));
        assert_eq!(overlap("0,4-6", "1-2,7", 9), None);
    }
}
