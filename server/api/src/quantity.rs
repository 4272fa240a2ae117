//! Quantities (`100m`, `1.5Gi`, `1e3`): parsing, exact arithmetic and upstream's canonical form.
//!
//! Answers to <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>. A value is a decimal
//! `mantissa * 10^scale` with a scale of at least -9 (nano); what is finer is rounded away from zero on parsing, as
//! upstream does, and magnitudes are capped at 2^63-1.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// The family of suffixes in which a quantity prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySi,
    /// `12M`
    DecimalSi,
}

/// An exact fixed-point number with a preferred way of printing.
///
/// Equality and order compare the numbers, not the forms.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// In units of 10⁻⁹. Invariant: magnitude at most `(2^63 - 1) * 10^9`.
    nano: i128,
    format: Format,
    /// Written as whole thousandths although fewer would do ("1.500"): upstream keeps that spelling.
    keep: Option<(i128, u8)>,
}

/// Why a text is no quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not number and suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// No such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// The numeric part is too long or malformed.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
}

const NANO_DIGITS: i32 = 9;
const NANOS: i128 = 1_000_000_000;
const MAX_NANO: i128 = (i64::MAX as i128) * NANOS;
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

// === impl Quantity ===

impl Quantity {
    /// A whole number.
    pub fn new(value: i64, format: Format) -> Self {
        Self::from_nano(i128::from(value) * NANOS, format)
    }

    /// A number of thousandths.
    pub fn from_milli(milli: i64) -> Self {
        Self::from_nano(i128::from(milli) * 1_000_000, Format::DecimalSi)
    }

    fn from_nano(nano: i128, format: Format) -> Self {
        Self { nano: nano.clamp(-MAX_NANO, MAX_NANO), format, keep: None }
    }

    /// Zero.
    pub fn zero() -> Self {
        Self::new(0, Format::DecimalSi)
    }

    /// The whole number, rounded up (towards positive infinity); saturates.
    pub fn value(&self) -> i64 {
        i64::try_from(div_ceil(self.nano, NANOS)).unwrap_or(i64::MAX)
    }

    /// Thousandths, rounded up; saturates.
    pub fn milli_value(&self) -> i64 {
        let milli = div_ceil(self.nano, 1_000_000);
        i64::try_from(milli).unwrap_or(if milli > 0 { i64::MAX } else { i64::MIN })
    }

    /// Whether the number is a whole one.
    pub fn is_integer(&self) -> bool {
        self.nano % NANOS == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        i32::from(self.nano > 0) - i32::from(self.nano < 0)
    }

    /// Whether the number is zero.
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// As a floating-point number.
    pub fn as_f64(&self) -> f64 {
        self.nano as f64 / NANOS as f64
    }

    /// The preferred form.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The sum, in this one's form (the other's if this one is zero).
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self::from_nano(self.nano + other.nano, format)
    }

    /// The difference, in this one's form (the other's if this one is zero).
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self::from_nano(self.nano - other.nano, format)
    }

    /// Rounded up to thousandths, as upstream defaults every resource list.
    #[must_use]
    pub fn round_up_milli(&self) -> Self {
        let thousandth = 1_000_000;
        if self.nano % thousandth == 0 {
            return *self;
        }
        let away = self.nano / thousandth + if self.nano > 0 { 1 } else { -1 };
        Self::from_nano(away * thousandth, self.format)
    }
}

/// The sum, in the left one's form (the right one's if the left is zero).
impl std::ops::Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.plus(&other)
    }
}

/// The difference, in the left one's form (the right one's if the left is zero).
impl std::ops::Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.minus(&other)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

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

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (negative, number, suffix) = split(text)?;
        let (unit, format) = unit(suffix)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let nano = match unit {
            Unit::Binary(shift) => scaled(whole, fraction, NANO_DIGITS, 1 << shift),
            Unit::Decimal(exponent) => scaled(whole, fraction, exponent.saturating_add(NANO_DIGITS), 1),
        };
        let mut quantity = Self::from_nano(if negative { -nano } else { nano }, format);
        if let (Unit::Decimal(exponent), true) = (unit, !fraction.is_empty() && !number.starts_with('0')) {
            quantity.keep = kept_spelling(whole, fraction, exponent, negative, format);
        }
        if format == Format::BinarySi && quantity.nano > 0 && quantity.nano < NANOS {
            quantity.format = Format::DecimalSi;
        }
        Ok(quantity)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((digits, decimals)) = self.keep {
            let unit = 10_i128.pow(u32::from(decimals));
            let sign = if digits < 0 { "-" } else { "" };
            let (whole, rest) = (digits.abs() / unit, digits.abs() % unit);
            return write!(f, "{sign}{whole}.{rest:0width$}", width = usize::from(decimals));
        }
        if self.nano == 0 {
            return f.write_str("0");
        }
        let whole = self.nano / NANOS;
        if self.format == Format::BinarySi && self.is_integer() && whole.abs() >= 1024 {
            let mut mantissa = whole;
            let mut index = 0;
            while mantissa % 1024 == 0 && index < BINARY.len() - 1 {
                mantissa /= 1024;
                index += 1;
            }
            return write!(f, "{mantissa}{}", BINARY[index]);
        }
        let mut mantissa = self.nano;
        let mut index = 0;
        while mantissa % 1000 == 0 && index < DECIMAL.len() - 1 {
            mantissa /= 1000;
            index += 1;
        }
        let exponent = i32::try_from(index).unwrap_or_default() * 3 - NANO_DIGITS;
        match self.format {
            Format::DecimalExponent if exponent != 0 => write!(f, "{mantissa}e{exponent}"),
            Format::DecimalExponent => write!(f, "{mantissa}"),
            _ => write!(f, "{mantissa}{}", DECIMAL[index]),
        }
    }
}

/// The canonical text of a quantity given as JSON string or number; None if it is none.
pub fn canonicalize(value: &serde_json::Value) -> Option<String> {
    from_json(value).ok().map(|q| q.to_string())
}

/// A quantity from a JSON string or number (upstream accepts both).
pub fn from_json(value: &serde_json::Value) -> Result<Quantity, QuantityError> {
    match value {
        serde_json::Value::String(text) => text.trim().parse(),
        serde_json::Value::Number(number) => number.to_string().parse(),
        _ => Err(QuantityError::Format),
    }
}

#[derive(Clone, Copy)]
enum Unit {
    /// Power of two.
    Binary(u32),
    /// Power of ten.
    Decimal(i32),
}

/// Upstream reuses the text of a number whose decimals are a multiple of three and don't end in "000".
fn kept_spelling(whole: &str, fraction: &str, exponent: i32, negative: bool, format: Format) -> Option<(i128, u8)> {
    let digits = format!("{whole}{fraction}");
    let decimals = u8::try_from(fraction.len()).ok().filter(|d| *d <= 9 && d % 3 == 0)?;
    let plain = exponent == 0 && format == Format::DecimalSi && !whole.is_empty();
    if !plain || digits.len() > 18 || digits.ends_with("000") {
        return None;
    }
    let value: i128 = digits.parse().ok()?;
    Some((if negative { -value } else { value }, decimals))
}

/// Sign, digits with at most one dot, and suffix.
fn split(text: &str) -> Result<(bool, &str, &str), QuantityError> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let negative = text.starts_with('-');
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    if !number.bytes().any(|b| b.is_ascii_digit()) || number.matches('.').count() > 1 {
        return Err(QuantityError::Format);
    }
    let letters = suffix.find(|c: char| !"eEinumkKMGTP".contains(c)).unwrap_or(suffix.len());
    let tail = suffix[letters..].strip_prefix(['+', '-']).unwrap_or(&suffix[letters..]);
    if !tail.bytes().all(|b| b.is_ascii_digit()) || (tail.is_empty() && letters < suffix.len()) {
        return Err(QuantityError::Format);
    }
    Ok((negative, number, suffix))
}

fn unit(suffix: &str) -> Result<(Unit, Format), QuantityError> {
    if suffix.is_empty() {
        return Ok((Unit::Decimal(0), Format::DecimalSi));
    }
    if let Some(index) = BINARY.iter().position(|s| *s == suffix) {
        return Ok((Unit::Binary(10 * u32::try_from(index).unwrap_or_default()), Format::BinarySi));
    }
    if let Some(index) = DECIMAL.iter().position(|s| *s == suffix) {
        return Ok((Unit::Decimal(3 * i32::try_from(index).unwrap_or_default() - NANO_DIGITS), Format::DecimalSi));
    }
    match suffix.strip_prefix(['e', 'E']) {
        Some(exponent) => {
            let exponent: i64 = exponent.parse().map_err(|_| QuantityError::Suffix)?;
            // Beyond these bounds every number is capped or rounded to one nano anyway.
            let bounded = i32::try_from(exponent.clamp(-10_000, 10_000)).unwrap_or_default();
            Ok((Unit::Decimal(bounded), Format::DecimalExponent))
        }
        None => Err(QuantityError::Suffix),
    }
}

/// `whole.fraction * 10^exponent * factor`, rounded away from zero, capped.
fn scaled(whole: &str, fraction: &str, exponent: i32, factor: i128) -> i128 {
    let point = i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_add(i64::from(exponent));
    let mut value: i128 = 0;
    let mut inexact = false;
    // With a factor, keep more digits than nano so that the product is exact before it is rounded.
    let spare: u32 = if factor > 1 { 9 } else { 0 };
    let wanted = point.saturating_add(i64::from(spare));
    let digits = whole.bytes().chain(fraction.bytes());
    let mut taken: i64 = 0;
    for digit in digits {
        if taken < wanted {
            value = match value.checked_mul(10).and_then(|v| v.checked_add(i128::from(digit - b'0'))) {
                Some(v) if v <= MAX_NANO * NANOS => v,
                _ => return MAX_NANO,
            };
        } else {
            inexact |= digit != b'0';
        }
        taken += 1;
    }
    if value == 0 {
        return i128::from(inexact);
    }
    while taken < wanted {
        value = match value.checked_mul(10) {
            Some(v) if v <= MAX_NANO * NANOS => v,
            _ => return MAX_NANO,
        };
        taken += 1;
    }
    let unit = 10_i128.pow(spare);
    match value.checked_mul(factor) {
        Some(product) => {
            let rounded = product / unit + i128::from(product % unit != 0 || inexact);
            rounded.min(MAX_NANO)
        }
        None => value.div_euclid(unit).checked_mul(factor).map_or(MAX_NANO, |v| v.min(MAX_NANO)),
    }
}

fn div_ceil(value: i128, unit: i128) -> i128 {
    value.div_euclid(unit) + i128::from(value.rem_euclid(unit) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms_are_upstreams() {
        let cases = [
            ("0", "0"),
            ("0Mi", "0"),
            ("1000m", "1"),
            ("0.1", "100m"),
            ("1.5", "1500m"),
            ("1.500", "1.500"),
            ("1.50Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("1024", "1024"),
            ("1024Mi", "1Gi"),
            ("1000Ki", "1000Ki"),
            ("512", "512"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1000000", "1M"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("1500e0", "1500"),
            ("1.1e3", "1100"),
            ("12e-3", "12e-3"),
            ("1E", "1E"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854775807"),
            ("100E", "9223372036854775807"),
            ("0.0000000001", "1n"),
            ("-1.5", "-1500m"),
            ("+5", "5"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.2Mi", "209715200m"),
            ("100000k", "100M"),
        ];
        for (text, want) in cases {
            let quantity: Quantity = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(quantity.to_string(), want, "{text}");
        }
    }

    #[test]
    fn bad_texts_fail_as_upstream() {
        use QuantityError::{Format, Suffix};
        let cases = [
            ("", Format),
            ("abc", Format),
            ("1.2.3", Format),
            ("1 ", Format),
            ("1mm", Suffix),
            ("1x", Format),
            ("1e", Suffix),
            ("--1", Format),
            ("1KI", Format),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<Quantity>().err(), Some(want), "{text}");
        }
    }

    #[test]
    fn rounding_is_up() {
        let half: Quantity = "0.5".parse().expect("quantity");
        assert_eq!((half.value(), half.milli_value()), (1, 500));
        let fine: Quantity = "1u".parse().expect("quantity");
        assert_eq!((fine.milli_value(), fine.round_up_milli().to_string().as_str()), (1, "1m"));
        let negative: Quantity = "-1500m".parse().expect("quantity");
        assert_eq!(negative.value(), -1);
    }

    proptest! {
        #[test]
        fn canonical_text_is_a_fixed_point(value in any::<i64>(), suffix in 0..DECIMAL.len(), binary in 0..BINARY.len(), which in 0..3) {
            let text = match which {
                0 => format!("{}{}", value % 100_000_000, DECIMAL[suffix]),
                1 => format!("{}{}", value % 100_000_000, BINARY[binary]),
                _ => format!("{}e{}", value % 100_000, i64::try_from(suffix).expect("small") - 5),
            };
            let quantity: Quantity = text.parse().expect("a quantity");
            let canonical = quantity.to_string();
            let again: Quantity = canonical.parse().expect("canonical form parses");
            prop_assert_eq!(quantity, again);
            prop_assert_eq!(canonical, again.to_string());
        }

        #[test]
        fn never_panics(text in "[-+]?[0-9.]{0,40}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,6}") {
            let _ = text.parse::<Quantity>().map(|q| (q.to_string(), q.value(), q.milli_value()));
        }

        #[test]
        fn sums_are_exact(a in -1_000_000_000_i64..1_000_000_000, b in -1_000_000_000_i64..1_000_000_000) {
            let sum = Quantity::from_milli(a).plus(&Quantity::from_milli(b));
            prop_assert_eq!(sum, Quantity::from_milli(a + b));
            prop_assert_eq!(sum.minus(&Quantity::from_milli(b)), Quantity::from_milli(a));
        }
    }
}
