//! Logs, commands in containers, and forwarded ports: streams through API server, kubelet and runtime.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_tests::cluster::{Cluster, succeeded};
use sluice_tests::kubectl::{Kubectl, Version};

pub fn installed(cluster: &Cluster) -> Result<()> {
    all(&cluster.kubectl(Version::Installed), "shell-installed")
}

pub fn newest(cluster: &Cluster) -> Result<()> {
    all(&cluster.kubectl(Version::Newest), "shell-newest")
}

fn all(kubectl: &Kubectl, pod: &str) -> Result<()> {
    kubectl.apply(&shell_pod(pod))?;
    kubectl.run(&format!(
        "wait --for=condition=Ready pod/{pod} --timeout=60s"
    ))?;
    logs(kubectl, pod)?;
    commands(kubectl, pod)?;
    forwarded_port(kubectl)?;
    kubectl
        .run(&format!("delete pod {pod} --wait --timeout=60s"))
        .map(drop)
}

fn shell_pod(name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, \
         containers: [{{name: shell, image: 'sluice.local/busybox:1', \
         command: [sh, -c, 'echo first; echo second; exec sleep 3600']}}]}}}}"
    )
}

fn logs(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let text = kubectl.run(&format!("logs {pod}"))?;
    ensure!(text == "first\nsecond\n", "the log is {text:?}");
    let text = kubectl.run(&format!("logs {pod} --tail=1 --timestamps"))?;
    ensure!(
        text.ends_with(" second\n") && text.starts_with("20"),
        "the log is {text:?}"
    );
    let text = kubectl.run("logs deployment/front")?;
    ensure!(text.contains("serves on port 8080"), "the log is {text:?}");
    follow(kubectl, pod)
}

fn follow(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let mut child = kubectl
        .command(&format!("logs -f {pod}"))
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("no standard output")?;
    let lines: Vec<String> = BufReader::new(output)
        .lines()
        .take(2)
        .map_while(Result::ok)
        .collect();
    end(child)?;
    ensure!(
        lines == ["first", "second"],
        "the followed log is {lines:?}"
    );
    Ok(())
}

/// Output, input, exit codes, and a stream that is larger than any buffer on its way.
fn commands(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let text = kubectl.exec(pod, &["echo", "a b"])?;
    ensure!(text == "a b\n", "the command said {text:?}");
    let failed = kubectl
        .command(&format!("exec {pod}"))
        .args(["--", "sh", "-c", "exit 7"])
        .output()?;
    ensure!(
        failed.status.code() == Some(7),
        "the exit code is {:?}",
        failed.status.code()
    );
    let input = "x".repeat(300_000);
    let mut child = kubectl
        .command(&format!("exec -i {pod}"))
        .args(["--", "wc", "-c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child
        .stdin
        .take()
        .context("no standard input")?
        .write_all(input.as_bytes())?;
    let text = succeeded(&child.wait_with_output()?)?;
    ensure!(text.trim() == "300000", "the command counted {text:?}");
    let text = kubectl.exec(pod, &["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' y"])?;
    ensure!(text.len() == 300_000, "{} bytes came back", text.len());
    Ok(())
}

fn forwarded_port(kubectl: &Kubectl) -> Result<()> {
    let mut child = kubectl
        .command("port-forward pod/client :8080 --address 127.0.0.1")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("no standard output")?;
    let mut line = String::new();
    // Kept open: kubectl reports every connection here, and ends when nobody listens.
    let mut output = BufReader::new(output);
    output.read_line(&mut line)?;
    // "Forwarding from 127.0.0.1:PORT -> 8080"
    let address = line
        .split_whitespace()
        .nth(2)
        .unwrap_or_default()
        .to_string();
    let answers = (0..3).try_for_each(|_| ask(&address));
    end(child)?;
    answers.with_context(|| format!("through {line:?}"))
}

fn ask(address: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "the answer is {answer:?}"
    );
    Ok(())
}

fn end(mut child: Child) -> Result<()> {
    child.kill()?;
    child.wait()?;
    Ok(())
}
