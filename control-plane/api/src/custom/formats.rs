//! The formats of strings that a CustomResourceDefinition's schema may name (k8s.io/kube-openapi/pkg/validation/strfmt). An unknown format checks nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use base64::Engine as _;
use regex::Regex;

/// A pattern, compiled once, where it stands.
macro_rules! pattern {
    ($text:expr) => {{
        static PATTERN: LazyLock<Regex> = LazyLock::new(|| Regex::new($text).expect("a pattern of this file compiles"));
        &*PATTERN
    }};
}

/// The formats that upstream 1.37 checks; dashes don't count in a name.
const KNOWN: &[&str] = &[
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// Whether a format is one that is checked.
#[must_use]
pub fn is_known(format: &str) -> bool {
    KNOWN.contains(&format.replace('-', "").as_str())
}

/// Whether a text has a format.
#[must_use]
pub(super) fn matches(format: &str, text: &str) -> bool {
    if format.is_empty() {
        return true;
    }
    match format.replace('-', "").as_str() {
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "uri" => is_uri(text),
        "email" => pattern!(r"^[^\s@<>]+@[^\s@<>]+$").is_match(text),
        "hostname" => {
            text.len() <= 255
                && pattern!(r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z0-9-\p{L}]){2,63})$").is_match(text)
                && text.split('.').all(|label| label.chars().count() <= 63)
        }
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => pattern!("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$").is_match(text),
        "uuid3" => pattern!("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$").is_match(text),
        "uuid4" => {
            pattern!("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$").is_match(text)
        }
        "uuid5" => {
            pattern!("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$").is_match(text)
        }
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => pattern!(r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$").is_match(text),
        "hexcolor" => pattern!("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$").is_match(text),
        "rgbcolor" => pattern!(r"^rgb\(\s*(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])\s*,\s*(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])\s*\)$").is_match(text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok_and(|date| date.to_string() == text),
        "duration" => is_duration(text),
        "datetime" => is_date_time(text),
        "k8sshortname" => crate::names::is_dns1123_label(text).is_empty(),
        "k8slongname" => crate::names::is_dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

/// `net/url.ParseRequestURI`: an absolute URI or a path.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let named = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    named && !rest.is_empty()
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let max = if address.is_ipv4() { 32 } else { 128 };
    !length.starts_with('+') && length.parse::<u8>().is_ok_and(|length| length <= max)
}

fn is_mac(text: &str) -> bool {
    let hex = |group: &str, length: usize| group.len() == length && group.bytes().all(|b| b.is_ascii_hexdigit());
    let by = |separator: char, length: usize, counts: &[usize]| {
        let groups: Vec<&str> = text.split(separator).collect();
        counts.contains(&groups.len()) && groups.iter().all(|group| hex(group, length))
    };
    by(':', 2, &[6, 8, 20]) || by('-', 2, &[6, 8, 20]) || by('.', 4, &[3, 4, 10])
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter(|c| !matches!(c, ' ' | '-')).map(|c| c.to_digit(10).unwrap_or(99)).collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = text.replace([' ', '-'], "");
    if text.len() != 10 || !text[..9].bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let sum: u32 = text[..9].bytes().zip(1..).map(|(digit, at)| u32::from(digit - b'0') * at).sum();
    match text.as_bytes()[9] {
        b'X' => (sum + 100).is_multiple_of(11),
        digit if digit.is_ascii_digit() => (sum + 10 * u32::from(digit - b'0')).is_multiple_of(11),
        _ => false,
    }
}

fn is_isbn13(text: &str) -> bool {
    let digits = digits(text);
    if digits.len() != 13 || digits.contains(&99) {
        return false;
    }
    let sum: u32 = digits[..12].iter().enumerate().map(|(at, digit)| digit * if at % 2 == 0 { 1 } else { 3 }).sum();
    (10 - sum % 10) % 10 == digits[12]
}

fn is_credit_card(text: &str) -> bool {
    let plain: String = text.chars().filter(char::is_ascii_digit).collect();
    if !pattern!(r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$").is_match(&plain) {
        return false;
    }
    let sum: u32 = digits(&plain)
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| if at % 2 == 1 { (digit * 2) / 10 + (digit * 2) % 10 } else { *digit })
        .sum();
    sum.is_multiple_of(10)
}

/// Go's `time.ParseDuration`, or a number and a unit in words.
fn is_duration(text: &str) -> bool {
    pattern!(r"^[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$").is_match(text)
        || pattern!(r"^[0-9]+\s*(ns|nanos?|us|µs|micros?|ms|millis?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?)$").is_match(text.trim())
}

/// `date-time` of RFC 3339.
fn is_date_time(text: &str) -> bool {
    pattern!(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt]|\s)[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([zZ]|[+-][0-9]{2}:[0-9]{2})$")
        .is_match(text)
        && text.get(..10).is_some_and(|date| date.parse::<jiff::civil::Date>().is_ok())
        && text.get(11..13).is_some_and(|hour| hour < "24")
        && text.get(14..16).is_some_and(|minute| minute < "60")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_tell_good_from_bad() {
        let cases = [
            ("ipv4", "1.2.3.4", "1.2.3"),
            ("ipv6", "::1", "1.2.3.4"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "00:11:22:33:44:55", "00:11:22"),
            ("uuid", "a8098c1a-f86e-11da-bd1a-00112444be1e", "a8098c1a"),
            ("date", "2026-02-28", "2026-02-30"),
            ("date-time", "2026-11-24T08:00:00Z", "2026-11-24"),
            ("byte", "YQ==", "a"),
            ("uri", "https://a.b/c", "a b"),
            ("email", "a@b.c", "a"),
            ("hostname", "a.example.com", "a..b"),
            ("duration", "1h30m", "1 x"),
            ("hexcolor", "#fFf", "#ff"),
            ("isbn10", "0321751043", "0321751044"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("ssn", "123-45-6789", "123-45-678"),
            ("k8s-short-name", "web-1", "Web"),
        ];
        for (format, good, bad) in cases {
            assert!(matches(format, good), "{format} {good}");
            assert!(!matches(format, bad), "{format} {bad}");
        }
        assert!(matches("whatever", "anything"));
        assert!(is_known("date-time") && !is_known("int64"));
    }
}
