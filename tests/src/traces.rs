//! What a cluster may leave behind, looked for by its name in every place where the kernel keeps such things.

use std::fs;
use std::path::{Path, PathBuf};

/// Every trace of the name: namespaces, mounts, cgroups, pins, directories, processes.
pub fn of(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    found
        .extend(entries("/run/netns", &format!("{name}-")).map(|path| format!("namespace {path}")));
    found.extend(mounts(name));
    found.extend(cgroups(name));
    for directory in ["/sys/fs/bpf", "/run/sluice", "/var/lib/sluice"] {
        found.extend(entries(directory, name).map(|path| format!("directory {path}")));
    }
    found.extend(processes(name));
    found
}

fn entries(directory: &str, prefix: &str) -> impl Iterator<Item = String> {
    let all = fs::read_dir(directory).into_iter().flatten().flatten();
    all.filter(move |entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path().display().to_string())
}

fn mounts(name: &str) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let ours = text
        .lines()
        .filter(|line| line.contains(&format!("/{name}")));
    ours.map(|line| format!("mount {line}")).collect()
}

fn cgroups(name: &str) -> Vec<String> {
    let text = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let roots = text.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let target = words.next()?;
        words
            .next()?
            .starts_with("cgroup")
            .then(|| Path::new(target).join(name))
    });
    let present: Vec<PathBuf> = roots.filter(|path| path.exists()).collect();
    present
        .iter()
        .map(|path| format!("cgroup {}", path.display()))
        .collect()
}

/// Processes in one of the cluster's cgroups, or with its directories on their command line.
fn processes(name: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = std::process::id().to_string();
    let suspicious = |directory: &Path| {
        let read = |file: &str| fs::read(directory.join(file)).unwrap_or_default();
        let cgroup = String::from_utf8_lossy(&read("cgroup")).contains(&format!(":/{name}/"));
        let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        (cgroup || line.contains(&format!("/sluice/{name}/"))).then_some(line)
    };
    all.filter(|entry| entry.file_name().to_string_lossy() != own)
        .filter_map(|entry| Some((entry.file_name(), suspicious(&entry.path())?)))
        .map(|(pid, line)| format!("process {} {line}", pid.to_string_lossy()))
        .collect()
}
