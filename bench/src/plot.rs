//! Small bar charts in SVG.

use std::fmt::Write as _;

use crate::report::Results;
use crate::services::{Case, Side};
use crate::stats::Rounds;

/// Colours that are told apart without colour vision too (Okabe and Ito).
const COLOURS: [&str; 4] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7"];
const WIDTH: f64 = 860.0;
const LABEL: f64 = 270.0;
const BAR: f64 = 15.0;
const GAP: f64 = 5.0;
const HEAD: f64 = 56.0;

/// A bar: its label, its length, its colour's number.
struct Bar {
    label: String,
    value: f64,
    colour: usize,
}

/// All charts, by file name.
pub fn all(results: &Results) -> Vec<(String, String)> {
    let mut charts = Vec::new();
    if let Some(packets) = &results.packets {
        for family in ["IPv4", "IPv6"] {
            let bars = packet_bars(packets, family);
            let title = format!("XDP, {family}: nanoseconds per packet, net of an empty program");
            let name = format!("packets-{}.svg", family.to_lowercase());
            charts.push((name, chart(&title, "ns", &bars)));
        }
    }
    for (side, place) in [(Side::Inside, "pod"), (Side::Outside, "outside")] {
        let cases: Vec<_> = results.cases.iter().filter(|c| c.side == side).collect();
        if cases.is_empty() {
            continue;
        }
        for (what, unit, rounds) in MEASUREMENTS {
            let bars = case_bars(&cases, rounds);
            if !bars.is_empty() {
                let title = format!("From {place}: {what}");
                let name = format!("{place}-{}.svg", what.replace([' ', '/'], "-"));
                charts.push((name, chart(&title, unit, &bars)));
            }
        }
    }
    charts
}

type Measurement = (&'static str, &'static str, fn(&Case) -> &Rounds);

const MEASUREMENTS: [Measurement; 3] = [
    ("new connections per second", "/s", |case| &case.connections),
    ("requests per second on kept connections", "/s", |case| {
        &case.requests
    }),
    ("TCP throughput", "Gbit/s", |case| &case.gigabits),
];

fn packet_bars(report: &crate::packets::Report, family: &str) -> Vec<Bar> {
    let of_family = report.measured.iter().filter(|one| one.family == family);
    let mut bars: Vec<_> = of_family
        .enumerate()
        .flat_map(|(i, measured)| {
            measured.net.iter().map(move |(path, nanos)| Bar {
                label: format!("{path}, {} Services", measured.services),
                value: *nanos,
                colour: i,
            })
        })
        .collect();
    bars.sort_by(|a, b| path_of(&a.label).cmp(path_of(&b.label)));
    bars
}

fn path_of(label: &str) -> &str {
    label.rsplit_once(", ").map_or(label, |(path, _)| path)
}

fn case_bars(cases: &[&Case], rounds: fn(&Case) -> &Rounds) -> Vec<Bar> {
    let bar = |case: &&Case| Bar {
        label: format!("{}, {} Services", case.balancer.name(), case.services),
        value: rounds(case).median(),
        colour: case.balancer as usize,
    };
    cases
        .iter()
        .filter(|case| !rounds(case).0.is_empty())
        .map(bar)
        .collect()
}

fn chart(title: &str, unit: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(|bar| bar.value).fold(1e-9, f64::max);
    let height = HEAD + bars.len() as f64 * (BAR + GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"12\" y=\"28\" font-size=\"16\">{title}</text>\n"
    );
    for (i, bar) in bars.iter().enumerate() {
        let y = HEAD - 8.0 + i as f64 * (BAR + GAP);
        let text = y + BAR - 3.0;
        let length = (bar.value.max(0.0) / most * (WIDTH - LABEL - 110.0)).max(1.0);
        let colour = COLOURS[bar.colour % COLOURS.len()];
        let (label_at, value_at) = (LABEL - 8.0, LABEL + length + 6.0);
        let _ = writeln!(
            svg,
            "<text x=\"{label_at}\" y=\"{text}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LABEL}\" y=\"{y}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{colour}\"/>\
             <text x=\"{value_at:.1}\" y=\"{text}\">{}</text>",
            bar.label,
            figure(bar.value, unit)
        );
    }
    svg + "</svg>\n"
}

fn figure(value: f64, unit: &str) -> String {
    match value {
        big if big >= 1000.0 => format!("{big:.0} {unit}"),
        small => format!("{small:.1} {unit}"),
    }
}
