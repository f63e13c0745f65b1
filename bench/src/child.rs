//! The bench's own program, started again inside a namespace and a cgroup: a server, a client, an agent.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::machine::{self, Machine};
use crate::traffic::{Load, Mode};

/// Where a child runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Network namespace
    #[arg(long)]
    netns: PathBuf,
    /// cgroup2 directory
    #[arg(long)]
    cgroup: Option<PathBuf>,
}

impl Place {
    /// Puts this process there.
    pub fn enter(&self) -> Result<()> {
        if let Some(cgroup) = &self.cgroup {
            let path = cgroup.join("cgroup.procs");
            std::fs::write(&path, std::process::id().to_string())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        machine::enter(&self.netns)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = again(name);
        command.arg("--netns").arg(&self.netns);
        if let Some(cgroup) = &self.cgroup {
            command.arg("--cgroup").arg(cgroup);
        }
        command
    }
}

/// A place on a machine.
pub fn place(machine: &Machine, cgroup: Option<&Path>) -> Place {
    Place {
        netns: machine.path(),
        cgroup: cgroup.map(Path::to_owned),
    }
}

/// This program with another subcommand; ends with its parent.
pub fn again(name: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(name);
    // SAFETY: prctl may be called between fork and exec, and takes integers.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command
}

/// A child that is killed at the end.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that listens.
pub fn serve(machine: &Machine, address: SocketAddr) -> Result<Running> {
    let mut command = place(machine, None).command("serve");
    let child = command
        .arg("--address")
        .arg(address.to_string())
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start a server")?;
    let running = Running(child);
    wait_for("the server", || {
        let probe = SocketAddr::from(([127, 0, 0, 1], address.port()));
        machine.run(|| std::net::TcpStream::connect(probe).is_ok())
    })?;
    Ok(running)
}

/// Polls until it is so, for some seconds.
pub fn wait_for(what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !so()? {
        ensure!(Instant::now() < deadline, "{what} does not come up");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Runs a client for a while.
pub fn load(place: &Place, mode: Mode, targets: &[SocketAddr], time: Duration) -> Result<Load> {
    let mut command = place.command("load");
    let mode = format!("{mode:?}").to_lowercase();
    command.args(["--mode", &mode, "--millis", &time.as_millis().to_string()]);
    for target in targets {
        command.args(["--target", &target.to_string()]);
    }
    let output = command.output().context("cannot start a client")?;
    if !output.status.success() {
        bail!("client: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("the client's answer")
}

/// Runs a subcommand in a place; what it printed.
pub fn run(place: &Place, name: &str, arguments: &[String]) -> Result<String> {
    let mut command = place.command(name);
    let output = command
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    ensure!(
        output.status.success(),
        "{name} ended with {}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}
