//! The spread of requests over backends, as bars.

use std::collections::BTreeMap;

use super::load::Report;
use crate::table::Table;

const WIDTH: u64 = 40;

/// One line per backend; `nodes` says where each pod runs.
pub fn lines(report: &Report, nodes: &BTreeMap<String, String>) -> Vec<String> {
    let largest = report.backends.values().max().copied().unwrap_or(0).max(1);
    let total: u64 = report.backends.values().sum::<u64>().max(1);
    let mut table = Table::new(&["BACKEND", "NODE", "REQUESTS", "SHARE", ""]);
    for (pod, count) in &report.backends {
        let node = nodes.get(pod).cloned().unwrap_or_default();
        let share = format!("{:.1}%", *count as f64 * 100.0 / total as f64);
        let bar = "#".repeat((count * WIDTH / largest) as usize);
        table.row([pod.clone(), node, count.to_string(), share, bar]);
    }
    table.lines()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_backend_has_the_longest_bar() {
        let backends = [("a".to_string(), 10), ("b".to_string(), 5)].into();
        let report = Report {
            backends,
            ..Report::default()
        };
        let lines = lines(&report, &[("a".to_string(), "node1".to_string())].into());
        assert!(lines[1].contains("node1") && lines[1].ends_with(&"#".repeat(40)));
        assert!(lines[2].contains("33.3%") && lines[2].ends_with(&format!(" {}", "#".repeat(20))));
    }
}
