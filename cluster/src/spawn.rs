//! Starting the cluster's processes: each in its machine's namespace and cgroup, in a session of its own
//! so that it outlives the terminal, with its output in a file and its identity in another.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::cgroups::{self, Hierarchies};
use crate::layout::{Layout, Machine};
use crate::pidfile::{Identity, PidFile};
use crate::{kill, logs, netns};

const GRACE: Duration = Duration::from_secs(5);

/// What to run, and where.
pub struct Part {
    /// Its name within the machine, such as `kubelet`.
    pub name: &'static str,
    /// The machine it runs on.
    pub machine: Machine,
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// A port of the host's loopback that it is handed as an open socket.
    pub host_port: Option<u16>,
}

impl Part {
    /// Its identity file.
    pub fn pid_file(&self, layout: &Layout) -> PidFile {
        pid_file(layout, self.machine, self.name)
    }

    /// Its output.
    pub fn log(&self, layout: &Layout) -> PathBuf {
        log(layout, self.machine, self.name)
    }

    /// Starts it unless it runs already in the machine's present namespace. True when it was started.
    pub fn ensure(&self, layout: &Layout, hierarchies: &Hierarchies) -> Result<bool> {
        let file = self.pid_file(layout);
        if let Some(identity) = file.running() {
            if self.is_at_home(layout, &identity) {
                return Ok(false);
            }
            kill::end(&identity, GRACE);
        }
        let identity = self
            .start(layout, hierarchies)
            .with_context(|| format!("cannot start {} on {}", self.name, self.machine.name()))?;
        file.write(&identity)?;
        Ok(true)
    }

    /// A namespace that was removed and made again is a different one.
    fn is_at_home(&self, layout: &Layout, identity: &Identity) -> bool {
        let home = netns::inode(&layout.namespace(self.machine));
        let present = fs::metadata(format!("/proc/{}/ns/net", identity.pid)).map(|meta| meta.ino());
        matches!((home, present), (Ok(home), Ok(present)) if home == present)
    }

    fn start(&self, layout: &Layout, hierarchies: &Hierarchies) -> Result<Identity> {
        let log = open_log(&self.log(layout))?;
        let mut command = self.command()?;
        command
            .stdout(log.try_clone()?)
            .stderr(log)
            .current_dir("/");
        settle(&mut command, layout, hierarchies, self.machine)?;
        // SAFETY: between fork and exec the closure makes one system call; it neither allocates nor locks.
        unsafe { command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        Identity::of(child.id() as i32)
            .map_err(|_| anyhow!("it ended at once; {}", logs::tail(&self.log(layout), 5)))
    }

    /// The command. A part with a host port gets it by the socket activation protocol (sd_listen_fds(3)):
    /// descriptor 3, and variables of which one holds the process's own number, which only the process
    /// itself can know before it becomes the program, hence the shell.
    fn command(&self) -> Result<Command> {
        let Some(port) = self.host_port else {
            let mut command = Command::new(&self.program);
            command.args(&self.arguments).stdin(Stdio::null());
            return Ok(command);
        };
        let listener = TcpListener::bind(("127.0.0.1", port))
            .with_context(|| format!("cannot listen on 127.0.0.1:{port}"))?;
        let mut command = Command::new("/bin/sh");
        command
            .args([
                "-c",
                r#"exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@""#,
                "sh",
            ])
            .arg(&self.program)
            .args(&self.arguments)
            .stdin(OwnedFd::from(listener));
        Ok(command)
    }
}

/// The identity file of a part.
pub fn pid_file(layout: &Layout, machine: Machine, part: &str) -> PidFile {
    PidFile::new(layout.machine_run(machine).join(format!("{part}.pid")))
}

/// The log file of a part.
pub fn log(layout: &Layout, machine: Machine, part: &str) -> PathBuf {
    layout.logs().join(format!("{}-{part}.log", machine.name()))
}

/// Makes the command run on a machine: in its network namespace, and in its cgroup, where `sluice down`
/// finds it even if whoever started it was killed.
pub fn settle(
    command: &mut Command,
    layout: &Layout,
    hierarchies: &Hierarchies,
    machine: Machine,
) -> Result<()> {
    let namespace = netns::open(&layout.namespace(machine))?;
    let doors = hierarchies.doors(&layout.cgroup(machine).join(cgroups::SYSTEM))?;
    // SAFETY: between fork and exec the closure makes system calls only; it neither allocates nor locks.
    unsafe { command.pre_exec(move || enter(&namespace, &doors)) };
    Ok(())
}

fn enter(namespace: &File, doors: &[File]) -> io::Result<()> {
    for door in doors {
        // SAFETY: one byte from a constant to an open descriptor.
        if unsafe { libc::write(door.as_raw_fd(), c"0".as_ptr().cast(), 1) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?)
}

fn open_log(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}
