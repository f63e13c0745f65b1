//! What the machine is: CPUs, memory, disk, kernel, ids. Read from /proc, /sys and /etc.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// CPUs that processes may run on.
    pub cpus: u64,
    /// Memory in bytes.
    pub memory: u64,
    /// Bytes of the file system that holds the kubelet's root directory.
    pub disk: u64,
    /// `uname -r`.
    pub kernel: String,
    /// `PRETTY_NAME` of the distribution.
    pub os_image: String,
    /// /etc/machine-id.
    pub machine_id: String,
    /// The DMI product UUID, or the machine id where there is none.
    pub system_uuid: String,
    /// Changes with every boot.
    pub boot_id: String,
    /// In Go's words: `amd64`, `arm64`, ...
    pub architecture: String,
}

impl Machine {
    /// Reads all facts; what can't be read is empty or zero.
    pub fn read(root_dir: &Path) -> Self {
        let text = |path: &str| {
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let machine_id = text("/etc/machine-id");
        let uuid = text("/sys/class/dmi/id/product_uuid");
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64),
            memory: memory(&text("/proc/meminfo")).unwrap_or_default(),
            disk: disk(root_dir),
            kernel: text("/proc/sys/kernel/osrelease"),
            os_image: pretty_name(&text("/etc/os-release")).unwrap_or_else(|| "Linux".into()),
            system_uuid: if uuid.is_empty() {
                machine_id.clone()
            } else {
                uuid
            },
            machine_id,
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            architecture: architecture(std::env::consts::ARCH).into(),
        }
    }
}

/// What the machine is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Less than 100 MiB of memory are available (upstream's `memory.available`).
    pub memory: bool,
    /// Less than a tenth of the root directory's file system is free, and less than 1 GiB: a tenth of a large disk
    /// is not short.
    pub disk: bool,
    /// More than nine tenths of all process ids are in use.
    pub pids: bool,
}

impl Pressure {
    /// Looks at the machine; what can't be read is not short.
    pub fn read(root_dir: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let available = meminfo(&text("/proc/meminfo"), "MemAvailable:");
        let tasks = tasks(&text("/proc/loadavg"));
        let most = text("/proc/sys/kernel/pid_max").trim().parse::<u64>().ok();
        Self {
            memory: available.is_some_and(|bytes| bytes < 100 << 20),
            disk: disk_is_short(root_dir),
            pids: tasks
                .zip(most)
                .is_some_and(|(tasks, most)| tasks * 10 > most * 9),
        }
    }
}

/// The fourth field of /proc/loadavg is `running/all`.
fn tasks(loadavg: &str) -> Option<u64> {
    loadavg
        .split_whitespace()
        .nth(3)?
        .split_once('/')?
        .1
        .parse()
        .ok()
}

fn disk_is_short(path: &Path) -> bool {
    let short = |stat: nix::sys::statvfs::Statvfs| {
        let free = stat.blocks_available() * stat.fragment_size();
        stat.blocks_available() < stat.blocks() / 10 && free < 1 << 30
    };
    statvfs(path).is_ok_and(short)
}

fn memory(text: &str) -> Option<u64> {
    meminfo(text, "MemTotal:")
}

/// A field of /proc/meminfo in bytes.
fn meminfo(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kilobytes| kilobytes * 1024)
}

fn disk(path: &Path) -> u64 {
    statvfs(path)
        .map(|stat| stat.blocks() * stat.fragment_size())
        .unwrap_or_default()
}

fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches('"').to_owned())
}

fn architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cpus_memory_and_disk() {
        let machine = Machine::read(Path::new("/"));
        assert!(
            machine.cpus > 0 && machine.memory > 0 && machine.disk > 0,
            "{machine:?}"
        );
        assert!(!machine.kernel.is_empty() && !machine.boot_id.is_empty());
    }

    #[test]
    fn files_are_parsed() {
        assert_eq!(
            memory("MemTotal:       1024 kB\nMemFree: 1 kB"),
            Some(1 << 20)
        );
        assert_eq!(memory("nothing"), None);
        assert_eq!(tasks("0.00 0.01 0.05 1/234 999"), Some(234));
        assert_eq!(tasks("garbage"), None);
        assert_eq!(
            pretty_name("NAME=x\nPRETTY_NAME=\"Debian 12\"\n").as_deref(),
            Some("Debian 12")
        );
        assert_eq!(architecture("x86_64"), "amd64");
    }
}
