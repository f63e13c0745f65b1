//! Durations as Go writes them.

use std::time::Duration;

/// Reads a `metav1.Duration`: numbers with units, such as `24h0m0s`, `1.5s` or `250ms`. `None` for
/// anything else, and for negative ones.
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        total += number.parse::<f64>().ok()? * seconds(unit)?;
        rest = tail;
    }
    if text.is_empty() {
        None
    } else {
        Duration::try_from_secs_f64(total).ok()
    }
}

fn seconds(unit: &str) -> Option<f64> {
    match unit {
        "ns" => Some(1e-9),
        "us" | "µs" => Some(1e-6),
        "ms" => Some(1e-3),
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_writes_and_nothing_else() {
        for (text, millis) in [
            ("24h0m0s", 86_400_000),
            ("1.5s", 1500),
            ("250ms", 250),
            ("0s", 0),
            ("0", 0),
            ("1h30m", 5_400_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "1x", "1s2", "1..5s", "é"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
