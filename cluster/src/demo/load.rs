//! The load generator of the example, run in a pod or in the outside machine's namespace.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, AttachParams};
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use crate::cgroups::Hierarchies;
use crate::layout::{Layout, Machine};
use crate::spawn;

/// After how long a request of a continuous load has failed.
pub const TIMEOUT_MILLIS: u64 = 1000;
/// The pod from which requests are sent.
pub const CLIENT_POD: &str = "client";

/// What the generator counted, in its own JSON.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Milliseconds since the start at which the interval ended; absent in a summary.
    pub at_millis: Option<u64>,
    /// Answered and failed ones.
    pub requests: u64,
    /// Failed ones.
    pub failed: u64,
    /// Length of the run or interval.
    pub seconds: f64,
    /// Quantiles.
    pub latency_micros: Latency,
    /// Answers by pod.
    pub backends: BTreeMap<String, u64>,
    /// Failures by reason.
    pub failures: BTreeMap<String, u64>,
}

/// Latencies in microseconds.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Latency {
    /// Median.
    pub p50: u64,
    /// 99th percentile.
    pub p99: u64,
}

impl Report {
    /// One line.
    pub fn summary(&self) -> String {
        let rate = self.requests as f64 / self.seconds.max(f64::EPSILON);
        format!(
            "{} requests, {} failed, {rate:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
            self.requests,
            self.failed,
            self.latency_micros.p50 as f64 / 1000.0,
            self.latency_micros.p99 as f64 / 1000.0,
        )
    }

    /// Why requests failed.
    pub fn reasons(&self) -> String {
        let reasons = self.failures.iter();
        let reasons: Vec<String> = reasons
            .map(|(reason, count)| format!("{reason} ({count})"))
            .collect();
        reasons.join(", ")
    }
}

/// An address and a port as a URL.
pub fn url(address: IpAddr, port: u16) -> String {
    format!("http://{}", SocketAddr::new(address, port))
}

/// Where load can come from.
pub struct Generator<'a> {
    /// The cluster.
    pub layout: &'a Layout,
    /// The administrator's client.
    pub client: &'a Client,
    /// The static binary.
    pub program: PathBuf,
    /// The control groups that the processes are put into.
    pub hierarchies: &'a Hierarchies,
}

impl Generator<'_> {
    /// Sends requests from the client pod.
    pub async fn in_pod(&self, url: &str, requests: u64) -> Result<Report> {
        let pods: Api<Pod> = Api::default_namespaced(self.client.clone());
        let requests = requests.to_string();
        let command = ["/echo", "load", url, "--json", "--requests", &requests];
        let parameters = AttachParams::default()
            .stdin(false)
            .stdout(true)
            .stderr(true);
        let mut process = pods.exec(CLIENT_POD, command, &parameters).await?;
        let mut output = String::new();
        let mut errors = String::new();
        let (mut stdout, mut stderr) = (process.stdout(), process.stderr());
        if let (Some(stdout), Some(stderr)) = (&mut stdout, &mut stderr) {
            tokio::try_join!(
                stdout.read_to_string(&mut output),
                stderr.read_to_string(&mut errors)
            )?;
        }
        serde_json::from_str(&output)
            .map_err(|_| anyhow!("the load generator in the pod said {:?}", output + &errors))
    }

    /// Sends requests from the machine outside the cluster.
    pub async fn outside(&self, url: &str, requests: u64) -> Result<Report> {
        let mut command = self.command()?;
        command.args(["load", url, "--json", "--requests", &requests.to_string()]);
        let output = tokio::task::block_in_place(|| command.output());
        let output = output.context("cannot run the load generator")?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            anyhow!(
                "the load generator said {:?}",
                String::from_utf8_lossy(&output.stderr)
            )
        })
    }

    /// Starts requests from outside that go on until the load is dropped.
    pub fn continuous(&self, url: &str) -> Result<Continuous> {
        let mut command = self.command()?;
        command
            .args(["load", url, "--continuous", "--duration-ms", "300000"])
            .args(["--timeout-ms", &TIMEOUT_MILLIS.to_string()])
            .args([
                "--interval-ms",
                "50",
                "--concurrency",
                "16",
                "--pause-ms",
                "10",
            ])
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot run the load generator")?;
        let Some(output) = child.stdout.take() else {
            bail!("the load generator has no output");
        };
        let lines = std::thread::spawn(move || read_intervals(output));
        Ok(Continuous {
            child,
            lines: Some(lines),
        })
    }
}

impl Generator<'_> {
    /// The generator as a process of the machine outside.
    fn command(&self) -> Result<Command> {
        let mut command = Command::new(&self.program);
        spawn::settle(&mut command, self.layout, self.hierarchies, Machine::Client)?;
        Ok(command)
    }
}

fn read_intervals(output: impl std::io::Read) -> Vec<Report> {
    let lines = BufReader::new(output).lines().map_while(Result::ok);
    lines
        .filter_map(|line| serde_json::from_str(&line).ok())
        .collect()
}

/// Load that goes on.
pub struct Continuous {
    child: Child,
    lines: Option<std::thread::JoinHandle<Vec<Report>>>,
}

impl Continuous {
    /// Ends it; one report per interval.
    pub fn stop(mut self) -> Vec<Report> {
        self.end();
        let lines = self.lines.take();
        lines
            .and_then(|lines| lines.join().ok())
            .unwrap_or_default()
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Continuous {
    fn drop(&mut self) {
        self.end();
    }
}
