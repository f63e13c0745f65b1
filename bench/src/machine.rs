//! Network namespaces, cgroups and pins: everything on this machine that the bench makes, and its removal.
//!
//! All names begin with a prefix that holds the process's number, so that leftovers are found by name, also
//! those of a run that was killed.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use sluice_proxy::loader;

const PREFIX: &str = "slbench";
const NETNS_DIR: &str = "/run/netns";
const BPFFS: &str = "/sys/fs/bpf";

/// The beginning of all names of the run whose supervisor has this process number.
pub fn prefix(pid: u32) -> String {
    format!("{PREFIX}{pid}")
}

/// A network namespace with a name.
#[derive(Clone, Debug)]
pub struct Machine {
    pub name: String,
}

impl Machine {
    /// Makes one, with its loopback up and forwarding on.
    pub fn new(prefix: &str, name: &str) -> Result<Self> {
        let machine = Self {
            name: format!("{prefix}-{name}"),
        };
        command("ip", &["netns", "add", &machine.name], None)?;
        machine.ip("link set lo up")?;
        for name in [
            "ipv4/ip_forward",
            "ipv6/conf/all/forwarding",
            "ipv6/conf/default/forwarding",
        ] {
            machine.sysctl(name, "1")?;
        }
        Ok(machine)
    }

    /// The namespace's file.
    pub fn path(&self) -> PathBuf {
        Path::new(NETNS_DIR).join(&self.name)
    }

    /// Runs `ip` with these arguments in it.
    pub fn ip(&self, arguments: &str) -> Result<()> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments.split_whitespace());
        command("ip", &all, None).map(drop)
    }

    /// Runs a program in it, with `input`.
    pub fn command(&self, program: &str, arguments: &str, input: Option<&str>) -> Result<String> {
        let netns = format!("--net={}", self.path().display());
        let mut all = vec![netns.as_str(), program];
        all.extend(arguments.split_whitespace());
        command("nsenter", &all, input)
    }

    /// Writes a file under /proc/sys/net.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{name}");
        self.run(|| fs::write(&path, value).with_context(|| format!("cannot write {path}")))?
    }

    /// Runs `f` on a thread in it.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> Result<R> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| enter(&self.path()).map(|()| f()));
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// A veth pair whose ends are `name` here and `peer_name` there.
    pub fn cable(&self, name: &str, peer: &Self, peer_name: &str) -> Result<()> {
        let other = &peer.name;
        self.ip(&format!(
            "link add {name} type veth peer name {peer_name} netns {other}"
        ))?;
        self.ip(&format!("link set {name} up"))?;
        peer.ip(&format!("link set {peer_name} up"))
    }
}

/// Puts this thread into a network namespace.
pub fn enter(netns: &Path) -> Result<()> {
    let file = File::open(netns).with_context(|| format!("cannot open {}", netns.display()))?;
    // SAFETY: takes integers; only this thread moves.
    let result = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    ensure!(result == 0, "setns: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Where cgroup2 is mounted.
pub fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    let found = mounts.lines().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        (fields.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(fields[1]))
    });
    found.context("no cgroup2 hierarchy is mounted; mount one: mount -t cgroup2 none DIR")
}

/// Makes a cgroup.
pub fn cgroup(prefix: &str, name: &str) -> Result<PathBuf> {
    let path = cgroup2()?.join(format!("{prefix}-{name}"));
    fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

/// A directory for pins, which the loader makes.
pub fn pins(prefix: &str, name: &str) -> PathBuf {
    Path::new(BPFFS).join(format!("{prefix}-{name}"))
}

/// Runs a program to its end; what it printed, or an error with what it complained of.
pub fn command(program: &str, arguments: &[&str], input: Option<&str>) -> Result<String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // A program that ends early says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        let first: Vec<_> = errors.lines().take(3).collect();
        bail!("{program} {}: {}", arguments.join(" "), first.join("; "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Removes everything whose name begins so, and says what could not be.
pub fn remove_all(prefix: &str) {
    let begins = format!("{prefix}-");
    // Links first: what is attached to a namespace's interface or to a cgroup lets go of it.
    for path in entries(Path::new(BPFFS), &begins) {
        let done = if path.is_dir() {
            loader::cleanup(&path).map_err(anyhow::Error::from)
        } else {
            fs::remove_file(&path).map_err(anyhow::Error::from)
        };
        complain(&path, done);
    }
    for path in entries(Path::new(NETNS_DIR), &begins) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        complain(
            &path,
            command("ip", &["netns", "delete", &name], None).map(drop),
        );
    }
    let groups = cgroup2().map(|root| entries(&root, &begins));
    for path in groups.unwrap_or_default() {
        complain(&path, remove_cgroup(&path));
    }
}

/// Removes what runs have left whose process is gone.
pub fn remove_leftovers() {
    let groups = cgroup2().unwrap_or_default();
    for dir in [Path::new(BPFFS), Path::new(NETNS_DIR), &groups] {
        for path in entries(dir, PREFIX) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let pid = name[PREFIX.len()..].split('-').next().unwrap_or_default();
            if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
                remove_all(&format!("{PREFIX}{pid}"));
            }
        }
    }
}

/// Processes leave their cgroup a moment after they were killed.
fn remove_cgroup(path: &Path) -> Result<()> {
    let mut result = Ok(());
    for _ in 0..100 {
        result = fs::remove_dir(path);
        if result.is_ok() || !path.exists() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(result?)
}

fn entries(dir: &Path, begins: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).into_iter().flatten().flatten();
    all.filter(|entry| entry.file_name().to_string_lossy().starts_with(begins))
        .map(|entry| entry.path())
        .collect()
}

fn complain(path: &Path, result: Result<()>) {
    if let Err(error) = result {
        eprintln!("bench: cannot remove {}: {error:#}", path.display());
    }
}
