//! Resource quantities: `100m`, `1.5Gi`, `1e3`.
//!
//! As upstream's `resource.Quantity`: a fixed-point number with nine decimal places that remembers in which family of
//! suffixes it was written, and prints in one canonical form.

use std::fmt;
use std::str::FromStr;

const NANOS: i128 = 1_000_000_000;
/// Quantities are capped here (2^63 - 1), as upstream's are.
const MAX: i128 = (i64::MAX as i128) * NANOS;

/// A resource quantity. Ordered by value; equal values are equal whatever their notation.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// A text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The text does not have the form of a quantity.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Form,
    /// The suffix is not known.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// The value in billionths.
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// The value rounded up to thousandths, as CPU is counted.
    pub fn millis(&self) -> i128 {
        ceil_div(self.nanos, NANOS / 1000)
    }

    /// The value rounded up to a whole number, as bytes are counted.
    pub fn ceil(&self) -> i128 {
        ceil_div(self.nanos, NANOS)
    }

    /// Whether the value is a whole number.
    pub fn is_integer(&self) -> bool {
        self.nanos % NANOS == 0
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        if number.is_empty() {
            return Err(ParseError::Form);
        }
        let (factor, divisor, format) = scale(suffix)?;
        let magnitude = nanos(number, factor, divisor)
            .ok_or(ParseError::Form)?
            .min(MAX);
        let nanos = if text.starts_with('-') {
            -magnitude
        } else {
            magnitude
        };
        Ok(Quantity { nanos, format })
    }
}

/// What a suffix multiplies and divides by.
fn scale(suffix: &str) -> Result<(i128, i128, Format), ParseError> {
    let decimal = |power: u32| Ok((10_i128.pow(power), 1, Format::Decimal));
    let binary = |power: u32| Ok((1024_i128.pow(power), 1, Format::Binary));
    match suffix {
        "" => decimal(0),
        "n" => Ok((1, NANOS, Format::Decimal)),
        "u" => Ok((1, 1_000_000, Format::Decimal)),
        "m" => Ok((1, 1_000, Format::Decimal)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => exponent(suffix),
    }
}

/// Whether the text could be a suffix: `[eEinumkKMGTP]*[-+]?[0-9]*`.
fn is_suffix(text: &str) -> bool {
    let rest = text.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    rest.bytes().all(|b| b.is_ascii_digit())
}

fn exponent(suffix: &str) -> Result<(i128, i128, Format), ParseError> {
    if !is_suffix(suffix) {
        return Err(ParseError::Form);
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(ParseError::Suffix)?;
    let power: i32 = digits.parse().map_err(|_| ParseError::Suffix)?;
    let size = 10_i128.pow(power.unsigned_abs().min(30));
    match power >= 0 {
        true => Ok((size, 1, Format::Exponent)),
        false => Ok((1, size, Format::Exponent)),
    }
}

/// `number * factor / divisor` in billionths, rounded up, capped where it overflows. None when there is no digit.
fn nanos(number: &str, factor: i128, divisor: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let mut sum = capped_digits(whole)
        .saturating_mul(NANOS)
        .saturating_mul(factor);
    let mut unit = NANOS.saturating_mul(factor);
    let mut remainder = false;
    for digit in fraction.bytes() {
        let digit = i128::from(digit - b'0');
        remainder |= digit > 0 && unit % 10 != 0;
        unit /= 10;
        sum = sum.saturating_add(unit * digit);
    }
    Some(ceil_div(sum.saturating_add(i128::from(remainder)), divisor))
}

fn capped_digits(digits: &str) -> i128 {
    digits.bytes().fold(0_i128, |sum, d| {
        sum.saturating_mul(10).saturating_add(i128::from(d - b'0'))
    })
}

fn ceil_div(value: i128, divisor: i128) -> i128 {
    value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0)
}

impl fmt::Display for Quantity {
    /// The canonical form: the largest suffix that loses nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.format {
            Format::Binary if self.nanos.abs() >= 1024 * NANOS => write_binary(f, self.ceil()),
            Format::Exponent => write_decimal(f, self.nanos, |power| match power {
                0 => String::new(),
                power => format!("e{power}"),
            }),
            _ => write_decimal(f, self.nanos, |power| {
                DECIMAL[((power + 9) / 3) as usize].to_owned()
            }),
        }
    }
}

const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

fn write_binary(f: &mut fmt::Formatter<'_>, mut value: i128) -> fmt::Result {
    let mut power = 0;
    while value != 0 && value % 1024 == 0 && power + 1 < BINARY.len() {
        value /= 1024;
        power += 1;
    }
    write!(f, "{value}{}", BINARY[power])
}

fn write_decimal(
    f: &mut fmt::Formatter<'_>,
    nanos: i128,
    suffix: impl Fn(i32) -> String,
) -> fmt::Result {
    if nanos == 0 {
        return f.write_str("0");
    }
    let (mut value, mut power) = (nanos, -9);
    while value % 1000 == 0 && power < 18 {
        value /= 1000;
        power += 3;
    }
    write!(f, "{value}{}", suffix(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().expect(text).to_string()
    }

    #[test]
    fn prints_the_canonical_form() {
        for (text, expected) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("1024Ki", "1Mi"),
            ("100000Ki", "100000Ki"),
            ("1000k", "1M"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("0.1m", "100u"),
            ("-2.50", "-2500m"),
            ("+1", "1"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.0000000001", "1n"),
            ("9999999999999999999999", "9223372036854775807"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn compares_by_value() {
        let parse = |text: &str| text.parse::<Quantity>().expect(text);
        assert_eq!(parse("1000m"), parse("1"));
        assert!(parse("1Gi") > parse("1G"));
        assert_eq!(parse("100m").millis(), 100);
        assert_eq!(parse("1.5").ceil(), 2);
    }

    #[test]
    fn refuses_what_is_no_quantity() {
        for text in ["", "m", "1.2.3", "1x", "e3", "1 Gi", "--1", "1é"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }
}
