//! What a run counted, for people as bars and for programs as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use crate::histogram::Histogram;

/// Answers by pod, failures by reason, latencies of the answers.
#[derive(Default)]
pub struct Report {
    backends: BTreeMap<String, u64>,
    failures: BTreeMap<String, u64>,
    latency: Histogram,
    /// How long the run took.
    pub seconds: f64,
}

impl Report {
    /// Counts an answer.
    pub fn succeeded(&mut self, pod: String, latency: Duration) {
        *self.backends.entry(pod).or_default() += 1;
        self.latency.record(latency);
    }

    /// Counts a failure.
    pub fn failure(&mut self, reason: String) {
        *self.failures.entry(reason).or_default() += 1;
    }

    /// Adds another report's counts.
    pub fn merge(&mut self, other: &Self) {
        add(&mut self.backends, &other.backends);
        add(&mut self.failures, &other.failures);
        self.latency.merge(&other.latency);
    }

    /// Number of failed requests.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    fn answered(&self) -> u64 {
        self.backends.values().sum()
    }

    /// One object on one line; latencies in microseconds.
    pub fn json(&self) -> String {
        format!(
            r#"{{"requests":{},"failed":{},"seconds":{:.3},"latencyMicros":{{"p50":{},"p90":{},"p99":{},"max":{}}},"backends":{},"failures":{}}}"#,
            self.answered() + self.failed(),
            self.failed(),
            self.seconds,
            self.latency.quantile(500),
            self.latency.quantile(900),
            self.latency.quantile(990),
            self.latency.max(),
            object(&self.backends),
            object(&self.failures),
        )
    }

    /// The same for one interval, with the time at its end since the start of the run.
    pub fn interval_json(&self, at: Duration) -> String {
        let json = self.json();
        format!(r#"{{"atMillis":{},{}"#, at.as_millis(), &json[1..])
    }

    /// Several lines with a bar for each pod.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{} requests in {:.2} s, {:.0} per second, {} failed\nlatency p50 {} us, p90 {} us, p99 {} us, max {} us\n",
            self.answered() + self.failed(),
            self.seconds,
            self.answered() as f64 / self.seconds.max(1e-9),
            self.failed(),
            self.latency.quantile(500),
            self.latency.quantile(900),
            self.latency.quantile(990),
            self.latency.max(),
        );
        let largest = self.backends.values().max().copied().unwrap_or(1).max(1);
        let width = self.backends.keys().map(String::len).max().unwrap_or(0);
        for (pod, count) in &self.backends {
            let bar = "#".repeat((count * 40 / largest) as usize);
            let _ = writeln!(text, "{pod:width$} {count:>7} {bar}");
        }
        for (reason, count) in &self.failures {
            let _ = writeln!(text, "failed: {reason}: {count}");
        }
        text.trim_end().to_string()
    }
}

fn add(mine: &mut BTreeMap<String, u64>, theirs: &BTreeMap<String, u64>) {
    for (key, count) in theirs {
        *mine.entry(key.clone()).or_default() += count;
    }
}

fn object(counts: &BTreeMap<String, u64>) -> String {
    let members: Vec<String> = counts
        .iter()
        .map(|(key, count)| format!("{}:{count}", quoted(key)))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// A JSON string (RFC 8259, section 7).
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if (control as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_counts_answers_and_failures() {
        let mut report = Report::default();
        report.succeeded("a".into(), Duration::from_micros(5));
        report.failure("said \"no\"\n".into());
        let json = report.json();
        assert!(json.contains(r#""requests":2,"failed":1"#), "{json}");
        assert!(json.contains(r#""backends":{"a":1}"#), "{json}");
        assert!(json.contains(r#"{"said \"no\"\u000a":1}"#), "{json}");
        let interval = report.interval_json(Duration::from_millis(7));
        assert!(
            interval.starts_with(r#"{"atMillis":7,"requests":2"#),
            "{interval}"
        );
    }
}
