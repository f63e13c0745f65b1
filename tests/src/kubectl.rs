//! kubectl as users run it, in the version of the machine and in the newest.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cluster::succeeded;

/// Which kubectl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The one on the search path.
    Installed,
    /// The one that `hack/newest-kubectl` fetched.
    Newest,
}

/// kubectl with a kubeconfig.
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// The program of that version.
    pub fn new(version: Version, kubeconfig: &Path) -> Self {
        let newest = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/kubectl/kubectl");
        let program = match version {
            Version::Installed => "kubectl".into(),
            Version::Newest => newest.into(),
        };
        Self {
            program,
            kubeconfig: kubeconfig.into(),
        }
    }

    /// A command with these blank-separated words.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(&self.program);
        // A cache per server address would hand one test's discovery to the next.
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .arg("--cache-dir")
            .arg(self.kubeconfig.with_file_name("kubectl-cache"))
            .args(words.split_whitespace());
        command
    }

    /// Standard output of a command that must succeed.
    pub fn run(&self, words: &str) -> Result<String> {
        let output = self.command(words).stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("cannot run {}", self.program.display()))?;
        succeeded(&output).with_context(|| format!("kubectl {words}"))
    }

    /// The same with the last argument given whole, blanks and all.
    pub fn run_with(&self, words: &str, last: &str) -> Result<String> {
        let output = self.command(words).arg(last).output()?;
        succeeded(&output).with_context(|| format!("kubectl {words} {last}"))
    }

    /// An object or a list as JSON.
    pub fn json(&self, words: &str) -> Result<Value> {
        Ok(serde_json::from_str(
            &self.run(&format!("{words} -o json"))?,
        )?)
    }

    /// Runs a command with a manifest as its input.
    pub fn feed(&self, words: &str, manifest: &str) -> Result<Output> {
        let mut child = self
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut input = child.stdin.take().context("no standard input")?;
        // A manifest in braces would be taken for JSON.
        let mark = if manifest.starts_with('{') {
            "---\n"
        } else {
            ""
        };
        input.write_all(format!("{mark}{manifest}").as_bytes())?;
        drop(input);
        Ok(child.wait_with_output()?)
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        succeeded(&self.feed("apply -f -", manifest)?).context("kubectl apply")
    }

    /// The complaint of a command that must fail.
    pub fn refused(&self, words: &str, manifest: &str) -> Result<String> {
        let output = self.feed(words, manifest)?;
        if output.status.success() {
            bail!("kubectl {words} was expected to fail");
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Runs a command in a pod.
    pub fn exec(&self, pod: &str, command: &[&str]) -> Result<String> {
        let words = format!("exec {pod} --");
        let output = self.command_before(&words, command).output()?;
        succeeded(&output).with_context(|| format!("kubectl {words} {}", command.join(" ")))
    }

    /// Words after `--` belong to somebody else: our own options go before them.
    fn command_before(&self, words: &str, rest: &[&str]) -> Command {
        let (ours, _) = words.rsplit_once("--").unwrap_or((words, ""));
        let mut command = self.command(ours);
        command.arg("--").args(rest);
        command
    }
}
