//! Requests from a pod, from a node, or from outside, by the load generator of the example.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::kubectl::Kubectl;

/// What a run counted.
#[derive(Debug, Default)]
pub struct Report {
    /// Answered and failed ones.
    pub requests: u64,
    /// Failed ones.
    pub failed: u64,
    /// Answers by pod.
    pub backends: BTreeMap<String, u64>,
    /// Failures by reason, as JSON.
    pub failures: String,
}

impl Report {
    fn parse(text: &str) -> Result<Self> {
        // A continuous run prints intervals first; the last line is the sum.
        let line = text
            .lines()
            .rfind(|line| line.starts_with('{'))
            .unwrap_or_default();
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("not a report: {text}"))?;
        let count = |key: &str| value[key].as_u64().unwrap_or(0);
        let backends = value["backends"].as_object().into_iter().flatten();
        Ok(Self {
            requests: count("requests"),
            failed: count("failed"),
            backends: backends
                .map(|(pod, count)| (pod.clone(), count.as_u64().unwrap_or(0)))
                .collect(),
            failures: value["failures"].to_string(),
        })
    }

    /// Fails unless there were requests and every one was answered.
    pub fn all_answered(&self) -> Result<()> {
        ensure!(self.requests > 0, "no request was sent");
        ensure!(
            self.failed == 0,
            "{} of {} requests failed: {}",
            self.failed,
            self.requests,
            self.failures
        );
        Ok(())
    }

    /// Fails unless all requests were answered, and each by one of these many backends, all of them at work.
    pub fn spread_over(&self, backends: usize) -> Result<()> {
        self.all_answered()?;
        ensure!(
            self.backends.len() == backends,
            "{backends} backends were expected to answer, not {:?}",
            self.backends
        );
        Ok(())
    }
}

/// Sends `requests` from a pod whose image is the example's.
pub fn from_pod(kubectl: &Kubectl, pod: &str, url: &str, requests: u32) -> Result<Report> {
    let requests = requests.to_string();
    let words = ["/echo", "load", url, "--json", "--requests", &requests];
    Report::parse(&kubectl.exec(pod, &words)?)
}

/// The body of one answer, asked for by a pod.
pub fn body_in_pod(kubectl: &Kubectl, pod: &str, url: &str) -> Result<String> {
    kubectl.exec(pod, &["/echo", "get", url])
}

/// Sends `requests` from a machine: `client` is outside the cluster, a node's processes are subject to its hooks.
pub fn from_machine(cluster: &Cluster, machine: &str, url: &str, requests: u32) -> Result<Report> {
    let requests = requests.to_string();
    let output = on_machine(
        cluster,
        machine,
        &["load", url, "--json", "--requests", &requests],
    )?;
    Report::parse(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The body of one answer, asked for by a machine.
pub fn body_on_machine(cluster: &Cluster, machine: &str, url: &str) -> Result<String> {
    crate::cluster::succeeded(&on_machine(cluster, machine, &["get", url])?)
}

fn on_machine(cluster: &Cluster, machine: &str, words: &[&str]) -> Result<Output> {
    let mut command = machine_command(cluster, machine)?;
    command.args(words);
    within(&cluster.namespace(machine), move || command.output())?.context("cannot run echo")
}

/// The generator as a process of that machine: a node's belong to the node's cgroup.
fn machine_command(cluster: &Cluster, machine: &str) -> Result<Command> {
    if !machine.starts_with("node") {
        return Ok(Command::new(cluster.echo()));
    }
    let cgroup = cgroup2()?
        .join(&cluster.name)
        .join(machine)
        .join("system/cgroup.procs");
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", r#"echo 0 >"$0" && exec "$@""#])
        .arg(cgroup)
        .arg(cluster.echo());
    Ok(command)
}

/// Where version 2 of the control groups is mounted.
pub fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts")?;
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let target = line.and_then(|line| line.split(' ').nth(1));
    target.map(PathBuf::from).context("cgroup2 is not mounted")
}

/// Runs `work` on a thread inside a named network namespace.
pub fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let file = File::open(Path::new("/run/netns").join(namespace))
        .with_context(|| format!("network namespace {namespace}"))?;
    thread::scope(|scope| {
        let inside = scope.spawn(move || -> nix::Result<T> {
            setns(&file, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        });
        let outcome = inside.join().map_err(|_| anyhow!("a worker panicked"))?;
        outcome.context("cannot enter the network namespace")
    })
}

/// Requests that go on while something else happens.
pub struct Background {
    child: Child,
    output: Option<thread::JoinHandle<String>>,
}

impl Background {
    /// From a machine, without end.
    pub fn from_machine(
        cluster: &Cluster,
        machine: &str,
        url: &str,
        options: &[&str],
    ) -> Result<Self> {
        let mut command = machine_command(cluster, machine)?;
        command
            .args(["load", url, "--continuous", "--duration-ms", "600000"])
            .args(options);
        let child = within(&cluster.namespace(machine), move || Self::spawn(command))??;
        Ok(child)
    }

    /// From a pod, without end.
    pub fn from_pod(kubectl: &Kubectl, pod: &str, url: &str, options: &[&str]) -> Result<Self> {
        let mut command = kubectl.command(&format!("exec {pod}"));
        command
            .args([
                "--",
                "/echo",
                "load",
                url,
                "--continuous",
                "--duration-ms",
                "600000",
            ])
            .args(options);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdout = child.stdout.take().context("no standard output")?;
        let read = move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            text
        };
        Ok(Self {
            child,
            output: Some(thread::spawn(read)),
        })
    }

    /// Ends it and adds its intervals up.
    pub fn stop(mut self) -> Result<Report> {
        self.end();
        let text = self.output.take().and_then(|output| output.join().ok());
        sum(&text.unwrap_or_default())
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end();
    }
}

fn sum(text: &str) -> Result<Report> {
    let mut total = Report::default();
    let mut failures = Vec::new();
    // The last line may have been cut off by the end.
    for interval in text.lines().map_while(|line| Report::parse(line).ok()) {
        total.requests += interval.requests;
        total.failed += interval.failed;
        for (pod, count) in interval.backends {
            *total.backends.entry(pod).or_default() += count;
        }
        if interval.failed > 0 {
            failures.push(interval.failures);
        }
    }
    if total.requests == 0 {
        bail!("the load generator sent nothing: {text}");
    }
    total.failures = failures.join(" ");
    Ok(total)
}

/// The example's server on a machine, outside any pod.
pub struct Server {
    child: Child,
    /// Its port.
    pub port: u16,
}

impl Server {
    /// Starts it and waits until it listens.
    pub fn start(cluster: &Cluster, machine: &str, port: u16) -> Result<Self> {
        let mut command = machine_command(cluster, machine)?;
        command.args(["serve", "--drain-ms", "0", "--port", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = within(&cluster.namespace(machine), move || command.spawn())??;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line)?;
        }
        let server = Self { child, port };
        ensure!(line.contains("serves on port"), "the server said {line:?}");
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
