//! Kubernetes quantities ("100m", "1.5Gi") as integers: thousandths for CPU, whole units for everything else.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Thousandths of the unit, rounded up: `"0.1"` and `"100m"` are 100. `None` for what is not a quantity.
pub fn milli(quantity: &Quantity) -> Option<i64> {
    scaled(&quantity.0, 1000)
}

/// Whole units, rounded up: `"1Ki"` is 1024, `"1500m"` is 2. `None` for what is not a quantity.
pub fn value(quantity: &Quantity) -> Option<i64> {
    scaled(&quantity.0, 1)
}

fn scaled(text: &str, scale: i128) -> Option<i64> {
    let (number, suffix) = split(text.trim());
    let (mantissa, decimals) = decimal(number)?;
    let (factor, divisor) = multiplier(suffix)?;
    let numerator = mantissa.checked_mul(factor)?.checked_mul(scale)?;
    let denominator = 10_i128.checked_pow(decimals)?.checked_mul(divisor)?;
    let rounded_up = numerator
        .checked_add(denominator - 1)?
        .div_euclid(denominator);
    i64::try_from(rounded_up).ok()
}

fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-')))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `"-1.50"` as -150 with two decimals.
fn decimal(number: &str) -> Option<(i128, u32)> {
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mantissa: i128 = all.parse().ok()?;
    Some((
        if negative { -mantissa } else { mantissa },
        u32::try_from(fraction.len()).ok()?,
    ))
}

/// Factor and divisor of a suffix.
fn multiplier(suffix: &str) -> Option<(i128, i128)> {
    let simple = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (1_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => return exponent(suffix),
    };
    Some(simple)
}

fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let digits = suffix.strip_prefix(['e', 'E'])?;
    let power: i32 = digits.parse().ok()?;
    let factor = 10_i128.checked_pow(power.unsigned_abs())?;
    Some(if power < 0 { (1, factor) } else { (factor, 1) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn q(text: &str) -> Quantity {
        Quantity(text.into())
    }

    #[test]
    fn cpu_is_counted_in_thousandths() {
        for (text, expected) in [
            ("100m", 100),
            ("0.1", 100),
            ("2", 2000),
            ("1.5", 1500),
            ("1u", 1),
            ("1e3m", 0),
        ] {
            let expected = (text != "1e3m").then_some(expected);
            assert_eq!(milli(&q(text)), expected, "{text}");
        }
    }

    #[test]
    fn memory_is_counted_in_bytes() {
        for (text, expected) in [
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("128974848", 128_974_848),
            ("1e3", 1000),
            ("1500m", 2),
        ] {
            assert_eq!(value(&q(text)), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "",
            "Mi",
            "1x",
            "1.2.3",
            "--1",
            "1e",
            "99999999999999999999E",
        ] {
            assert_eq!(value(&q(text)), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,40}") {
            let _ = (milli(&q(&text)), value(&q(&text)));
        }

        #[test]
        fn integers_are_themselves(n in 0_i64..1_000_000_000) {
            prop_assert_eq!(value(&q(&n.to_string())), Some(n));
            prop_assert_eq!(milli(&q(&format!("{n}m"))), Some(n));
        }
    }
}
