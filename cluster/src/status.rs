//! A cluster's processes, nodes and pods, as a table or as JSON.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde::Serialize;

use crate::layout::{Layout, Machine};
use crate::parts::NODE_PARTS;
use crate::progress::say;
use crate::table::Table;
use crate::{client, netns, readiness, spawn};

const PROXY_HEALTH_PORT: u16 = 10256;
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    name: String,
    processes: Vec<Process>,
    nodes: Vec<NodeState>,
    pods: Vec<PodState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_error: Option<String>,
}

#[derive(Serialize)]
struct Process {
    machine: String,
    name: String,
    /// `None` when it does not run.
    pid: Option<i32>,
    log: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeState {
    name: String,
    ready: bool,
    pod_cidrs: Vec<String>,
    proxy: String,
}

#[derive(Serialize)]
struct PodState {
    namespace: String,
    name: String,
    ready: bool,
    phase: String,
    node: String,
    addresses: Vec<String>,
}

/// Prints the status.
pub async fn run(layout: &Layout, json: bool) -> Result<()> {
    if !layout.state().exists() {
        bail!(
            "there is no cluster {:?}: `sluice up` makes one",
            layout.name()
        );
    }
    let status = collect(layout).await;
    if json {
        say(&serde_json::to_string_pretty(&status)?);
    } else {
        print(&status);
    }
    Ok(())
}

async fn collect(layout: &Layout) -> Status {
    let asked = tokio::time::timeout(TIMEOUT, objects(layout)).await;
    let answer = asked.unwrap_or_else(|_| bail!("the API server does not answer"));
    let (objects, api_error) = match answer {
        Ok(objects) => (objects, None),
        Err(error) => (Default::default(), Some(format!("{error:#}"))),
    };
    Status {
        name: layout.name().into(),
        processes: processes(layout),
        nodes: objects
            .0
            .iter()
            .map(|node| node_state(layout, node))
            .collect(),
        pods: objects.1.iter().map(pod_state).collect(),
        api_error,
    }
}

async fn objects(layout: &Layout) -> Result<(Vec<Node>, Vec<Pod>)> {
    let client = client::connect(layout).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let pods: Api<Pod> = Api::all(client);
    let parameters = ListParams::default();
    let (nodes, pods) = tokio::try_join!(nodes.list(&parameters), pods.list(&parameters))?;
    Ok((nodes.items, pods.items))
}

fn processes(layout: &Layout) -> Vec<Process> {
    let nodes = Machine::nodes().flat_map(|node| NODE_PARTS.map(|part| (node, part)));
    let all = [(Machine::Master, "master")].into_iter().chain(nodes);
    all.map(|(machine, part)| Process {
        machine: machine.name(),
        name: part.into(),
        pid: spawn::pid_file(layout, machine, part)
            .running()
            .map(|identity| identity.pid),
        log: spawn::log(layout, machine, part).display().to_string(),
    })
    .collect()
}

fn node_state(layout: &Layout, node: &Node) -> NodeState {
    let name = node.name_any();
    NodeState {
        ready: readiness::node_is_ready(node),
        pod_cidrs: node
            .spec
            .as_ref()
            .and_then(|spec| spec.pod_cidrs.clone())
            .unwrap_or_default(),
        proxy: proxy_health(layout, &name),
        name,
    }
}

/// What the proxy says of itself, asked from inside its namespace.
fn proxy_health(layout: &Layout, name: &str) -> String {
    let Some(machine) = Machine::nodes().find(|machine| machine.name() == name) else {
        return "unknown".into();
    };
    let ask = || netns::within(&netns::open(&layout.namespace(machine))?, health_status);
    match ask() {
        Ok(Ok(status)) if status == "200" => "healthy".into(),
        Ok(Ok(status)) => format!("status {status}"),
        Ok(Err(error)) => error.to_string(),
        Err(error) => format!("{error:#}"),
    }
}

fn health_status() -> std::io::Result<String> {
    let address = (Ipv4Addr::LOCALHOST, PROXY_HEALTH_PORT).into();
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.split(' ').nth(1).unwrap_or("unreadable").to_string())
}

fn pod_state(pod: &Pod) -> PodState {
    let status = pod.status.clone().unwrap_or_default();
    let addresses = status.pod_ips.unwrap_or_default();
    PodState {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        ready: readiness::pod_is_ready(pod),
        phase: status.phase.unwrap_or_default(),
        node: pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default(),
        addresses: addresses.into_iter().map(|address| address.ip).collect(),
    }
}

fn print(status: &Status) {
    let mut processes = Table::new(&["MACHINE", "PROCESS", "PID", "LOG"]);
    for process in &status.processes {
        let pid = process
            .pid
            .map_or_else(|| "not running".into(), |pid| pid.to_string());
        processes.row([
            process.machine.clone(),
            process.name.clone(),
            pid,
            process.log.clone(),
        ]);
    }
    let mut nodes = Table::new(&["NODE", "READY", "POD-CIDRS", "PROXY"]);
    for node in &status.nodes {
        nodes.row([
            node.name.clone(),
            yes(node.ready),
            node.pod_cidrs.join(","),
            node.proxy.clone(),
        ]);
    }
    let mut pods = Table::new(&["NAMESPACE", "POD", "READY", "PHASE", "NODE", "ADDRESSES"]);
    for pod in &status.pods {
        let PodState {
            namespace,
            name,
            phase,
            node,
            ..
        } = pod;
        let cells = [
            namespace,
            name,
            &yes(pod.ready),
            phase,
            node,
            &pod.addresses.join(","),
        ];
        pods.row(cells.map(Clone::clone));
    }
    for table in [processes, nodes, pods] {
        say(&table.lines().join("\n"));
        println!();
    }
    if let Some(error) = &status.api_error {
        say(&format!("the API server can't be asked: {error}"));
    }
}

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.into()
}
