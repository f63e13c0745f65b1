//! Resource quantities: `100m`, `1.5Gi`, `2e3`.
//!
//! Kept exact as a number of nano-units in an `i128`, so that comparing and adding never rounds.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANO: i128 = 1_000_000_000;

/// Why a quantity could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QuantityError {
    /// Neither a number nor a known suffix.
    #[error(
        "quantity {0:?} is not a number with an optional suffix (n u m k M G T P E, Ki to Ei, or an exponent)"
    )]
    Malformed(String),
    /// Larger than 2^63 units.
    #[error("quantity {0:?} is out of range")]
    OutOfRange(String),
}

/// Reads a quantity as nano-units.
pub fn parse_nano(text: &str) -> Result<i128, QuantityError> {
    let malformed = || QuantityError::Malformed(text.to_owned());
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (mantissa, scale) = decimal(number).ok_or_else(malformed)?;
    let (factor, exponent) = multiplier(suffix).ok_or_else(malformed)?;
    let nano = scaled(mantissa.checked_mul(factor), exponent + 9 - scale)
        .filter(|nano| *nano <= i128::from(i64::MAX) * NANO)
        .ok_or_else(|| QuantityError::OutOfRange(text.to_owned()))?;
    Ok(if negative { -nano } else { nano })
}

/// Whole units, rounded up as upstream's `Quantity.Value()`.
pub fn value(quantity: &Quantity) -> Result<i64, QuantityError> {
    ceil_to(&quantity.0, NANO)
}

/// Thousandths of a unit, rounded up as upstream's `Quantity.MilliValue()`.
pub fn milli_value(quantity: &Quantity) -> Result<i64, QuantityError> {
    ceil_to(&quantity.0, NANO / 1000)
}

fn ceil_to(text: &str, unit: i128) -> Result<i64, QuantityError> {
    let nano = parse_nano(text)?;
    let rounded = nano.div_euclid(unit) + i128::from(nano.rem_euclid(unit) != 0);
    i64::try_from(rounded).map_err(|_| QuantityError::OutOfRange(text.to_owned()))
}

/// Digits without the point, and how many of them were behind it.
fn decimal(number: &str) -> Option<(i128, i32)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || number.len() > 30 || fraction.contains('.') {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    Some((digits.parse().ok()?, i32::try_from(fraction.len()).ok()?))
}

/// A binary factor and a decimal exponent.
fn multiplier(suffix: &str) -> Option<(i128, i32)> {
    let binary = |power: u32| Some((1i128 << (10 * power), 0));
    match suffix {
        "n" => Some((1, -9)),
        "u" => Some((1, -6)),
        "m" => Some((1, -3)),
        "" => Some((1, 0)),
        "k" => Some((1, 3)),
        "M" => Some((1, 6)),
        "G" => Some((1, 9)),
        "T" => Some((1, 12)),
        "P" => Some((1, 15)),
        "E" => Some((1, 18)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (exponent.abs() <= 30).then_some((1, exponent))
        }
    }
}

fn scaled(mantissa: Option<i128>, exponent: i32) -> Option<i128> {
    let mantissa = mantissa?;
    let power = 10i128.checked_pow(exponent.unsigned_abs())?;
    if exponent >= 0 {
        return mantissa.checked_mul(power);
    }
    // Below a nano-unit: round up, as upstream does.
    Some(mantissa.div_euclid(power) + i128::from(mantissa.rem_euclid(power) != 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn q(text: &str) -> Quantity {
        Quantity(text.into())
    }

    #[test]
    fn suffixes_and_exponents_are_read() {
        for (text, milli) in [
            ("100m", 100),
            ("2", 2000),
            ("0.5", 500),
            (".5", 500),
            ("1k", 1_000_000),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("2e3", 2_000_000),
            ("1u", 1),
            ("-1", -1000),
        ] {
            assert_eq!(milli_value(&q(text)), Ok(milli), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "m", "1.2.3", "1x", "1 Gi", "--1", "1e", "1e99"] {
            assert!(parse_nano(text).is_err(), "{text}");
        }
        assert!(matches!(
            parse_nano("99999999999E"),
            Err(QuantityError::OutOfRange(_))
        ));
    }

    proptest! {
        #[test]
        fn any_text_is_answered_without_panic(text in "\\PC{0,40}") {
            let _ = value(&q(&text));
            let _ = milli_value(&q(&text));
        }

        #[test]
        fn whole_numbers_keep_their_value(n in 0i64..1_000_000_000_000) {
            prop_assert_eq!(value(&q(&n.to_string())), Ok(n));
            prop_assert_eq!(milli_value(&q(&format!("{n}m"))), Ok(n));
        }
    }
}
