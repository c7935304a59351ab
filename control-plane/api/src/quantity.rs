//! Amounts of resources: upstream's `resource.Quantity` (k8s.io/apimachinery/pkg/api/resource).
//!
//! Invariant: a quantity is a whole number of billionths (nano) in an `i128`, so that adding and comparing is one integer operation and never
//! loses anything. Text finer than a billionth is rounded away from zero, as upstream does; amounts beyond ±10^29 are capped there.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

use serde_json::Value;

/// Billionths in one unit.
const NANO: i128 = 1_000_000_000;
/// The largest amount, in billionths.
const CAP: i128 = 100_000_000_000_000_000_000_000_000_000 * NANO;

/// Which family of suffixes an amount was written with, and is written with again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`: 12 · 2^20
    BinarySi,
    /// `12M`: 12 · 10^6
    #[default]
    DecimalSi,
}

/// An amount of a resource: CPU, memory, storage, a count. Compares by amount, whatever the format.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// Why a text is not a quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It does not have the form of a number and a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// Its number cannot be read.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// Its suffix is not known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { nano: 0, format: Format::DecimalSi };

    /// A whole number of units.
    #[must_use]
    pub const fn new(units: i64, format: Format) -> Self {
        Self { nano: units as i128 * NANO, format }
    }

    /// A number of thousandths, such as millicores.
    #[must_use]
    pub const fn from_milli(milli: i64) -> Self {
        Self { nano: milli as i128 * (NANO / 1000), format: Format::DecimalSi }
    }

    /// A number of bytes, shown with binary suffixes.
    #[must_use]
    pub const fn from_bytes(bytes: i64) -> Self {
        Self::new(bytes, Format::BinarySi)
    }

    /// Reads a quantity from a JSON string or number.
    ///
    /// # Errors
    /// As [`Quantity::from_str`]; anything but a string or a number is [`ParseError::Format`].
    pub fn from_value(value: &Value) -> Result<Self, ParseError> {
        match value {
            Value::String(text) => text.trim().parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(ParseError::Format),
        }
    }

    /// The text under which upstream stores a quantity: canonical, unless the text given is already "good enough" for its parser.
    ///
    /// # Errors
    /// As [`Quantity::from_str`].
    pub fn canonical(text: &str) -> Result<String, ParseError> {
        let text = text.trim();
        let quantity: Self = text.parse()?;
        Ok(if is_kept_as_written(text) { text.to_owned() } else { quantity.to_string() })
    }

    /// How it is written.
    #[must_use]
    pub const fn format(self) -> Format {
        self.format
    }

    /// The same amount, written in another way.
    #[must_use]
    pub const fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// The amount in whole units, rounded away from zero and capped to the range of `i64`: upstream's `Value()`.
    #[must_use]
    pub fn value(self) -> i64 {
        saturate(round_up(self.nano, NANO))
    }

    /// The amount in thousandths, rounded away from zero and capped to the range of `i64`: upstream's `MilliValue()`.
    #[must_use]
    pub fn milli_value(self) -> i64 {
        saturate(round_up(self.nano, NANO / 1000))
    }

    /// The amount as a floating-point number of units, for ratios.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "callers want a ratio, not a count")]
    pub fn as_f64(self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    /// The same amount rounded away from zero to thousandths, as defaults do with every resource list (`SetDefaults_ResourceList`).
    #[must_use]
    pub fn rounded_to_milli(self) -> Self {
        Self { nano: round_up(self.nano, NANO / 1000) * (NANO / 1000), ..self }
    }

    /// Whether it is a whole number of units.
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.nano % NANO == 0
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// Whether it is below nothing.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.nano < 0
    }

    fn of_nano(nano: i128, format: Format) -> Self {
        Self { nano: nano.clamp(-CAP, CAP), format }
    }

    /// Upstream's rule: a zero takes the format of what is added to it.
    fn format_with(self, other: Self) -> Format {
        if self.is_zero() { other.format } else { self.format }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nano.hash(state);
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self::of_nano(self.nano.saturating_add(other.nano), self.format_with(other))
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self::of_nano(self.nano.saturating_sub(other.nano), self.format_with(other))
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nano: -self.nano, ..self }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Self::add)
    }
}

impl From<Quantity> for Value {
    fn from(quantity: Quantity) -> Self {
        Self::String(quantity.to_string())
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    /// Reads any form that upstream's `ParseQuantity` reads: decimal and binary suffixes and exponents.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parts = Parts::scan(text)?;
        let suffix = Suffix::read(parts.suffix).ok_or(ParseError::Suffix)?;
        let magnitude = match suffix {
            Suffix::Decimal { exponent, .. } => decimal_nano(parts.whole, parts.fraction, exponent),
            Suffix::Binary { exponent } => {
                // Upstream reads a number that isn't there as zero, but not in its slow path, which the largest suffixes take.
                if exponent >= 50 && parts.whole == "0" && parts.fraction.is_empty() && !text.contains('0') {
                    return Err(ParseError::Numeric);
                }
                binary_nano(parts.whole, parts.fraction, exponent)
            }
        };
        let format = match suffix {
            Suffix::Decimal { exponential: true, .. } => Format::DecimalExponent,
            Suffix::Decimal { exponential: false, .. } => Format::DecimalSi,
            Suffix::Binary { .. } if magnitude > 0 && magnitude < NANO => Format::DecimalSi,
            Suffix::Binary { .. } => Format::BinarySi,
        };
        Ok(Self::of_nano(if parts.negative { -magnitude } else { magnitude }, format))
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, and the largest suffix that leaves none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        let binary = self.format == Format::BinarySi && self.is_whole() && self.nano.abs() >= 1024 * NANO;
        if binary {
            let (mantissa, times) = remove_factors(self.nano / NANO, 1024, 6);
            return write!(f, "{mantissa}{}", BINARY_SUFFIXES[times]);
        }
        let (mut mantissa, times) = remove_factors(self.nano, 10, 27);
        let mut exponent = i32::try_from(times).unwrap_or(27) - 9;
        while exponent % 3 != 0 {
            mantissa *= 10;
            exponent -= 1;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{mantissa}") } else { write!(f, "{mantissa}e{exponent}") };
        }
        let index = usize::try_from(exponent / 3 + 3).unwrap_or(0);
        write!(f, "{mantissa}{}", DECIMAL_SUFFIXES[index])
    }
}

/// From 10^-9 in steps of 10^3.
const DECIMAL_SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
/// From 1 in steps of 2^10.
const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

#[derive(Clone, Copy)]
enum Suffix {
    Decimal { exponent: i32, exponential: bool },
    Binary { exponent: u32 },
}

impl Suffix {
    fn read(text: &str) -> Option<Self> {
        if let Some(index) = DECIMAL_SUFFIXES.iter().position(|suffix| *suffix == text) {
            let exponent = 3 * i32::try_from(index).ok()? - 9;
            return Some(Self::Decimal { exponent, exponential: false });
        }
        if let Some(index) = BINARY_SUFFIXES.iter().position(|suffix| *suffix == text) {
            return Some(Self::Binary { exponent: 10 * u32::try_from(index).ok()? });
        }
        let digits = text.strip_prefix(['e', 'E'])?;
        let exponent: i64 = digits.parse().ok()?;
        // Far beyond what the cap and the rounding leave visible.
        let exponent = i32::try_from(exponent.clamp(-1000, 1000)).ok()?;
        Some(Self::Decimal { exponent, exponential: true })
    }
}

/// A quantity taken apart by upstream's fast scanner (`parseQuantityString`), leading zeros gone.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Parts<'a> {
    fn scan(text: &'a str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::Format);
        }
        let negative = text.starts_with('-');
        let rest = text.strip_prefix(['-', '+']).unwrap_or(text).trim_start_matches('0');
        let (whole, rest) = split_digits(rest);
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split_digits(rest),
            None => ("", rest),
        };
        let exponent = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        if !digits.bytes().all(|c| c.is_ascii_digit()) {
            return Err(ParseError::Format);
        }
        Ok(Self { negative, whole: if whole.is_empty() { "0" } else { whole }, fraction, suffix })
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|c| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// Whether upstream's parser keeps the text for printing: its number has no digit that the canonical form would move into the suffix.
fn is_kept_as_written(text: &str) -> bool {
    let (Ok(parts), true) = (Parts::scan(text), text != "0") else { return true };
    let digits = parts.whole.len() + parts.fraction.len();
    match Suffix::read(parts.suffix) {
        None => false,
        Some(Suffix::Decimal { exponent, .. }) => {
            let scale = exponent.saturating_sub(i32::try_from(parts.fraction.len()).unwrap_or(i32::MAX));
            digits <= 18
                && scale >= -9
                && scale % 3 == 0
                && !parts.whole.starts_with('0')
                && !format!("{}{}", parts.whole, parts.fraction).ends_with("000")
        }
        Some(Suffix::Binary { exponent }) => {
            let precision = 15 - i64::try_from(digits).unwrap_or(i64::MAX) - i64::from(exponent * 3 / 10) - 1;
            let odd = parts.whole.parse::<i64>().is_ok_and(|number| number & 7 != 0);
            parts.fraction.is_empty() && precision >= 0 && odd
        }
    }
}

/// The number `whole.fraction · 10^exponent` in billionths, rounded up and capped.
fn decimal_nano(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let fraction = fraction.trim_end_matches('0');
    let mut power = exponent - i32::try_from(fraction.len()).unwrap_or(i32::MAX / 2) + 9;
    let mut mantissa: i128 = 0;
    let mut digits = whole.bytes().chain(fraction.bytes());
    for digit in digits.by_ref() {
        mantissa = mantissa * 10 + i128::from(digit - b'0');
        if mantissa >= CAP / 100 {
            break;
        }
    }
    // What is left of the digits is beyond the precision of the cap; it can only count as "a little more".
    let (dropped, some) = digits.fold((0, false), |(count, some), digit| (count + 1, some || digit != b'0'));
    power = power.saturating_add(dropped);
    if mantissa == 0 {
        return 0;
    }
    while power > 0 && mantissa < CAP {
        mantissa = mantissa.saturating_mul(10).min(CAP);
        power -= 1;
    }
    let mut inexact = some;
    while power < 0 && mantissa > 0 {
        inexact |= mantissa % 10 != 0;
        mantissa /= 10;
        power += 1;
    }
    (mantissa + i128::from(inexact)).min(CAP)
}

/// The number `whole.fraction · 2^exponent` in billionths, rounded up and capped to 2^63 - 1 units as upstream caps binary amounts.
fn binary_nano(whole: &str, fraction: &str, exponent: u32) -> i128 {
    let cap = i128::from(i64::MAX) * NANO;
    let whole: i128 = if whole.len() > 19 { i128::from(i64::MAX) } else { whole.parse().unwrap_or(0) };
    // Twenty decimals times 2^60 fit into an i128.
    let (head, tail) = fraction.split_at(fraction.len().min(20));
    let scale = 10_i128.pow(u32::try_from(head.len()).unwrap_or(20));
    let head: i128 = if head.is_empty() { 0 } else { head.parse().unwrap_or(0) };
    let units = head << exponent;
    let part = (units / scale) * NANO + round_up((units % scale) * NANO, scale);
    let sticky = i128::from(tail.bytes().any(|digit| digit != b'0'));
    (whole << exponent).saturating_mul(NANO).saturating_add(part + sticky).min(cap)
}

fn remove_factors(mut value: i128, factor: i128, most: usize) -> (i128, usize) {
    let mut times = 0;
    while times < most && value % factor == 0 {
        value /= factor;
        times += 1;
    }
    (value, times)
}

/// Division that rounds away from zero.
fn round_up(value: i128, divisor: i128) -> i128 {
    let quotient = value / divisor;
    match value % divisor {
        0 => quotient,
        rest if rest > 0 => quotient + 1,
        _ => quotient - 1,
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quantity(text: &str) -> Quantity {
        text.parse().unwrap()
    }

    #[test]
    fn amounts_are_shown_in_canonical_form() {
        let table = [
            ("0", "0"),
            ("0Ki", "0"),
            ("-0", "0"),
            (".", "0"),
            ("100m", "100m"),
            ("0.1", "100m"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("1000m", "1"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1.1Ki", "1126400m"),
            ("1023", "1023"),
            ("-1.5Gi", "-1536Mi"),
            ("1e3", "1e3"),
            ("12E6", "12e6"),
            ("100e-3", "100e-3"),
            ("1E", "1E"),
            ("8Ei", "9223372036854775807"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("123456789", "123456789"),
            ("1e-400", "1e-9"),
            ("+5", "5"),
            ("0.00000000001", "1n"),
            ("1.", "1"),
            (".5", "500m"),
            ("100000000000000000000", "100E"),
        ];
        for (text, shown) in table {
            assert_eq!(quantity(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_refused_in_upstream_words() {
        let table = [
            ("", ParseError::Format),
            ("a", ParseError::Format),
            ("1 ", ParseError::Format),
            ("1.2.3", ParseError::Format),
            ("1Kii", ParseError::Suffix),
            ("1i", ParseError::Suffix),
            ("1ki", ParseError::Suffix),
            ("1e", ParseError::Suffix),
            ("1mm", ParseError::Suffix),
            ("Ei", ParseError::Numeric),
            ("-Pi", ParseError::Numeric),
            ("1é", ParseError::Format),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<Quantity>(), Err(error), "{text}");
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        assert_eq!(quantity("1m").value(), 1);
        assert_eq!(quantity("-1500m").value(), -2);
        assert_eq!(quantity("100u").milli_value(), 1);
        assert_eq!(quantity("2").milli_value(), 2000);
        assert_eq!(quantity("10E").milli_value(), i64::MAX);
        assert_eq!(quantity("0.0001").rounded_to_milli().to_string(), "1m");
    }

    #[test]
    fn a_sum_keeps_the_format_of_its_first_part() {
        assert_eq!((quantity("1Gi") + quantity("1024M")).to_string(), "2048576Ki");
        assert_eq!((Quantity::ZERO + quantity("1Gi")).to_string(), "1Gi");
        assert_eq!((quantity("1") - quantity("1500m")).to_string(), "-500m");
        assert!(quantity("1Ki") > quantity("1k"));
        assert_eq!(quantity("1000m"), quantity("1"));
    }

    #[test]
    fn amounts_beyond_reason_are_capped() {
        for text in ["2E30", "9e37", "1e1000", &"9".repeat(60)] {
            assert_eq!(quantity(text).nano, CAP, "{text}");
            assert_eq!((quantity(text) + quantity(text)).nano, CAP);
            assert_eq!((-quantity(text) - quantity(text)).nano, -CAP);
        }
        assert_eq!(quantity("9999999999999999999Ei").value(), i64::MAX);
        assert_eq!(quantity(&format!("0.{}1", "0".repeat(60))).to_string(), "1n");
    }

    #[test]
    fn text_that_upstream_keeps_is_kept() {
        for text in ["100m", "1.500", "05", "+5", "1Gi", "1025", "5e3"] {
            assert_eq!(Quantity::canonical(text).unwrap(), text);
        }
        for (text, stored) in [("0.5", "500m"), ("1000m", "1"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("0.005", "5m")]
        {
            assert_eq!(Quantity::canonical(text).unwrap(), stored);
        }
    }

    proptest! {
        #[test]
        fn a_shown_amount_reads_back_and_shows_the_same(nano in -1_i128 << 100..1_i128 << 100, format in 0..3) {
            let format = [Format::DecimalSi, Format::DecimalExponent, Format::BinarySi][usize::try_from(format).unwrap()];
            let nano = if format == Format::BinarySi { nano.clamp(-(1 << 92), 1 << 92) } else { nano };
            let shown = Quantity { nano, format }.to_string();
            let read: Quantity = shown.parse().unwrap();
            prop_assert_eq!(read.nano, nano);
            prop_assert_eq!(read.to_string(), shown);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[-+]?[0-9.]{0,60}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,30}") {
            let _ = text.parse::<Quantity>();
            let _ = Quantity::canonical(&text);
        }

        #[test]
        fn adding_and_taking_away_is_nothing(a in any::<i64>(), b in any::<i64>()) {
            let (a, b) = (Quantity::from_milli(a), Quantity::from_bytes(b));
            prop_assert_eq!(a + b - b, a);
        }
    }
}
