//! Quantities as the node needs them: milli-CPUs, bytes, counts. Exact for what fits 128 bits of nano-units.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A resource amount, in units of 10⁻⁹.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Amount(i128);

const NANO: i128 = 1_000_000_000;

impl Amount {
    pub(crate) fn from_units(units: i128) -> Amount {
        Amount(units * NANO)
    }

    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Rounded up, as upstream rounds.
    pub(crate) fn milli(self) -> i64 {
        clamp(ceil(self.0, NANO / 1000))
    }

    /// Rounded up.
    pub(crate) fn units(self) -> i64 {
        clamp(ceil(self.0, NANO))
    }

    /// In units of a divisor, rounded up (the downward API's `divisor`).
    pub(crate) fn divided_by(self, divisor: Amount) -> i64 {
        if divisor.0 <= 0 { self.units() } else { clamp(ceil(self.0, divisor.0)) }
    }
}

impl std::ops::Add for Amount {
    type Output = Amount;
    fn add(self, other: Amount) -> Amount {
        Amount(self.0.saturating_add(other.0))
    }
}

impl std::ops::Sub for Amount {
    type Output = Amount;
    fn sub(self, other: Amount) -> Amount {
        Amount(self.0.saturating_sub(other.0))
    }
}

fn ceil(value: i128, divisor: i128) -> i128 {
    value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0)
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// The amount of an API quantity; None when it is no quantity.
pub(crate) fn of(quantity: &Quantity) -> Option<Amount> {
    parse(&quantity.0)
}

/// Parses `500m`, `1.5Gi`, `2e3`, `128974848`.
pub(crate) fn parse(text: &str) -> Option<Amount> {
    let (number, multiplier) = split_suffix(text)?;
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty())
        || !whole.chars().chain(fraction.chars()).all(|c| c.is_ascii_digit())
        || fraction.len() > 18
        || whole.len() > 20
    {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let scale = 10_i128.pow(fraction.len() as u32);
    let fraction: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let scaled = whole.checked_mul(scale)?.checked_add(fraction)?.checked_mul(multiplier)?;
    let value = ceil(scaled, scale);
    Some(Amount(if negative { -value } else { value }))
}

/// The number and what one of its units is worth in nano-units.
fn split_suffix(text: &str) -> Option<(&str, i128)> {
    const SUFFIXES: [(&str, i128); 15] = [
        ("Ki", NANO << 10),
        ("Mi", NANO << 20),
        ("Gi", NANO << 30),
        ("Ti", NANO << 40),
        ("Pi", NANO << 50),
        ("Ei", NANO << 60),
        ("n", 1),
        ("u", 1_000),
        ("m", 1_000_000),
        ("k", NANO * 1_000),
        ("M", NANO * 1_000_000),
        ("G", NANO * 1_000_000_000),
        ("T", NANO * 1_000_000_000_000),
        ("P", NANO * 1_000_000_000_000_000),
        ("E", NANO * 1_000_000_000_000_000_000),
    ];
    if let Some((number, exponent)) = text.split_once(['e', 'E']).filter(|(_, exponent)| !exponent.is_empty()) {
        let exponent: i32 = exponent.parse().ok()?;
        return match exponent {
            0..=18 => Some((number, NANO.checked_mul(10_i128.pow(exponent as u32))?)),
            -9..=-1 => Some((number, NANO / 10_i128.pow(exponent.unsigned_abs()))),
            _ => None,
        };
    }
    for (suffix, worth) in SUFFIXES {
        if let Some(number) = text.strip_suffix(suffix) {
            return Some((number, worth));
        }
    }
    Some((text, NANO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_round_up() {
        for (text, milli, units) in [
            ("500m", 500_i128, 1_i128),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("2e3", 2_000_000, 2_000),
            ("0.1", 100, 1),
            ("1E", 1_000_000_000_000_000_000_000, 1_000_000_000_000_000_000),
            ("1n", 1, 1),
            ("128974848", 128_974_848_000, 128_974_848),
        ] {
            let amount = parse(text).unwrap();
            assert_eq!(i128::from(amount.milli()), milli.min(i64::MAX as i128), "{text}");
            assert_eq!(i128::from(amount.units()), units, "{text}");
        }
        for bad in ["", "abc", "1.2.3", "--1", "1Zi"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
