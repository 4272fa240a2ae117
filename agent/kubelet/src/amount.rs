//! Resource amounts as the node needs them: milli-CPUs, bytes, counts. Parsing and arithmetic are the API's quantities.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use trireme_api::quantity::{Format, Quantity as Exact};

/// An amount of a resource. The default is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount(Exact);

impl Default for Amount {
    fn default() -> Amount {
        Amount(Exact::zero())
    }
}

impl Amount {
    pub(crate) fn from_units(units: i64) -> Amount {
        Amount(Exact::new(units, Format::DecimalSi))
    }

    pub(crate) fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// With a binary suffix: `100Mi`.
    pub(crate) fn binary(self) -> String {
        Exact::new(self.units(), Format::BinarySi).to_string()
    }

    /// Thousandths, rounded up, as upstream rounds.
    pub(crate) fn milli(self) -> i64 {
        self.0.milli_value()
    }

    /// Whole units, rounded up.
    pub(crate) fn units(self) -> i64 {
        self.0.value()
    }
}

impl std::ops::Add for Amount {
    type Output = Amount;
    fn add(self, other: Amount) -> Amount {
        Amount(self.0 + other.0)
    }
}

impl std::ops::Sub for Amount {
    type Output = Amount;
    fn sub(self, other: Amount) -> Amount {
        Amount(self.0 - other.0)
    }
}

/// The amount of an API quantity; None when it is no quantity.
pub(crate) fn of(quantity: &Quantity) -> Option<Amount> {
    parse(&quantity.0)
}

/// Parses `500m`, `1.5Gi`, `2e3`, `128974848`.
pub(crate) fn parse(text: &str) -> Option<Amount> {
    text.parse().ok().map(Amount)
}

/// `value` in units of `divisor`, rounded up. A divisor of zero or less counts as one.
pub(crate) fn divided(value: i64, divisor: i64) -> i64 {
    let divisor = divisor.max(1);
    value.div_euclid(divisor).saturating_add(i64::from(value.rem_euclid(divisor) != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_round_up() {
        for (text, milli, units) in [
            ("500m", 500, 1),
            ("1.5Gi", 1_610_612_736_000, 1_610_612_736),
            ("2e3", 2_000_000, 2_000),
            ("0.1", 100, 1),
            ("1E", i64::MAX, 1_000_000_000_000_000_000),
            ("1n", 1, 1),
            ("128974848", 128_974_848_000, 128_974_848),
        ] {
            let amount = parse(text).unwrap();
            assert_eq!((amount.milli(), amount.units()), (milli, units), "{text}");
        }
        for bad in ["", "abc", "1.2.3", "--1", "1Zi"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert_eq!((divided(1500, 1000), divided(1000, 1000), divided(7, 0), divided(i64::MAX, 1)), (2, 1, 7, i64::MAX));
    }
}
