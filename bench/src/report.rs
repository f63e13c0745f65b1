//! All results: one table for people, JSON for everything else.

use std::fmt::Write as _;

use serde::Serialize;

use crate::agent;
use crate::host::Host;
use crate::packets;
use crate::services::{Balancer, Case, Side};
use crate::spread::Moved;
use crate::stats::Rounds;

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    pub host: Host,
    pub quick: bool,
    pub packets: Option<packets::Report>,
    pub cases: Vec<Case>,
    pub agents: Vec<agent::Report>,
    pub moved: Moved,
}

/// A line of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    pub what: String,
    pub services: String,
    pub value: String,
    /// Beside what it is compared with.
    pub ratio: String,
    pub target: String,
    pub verdict: String,
}

/// What a value should be.
#[derive(Clone, Copy, Debug)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("<= {limit}"),
            Self::AtLeast(limit) => format!(">= {limit}"),
        }
    }

    /// "reached", or by how much it is not.
    fn verdict(self, value: f64) -> String {
        let (missed, limit) = match self {
            Self::AtMost(limit) => (value > limit, limit),
            Self::AtLeast(limit) => (value < limit, limit),
        };
        if !missed {
            return "reached".to_owned();
        }
        format!("missed by {:.0}%", (value - limit).abs() / limit * 100.0)
    }
}

impl Row {
    fn new(what: impl Into<String>, services: u32, value: String) -> Self {
        Self {
            what: what.into(),
            services: thousands(services),
            value,
            ..Self::default()
        }
    }

    fn ratio(mut self, ratio: f64, to: &str) -> Self {
        self.ratio = format!("{ratio:.2} of {to}");
        self
    }

    fn target(mut self, target: Target, value: f64) -> Self {
        self.target = target.text();
        self.verdict = target.verdict(value);
        self
    }
}

/// The table, and beside it what it was measured on.
pub fn text(results: &Results) -> String {
    let host = &results.host;
    let mut text = format!(
        "{}, {} CPUs, {} GiB, Linux {}, commit {}, {}\nload {:.2} before, {:.2} after{}\n\n",
        host.cpu,
        host.cpus,
        host.memory_gib,
        host.kernel,
        host.commit,
        host.time,
        host.load_before,
        host.load_after,
        if results.quick { "; --quick" } else { "" },
    );
    text += &table(&rows(results));
    if let Some(packets) = &results.packets {
        text += &programs(packets);
    }
    text
}

/// All lines.
fn rows(results: &Results) -> Vec<Row> {
    let mut rows = Vec::new();
    if let Some(packets) = &results.packets {
        packet_rows(packets, &mut rows);
    }
    for side in [Side::Inside, Side::Outside] {
        service_rows(&results.cases, side, &mut rows);
    }
    for agent in &results.agents {
        agent_rows(agent, &mut rows);
    }
    let moved = &results.moved;
    rows.push(
        Row::new(
            format!(
                "1 of {} backends leaves: others' flows moved, worst",
                moved.backends
            ),
            1,
            format!("{:.2} %", moved.worst * 100.0),
        )
        .target(Target::AtMost(2.0), moved.worst * 100.0),
    );
    rows
}

/// What a path may cost, in nanoseconds.
fn packet_target(family: &str, path: &str) -> Option<Target> {
    match (family, path) {
        ("IPv4", "DNAT, known, one flow" | "SNAT, known, 240 flows") => Some(Target::AtMost(60.0)),
        (
            "IPv4",
            "DNAT, new, reopened" | "DNAT, new, same Services" | "SNAT, new, same Services",
        ) => Some(Target::AtMost(80.0)),
        _ => None,
    }
}

fn packet_rows(report: &packets::Report, rows: &mut Vec<Row>) {
    for measured in &report.measured {
        let services = measured.services;
        let fewest = report
            .measured
            .iter()
            .find(|one| one.family == measured.family);
        let empty = [
            ("walk", measured.empty_walk),
            ("long", measured.empty_long),
            ("once", measured.empty_once),
        ];
        for (how, nanos) in empty {
            let what = format!("{} empty program, {how}", measured.family);
            rows.push(Row::new(what, services, format!("{nanos:.1} ns")));
        }
        let what = format!(
            "{} reference: one insertion into an LRU table",
            measured.family
        );
        let insertion = format!("{:.1} ns net", measured.insertion);
        rows.push(Row::new(what, services, insertion));
        for (path, nanos) in &measured.net {
            let what = format!("{} {path}", measured.family);
            let mut row = Row::new(what, services, format!("{nanos:.1} ns net"));
            if let Some(first) = fewest.and_then(|one| one.net.get(path)) {
                let at = format!("that at {}", thousands(report.measured[0].services));
                row = row.ratio(nanos / first, &at);
            }
            if let Some(target) = packet_target(measured.family, path) {
                row = row.target(target, *nanos);
            }
            rows.push(row);
        }
    }
}

fn service_rows(cases: &[Case], side: Side, rows: &mut Vec<Row>) {
    let cases: Vec<_> = cases.iter().filter(|case| case.side == side).collect();
    let Some(direct) = cases.iter().find(|case| case.balancer == Balancer::Direct) else {
        return;
    };
    let place = match side {
        Side::Inside => "pod",
        Side::Outside => "outside",
    };
    for (name, direct) in direct.measurements() {
        for case in &cases {
            let found = case.measurements().find(|(other, _)| *other == name);
            let Some((_, rounds)) = found else {
                continue;
            };
            let what = format!("{place} {name}, {}", case.balancer.name());
            let ratio = rounds.median() / direct.median();
            let row = Row::new(what, case.services, with_spread(rounds));
            let row = match case.balancer {
                Balancer::Direct => row,
                _ => row.ratio(ratio, "direct"),
            };
            rows.push(match service_target(side, case.balancer, name) {
                Some(target) => row.target(target, ratio),
                None => row,
            });
        }
    }
    for case in cases {
        let what = format!("{place} failed requests, {}", case.balancer.name());
        if case.errors > 0 {
            rows.push(Row::new(what, case.services, case.errors.to_string()));
        }
    }
}

fn service_target(side: Side, balancer: Balancer, name: &str) -> Option<Target> {
    match (side, balancer, name) {
        (Side::Inside, Balancer::Sluice, "new connections/s") => Some(Target::AtLeast(0.95)),
        (Side::Inside, Balancer::Sluice, "kept requests/s" | "TCP Gbit/s") => {
            Some(Target::AtLeast(0.99))
        }
        _ => None,
    }
}

fn agent_rows(agent: &agent::Report, rows: &mut Vec<Row>) {
    let large = agent.services >= 10_000;
    let mut push = |what: &str, value: f64, unit: &str, limit: Option<f64>| {
        let row = Row::new(
            format!("agent: {what}"),
            agent.services,
            format!("{value:.2} {unit}"),
        );
        rows.push(match limit.filter(|_| large) {
            Some(limit) => row.target(Target::AtMost(limit), value),
            None => row,
        });
    };
    push("start to first full sync", agent.start_s, "s", Some(2.0));
    push(
        "of that, planning and writing maps",
        agent.write_s,
        "s",
        None,
    );
    push("restart to full sync", agent.restart_s, "s", None);
    let [map, connection] = agent.latencies();
    for (what, [p50, p99, most], limit) in [
        ("event to map", map, 5.0),
        ("event to connection", connection, 20.0),
    ] {
        push(&format!("{what}, p50"), p50, "ms", None);
        push(&format!("{what}, p99"), p99, "ms", Some(limit));
        push(&format!("{what}, max"), most, "ms", None);
    }
    push("CPU per update", agent.cpu_per_update_ms, "ms", Some(1.0));
    push(
        "own memory (anonymous)",
        agent.anonymous_mb,
        "MiB",
        Some(120.0),
    );
    push("resident with mapped maps", agent.resident_mb, "MiB", None);
    push("kernel memory of maps", agent.map_megabytes(), "MB", None);
}

/// A median with a spread, in sensible units.
fn with_spread(rounds: &Rounds) -> String {
    let (median, spread) = (rounds.median(), rounds.spread() * 100.0);
    let value = match median {
        big if big >= 1000.0 => thousands(big as u32),
        small if small < 30.0 => format!("{small:.2}"),
        middle => format!("{middle:.1}"),
    };
    format!("{value} +-{spread:.0}%")
}

fn thousands(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn table(rows: &[Row]) -> String {
    let head = Row {
        what: "what".to_owned(),
        services: "Services".to_owned(),
        value: "value".to_owned(),
        ratio: "ratio".to_owned(),
        target: "target".to_owned(),
        verdict: "verdict".to_owned(),
    };
    let columns: [fn(&Row) -> &String; 6] = [
        |r| &r.what,
        |r| &r.services,
        |r| &r.value,
        |r| &r.ratio,
        |r| &r.target,
        |r| &r.verdict,
    ];
    let all: Vec<_> = std::iter::once(&head).chain(rows).collect();
    let width =
        |column: &fn(&Row) -> &String| all.iter().map(|row| column(row).len()).max().unwrap_or(0);
    let widths = columns.each_ref().map(width);
    let mut text = String::new();
    for row in all {
        let cells = columns.iter().zip(widths);
        let line: Vec<_> = cells
            .map(|(column, width)| format!("{:width$}", column(row)))
            .collect();
        let _ = writeln!(text, "{}", line.join("  ").trim_end());
    }
    text
}

fn programs(report: &packets::Report) -> String {
    let mut text =
        "\nprogram        instructions  walked by the verifier  machine code\n".to_owned();
    for one in &report.programs {
        let _ = writeln!(
            text,
            "{:14} {:12}  {:22}  {:6} bytes",
            one.hook, one.instructions, one.verified, one.machine_code
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_target_says_by_how_much() {
        assert_eq!(Target::AtMost(60.0).verdict(60.0), "reached");
        assert_eq!(Target::AtMost(60.0).verdict(90.0), "missed by 50%");
        assert_eq!(Target::AtLeast(0.95).verdict(0.855), "missed by 10%");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }
}
