//! A cluster of the tests' own: another name and another port than a user's, so that both can be up.

use std::env;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use crate::kubectl::{Kubectl, Version};

/// Names of the nodes.
pub const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// A running cluster; dropping it takes it down.
pub struct Cluster {
    /// Its name.
    pub name: String,
    sluice: PathBuf,
    echo: PathBuf,
    api_port: u16,
}

impl Cluster {
    /// A cluster that is not up yet, with a name that no other run uses.
    pub fn new(prefix: &str) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("these tests make namespaces and containers: run them as root");
        }
        let directory = build_directory()?;
        let sluice = env::var_os("SLUICE").map_or_else(|| directory.join("sluice"), PathBuf::from);
        let echo = directory.join("../static/release/echo");
        for (path, target) in [(&sluice, "build"), (&echo, "static")] {
            if !path.is_file() {
                bail!("{} is missing: `make {target}` builds it", path.display());
            }
        }
        Ok(Self {
            name: format!("{prefix}{}", std::process::id()),
            sluice,
            echo,
            api_port: free_port()?,
        })
    }

    /// Brings it up, or heals it.
    pub fn up(&self) -> Result<String> {
        let output = self.up_command().output()?;
        succeeded(&output).context("sluice up failed")
    }

    /// The command that brings it up, without the demonstration.
    pub fn up_command(&self) -> Command {
        let mut command = self.sluice("up");
        command.args(["--no-demo", "--api-port", &self.api_port.to_string()]);
        command
    }

    /// Takes it down.
    pub fn down(&self) -> Result<String> {
        let output = self.sluice("down").output()?;
        succeeded(&output).context("sluice down failed")
    }

    /// A command on this cluster.
    pub fn sluice(&self, command: &str) -> Command {
        let mut process = Command::new(&self.sluice);
        process.args([command, "--name", &self.name]);
        process
    }

    /// What `sluice status -o json` says.
    pub fn status(&self) -> Result<Value> {
        let output = self.sluice("status").args(["-o", "json"]).output()?;
        Ok(serde_json::from_str(&succeeded(&output)?)?)
    }

    /// The process of a part, such as node1's kubelet.
    pub fn pid_of(&self, machine: &str, part: &str) -> Result<i32> {
        let status = self.status()?;
        let mut all = status["processes"].as_array().into_iter().flatten();
        let found = all.find(|process| process["machine"] == machine && process["name"] == part);
        let pid = found.and_then(|process| process["pid"].as_i64());
        pid.map(|pid| pid as i32)
            .ok_or_else(|| anyhow!("{part} of {machine} does not run"))
    }

    /// kubectl with the administrator's credentials.
    pub fn kubectl(&self, version: Version) -> Kubectl {
        Kubectl::new(version, &self.state().join("admin.kubeconfig"))
    }

    /// The static binary that serves and loads.
    pub fn echo(&self) -> &Path {
        &self.echo
    }

    /// The name of a machine's network namespace.
    pub fn namespace(&self, machine: &str) -> String {
        format!("{}-{machine}", self.name)
    }

    /// The state directory.
    pub fn state(&self) -> PathBuf {
        Path::new("/var/lib/sluice").join(&self.name)
    }

    /// The last lines of every log file, for the report of a failed scenario.
    pub fn logs(&self) -> String {
        let directory = self.state().join("logs");
        let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut tails: Vec<String> = files.map(|file| tail(&file.path())).collect();
        tails.sort();
        tails.join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.down() {
            eprintln!("{error:#}");
        }
    }
}

/// Standard output of a command that succeeded, or its errors.
pub fn succeeded(output: &Output) -> Result<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    bail!(
        "{}: {}{}",
        output.status,
        text(&output.stderr),
        text(&output.stdout)
    )
}

/// The directory with the binaries: the parent of the test program's.
fn build_directory() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let directory = own.parent().and_then(Path::parent);
    directory
        .map(Path::to_path_buf)
        .context("the test program has no build directory")
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = &lines[lines.len().saturating_sub(12)..];
    format!("--- {}\n{}", path.display(), end.join("\n"))
}
