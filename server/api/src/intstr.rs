//! `IntOrString`: a number, a port name or a percentage.
//!
//! Answers to upstream's `k8s.io/apimachinery/pkg/util/intstr`.

use serde_json::Value;

/// Why a value is no number and no percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IntOrStringError {
    /// A string without a percent sign.
    #[error("invalid value for IntOrString: invalid type: string is not a percentage")]
    NotAPercentage,
    /// A string with a percent sign and something that is no number before it.
    #[error("invalid value for IntOrString: invalid value {}: strconv.Atoi: parsing {}: invalid syntax", crate::field::quote(.0), crate::field::quote(.0.trim_end_matches('%')))]
    BadNumber(String),
    /// Neither number nor string.
    #[error("invalid value for IntOrString: invalid type: neither int nor percentage")]
    NeitherIntNorPercentage,
}

/// The number itself, or the percentage of `total`, rounded up or down.
pub fn scaled_value(value: &Value, total: i64, round_up: bool) -> Result<i64, IntOrStringError> {
    match value {
        Value::Number(number) => number.as_i64().ok_or(IntOrStringError::NeitherIntNorPercentage),
        Value::String(text) => {
            let percent = percentage(text)?;
            let product = i128::from(percent) * i128::from(total);
            let scaled = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i64::try_from(scaled).map_err(|_| IntOrStringError::NeitherIntNorPercentage)
        }
        _ => Err(IntOrStringError::NeitherIntNorPercentage),
    }
}

/// The number before the percent sign.
pub fn percentage(text: &str) -> Result<i64, IntOrStringError> {
    let digits = text.strip_suffix('%').ok_or(IntOrStringError::NotAPercentage)?;
    digits.parse().map_err(|_| IntOrStringError::BadNumber(text.to_owned()))
}

/// Whether a text is what upstream's validation calls a percentage: digits and one percent sign.
pub fn is_percentage(text: &str) -> bool {
    text.strip_suffix('%').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scales_as_upstream() {
        assert_eq!(scaled_value(&json!(3), 10, true), Ok(3));
        assert_eq!(scaled_value(&json!("25%"), 3, true), Ok(1));
        assert_eq!(scaled_value(&json!("25%"), 3, false), Ok(0));
        assert_eq!(scaled_value(&json!("100%"), 7, false), Ok(7));
        assert_eq!(scaled_value(&json!("x"), 7, false), Err(IntOrStringError::NotAPercentage));
        assert_eq!(
            scaled_value(&json!("x%"), 7, false).map_err(|e| e.to_string()),
            Err("invalid value for IntOrString: invalid value \"x%\": strconv.Atoi: parsing \"x\": invalid syntax".to_owned())
        );
    }
}
