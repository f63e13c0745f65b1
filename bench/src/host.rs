//! What the figures were measured on.

use std::fs;

use serde::Serialize;

use crate::machine::command;

/// The machine, its kernel, the commit, and what else was going on.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    pub cpu: String,
    pub cpus: usize,
    pub memory_gib: u64,
    pub kernel: String,
    pub commit: String,
    /// Load averages of one minute, before and after. The bench itself loads two processors.
    pub load_before: f64,
    pub load_after: f64,
    pub time: String,
    pub command: String,
}

impl Host {
    /// What can be told before.
    pub fn new() -> Self {
        let say = |program: &str, arguments: &[&str]| {
            command(program, arguments, None)
                .map(|text| text.trim().to_owned())
                .unwrap_or_else(|_| "unknown".to_owned())
        };
        let changed = say("git", &["status", "--porcelain", "--untracked-files=no"]);
        let dirty = if changed.is_empty() { "" } else { " (changed)" };
        Self {
            cpu: field("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kilobytes("/proc/meminfo", "MemTotal") >> 20,
            kernel: say("uname", &["-r"]),
            commit: say("git", &["rev-parse", "--short=12", "HEAD"]) + dirty,
            load_before: load(),
            load_after: 0.0,
            time: say("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
            command: "bench ".to_owned() + &std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        }
    }

    /// To be told again at the end.
    pub fn ended(&mut self) {
        self.load_after = load();
    }
}

/// The load average of the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().unwrap_or_default()
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(|| "unknown".to_owned(), |(_, v)| v.trim().to_owned())
}

fn kilobytes(path: &str, name: &str) -> u64 {
    let text = field(path, name);
    let number = text.split(' ').next().unwrap_or_default();
    number.parse().unwrap_or_default()
}
