//! The agent as a process, with an API server of the bench's own: how long it takes to write everything, how
//! long one change takes, and what it costs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sluice_common::{Be16, FrontendKey, Ipv4, Plain as _, names, proto};

use crate::api::Api;
use crate::child::{self, Running, wait_for};
use crate::machine::{self, Machine};
use crate::{bpf, stats};

const NODE: &str = "bench-node";
/// The node's own address, where the endpoints of the Service that changes are.
const HERE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 11);
const PORTS: [u16; 2] = [7001, 7002];
/// Number of the Service that changes.
const CHANGING: u32 = 1;
const ENDPOINTS: u32 = 10;
const HEALTHZ: u16 = 10_256;
const METRICS: u16 = 10_249;

/// What an agent showed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub services: u32,
    pub endpoints: u32,
    /// From the start of the process until everything is in new maps.
    pub start_s: f64,
    /// How much of it the agent planned and wrote the maps.
    pub write_s: f64,
    /// The same for a restart over maps that hold everything.
    pub restart_s: f64,
    /// From the API's write of an event until the frontend has changed in the map.
    pub to_map_ms: Vec<f64>,
    /// From the API's write of an event until a connection reaches the new endpoint.
    pub to_connection_ms: Vec<f64>,
    /// Processor time of the agent for an update.
    pub cpu_per_update_ms: f64,
    /// Memory of its own, and all that it has mapped.
    pub anonymous_mb: f64,
    pub resident_mb: f64,
    /// Kernel memory of its maps.
    pub maps: Vec<(String, u64)>,
}

/// Measures at a number of Services.
pub fn measure(prefix: &str, services: u32, updates: u32) -> Result<Report> {
    let prefix = format!("{prefix}-agent{services}");
    let machine = Machine::new(&prefix, "node")?;
    machine.ip("link add eth0 type veth peer name wire")?;
    machine.ip("link set eth0 up")?;
    machine.ip("link set wire up")?;
    machine.ip(&format!("address add {HERE}/24 dev eth0"))?;
    let group = machine::cgroup(&prefix, "node")?;
    let pins = machine::pins(&prefix, "node");
    let arguments = [
        format!("--services={services}"),
        format!("--updates={updates}"),
        format!("--pins={}", pins.display()),
        format!("--group={}", group.display()),
    ];
    let place = child::place(&machine, Some(&group));
    let result = child::run(&place, "agent-stand", &arguments);
    machine::remove_all(&prefix);
    serde_json::from_str(&result?).context("the stand's answer")
}

/// Arguments of the process that measures.
#[derive(Clone, Debug, clap::Args)]
pub struct Stand {
    #[command(flatten)]
    place: child::Place,
    #[arg(long)]
    services: u32,
    #[arg(long)]
    updates: u32,
    #[arg(long)]
    pins: PathBuf,
    #[arg(long)]
    group: PathBuf,
}

impl Stand {
    /// Measures, and prints what it found.
    pub fn run(&self) -> Result<()> {
        self.place.enter()?;
        for port in PORTS {
            answer(port)?;
        }
        let services: Vec<_> = (0..self.services).map(service).collect();
        let slices: Vec<_> = (0..self.services).map(|i| slice(i, 0)).collect();
        let api = Api::serve(&services, &slices, node())?;
        drop((services, slices));
        let kubeconfig = Kubeconfig::write(api.address)?;
        let (agent, start_s) = self.start(&kubeconfig.0)?;
        let write_s = first_sync_seconds().context("the agent's metrics")?;
        drop(agent);
        api.forget_watchers();
        let (agent, restart_s) = self.start(&kubeconfig.0)?;
        wait_for("the agent's watch", || Ok(api.watched()))?;
        let report = self.updates(&api, agent.0.id())?;
        let report = Report {
            start_s,
            write_s,
            restart_s,
            ..report
        };
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }

    fn start(&self, kubeconfig: &Path) -> Result<(Running, f64)> {
        let begun = Instant::now();
        let mut command = child::again("agent");
        command
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .arg(format!("--hostname-override={NODE}"))
            .arg(format!("--bpf-root={}", self.pins.display()))
            .arg(format!("--cgroup-path={}", self.group.display()))
            .args(["--devices=eth0", "--cluster-cidr=10.244.0.0/16"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let mut agent = Running(command.spawn().context("cannot start the agent")?);
        wait_for("the agent", || {
            let ended = agent.0.try_wait()?;
            ensure!(ended.is_none(), "the agent has ended: {ended:?}");
            Ok(ready())
        })?;
        Ok((agent, begun.elapsed().as_secs_f64()))
    }

    fn updates(&self, api: &Api, agent: u32) -> Result<Report> {
        let map = self.pins.join("v1").join(names::FRONTENDS_V4);
        let map = bpf::pinned(&map).context("the agent's frontends")?;
        let (mut to_map_ms, mut to_connection_ms) = (Vec::new(), Vec::new());
        let before = cpu_nanos(agent)?;
        for update in 1..=self.updates {
            let side = update as usize % 2;
            // Half of them are timed at the map, half at a connection.
            if update / 2 % 2 == 0 {
                to_map_ms.push(until_in_map(api, side, &map)?);
            } else {
                to_connection_ms.push(until_connected(api, side)?);
            }
            // Ids and ranges rest for a second: without a pause their stock, not the agent, is measured.
            std::thread::sleep(Duration::from_millis(5));
        }
        let spent = (cpu_nanos(agent)? - before) as f64;
        let status = fs::read_to_string(format!("/proc/{agent}/status"))?;
        Ok(Report {
            services: self.services,
            endpoints: self.services * ENDPOINTS,
            to_map_ms,
            to_connection_ms,
            cpu_per_update_ms: spent / 1e6 / f64::from(self.updates),
            anonymous_mb: megabytes(&status, "RssAnon:"),
            resident_mb: megabytes(&status, "VmRSS:"),
            maps: bpf::map_memory(&self.pins.join("v1"))?,
            ..Report::default()
        })
    }
}

fn until_in_map(api: &Api, side: usize, map: &std::os::fd::OwnedFd) -> Result<f64> {
    let key = FrontendKey::new(Ipv4::from(cluster_ip(CHANGING)), Be16::new(80), proto::TCP);
    let read = || {
        let mut value = [0u8; size_of::<sluice_common::Frontend>()];
        bpf::lookup(map, key.bytes(), &mut value).context("the Service's frontend")?;
        anyhow::Ok(value)
    };
    let old = read()?;
    let slice = slice(CHANGING, side);
    let begun = Instant::now();
    api.change_slice(&slice)?;
    while read()? == old {
        // Else this would take a processor from the agent.
        std::thread::sleep(Duration::from_micros(20));
        ensure!(begun.elapsed() < Duration::from_secs(30), "no change came");
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

fn until_connected(api: &Api, side: usize) -> Result<f64> {
    let slice = slice(CHANGING, side);
    let begun = Instant::now();
    api.change_slice(&slice)?;
    while who()? != PORTS[side] {
        ensure!(begun.elapsed() < Duration::from_secs(30), "no change came");
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Which endpoint a connection to the Service reaches.
fn who() -> Result<u16> {
    let mut stream = TcpStream::connect((cluster_ip(CHANGING), 80)).context("the Service")?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer)?;
    Ok(u16::from_be_bytes(answer))
}

/// Tells everybody who connects its port.
fn answer(port: u16) -> Result<()> {
    let listener = TcpListener::bind((HERE, port)).with_context(|| format!("port {port}"))?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(&port.to_be_bytes());
        }
    });
    Ok(())
}

fn ready() -> bool {
    get(HEALTHZ, "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// How long the only sync so far took.
fn first_sync_seconds() -> Option<f64> {
    let metrics = get(METRICS, "/metrics")?;
    let mut lines = metrics.lines();
    let line =
        lines.find(|line| line.starts_with("kubeproxy_sync_proxy_rules_duration_seconds_sum"));
    line?.rsplit(' ').next()?.parse().ok()
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn megabytes(status: &str, field: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    kilobytes
        .and_then(|text| text.parse::<f64>().ok())
        .unwrap_or_default()
        / 1024.0
}

/// Processor time of all threads (`/proc/PID/task/TID/schedstat`).
fn cpu_nanos(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        let first = text.split(' ').next().unwrap_or_default();
        sum += first.parse::<u64>().unwrap_or_default();
    }
    Ok(sum)
}

struct Kubeconfig(PathBuf);

impl Kubeconfig {
    fn write(server: SocketAddr) -> Result<Self> {
        let name = format!("sluice-bench-{}.kubeconfig", std::process::id());
        let path = std::env::temp_dir().join(name);
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{server}")}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        });
        fs::write(&path, text.to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Kubeconfig {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn cluster_ip(i: u32) -> Ipv4Addr {
    let [_, _, high, low] = (i + 1).to_be_bytes();
    Ipv4Addr::new(10, 96, high, low)
}

fn node() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "uid": "n", "resourceVersion": "1"},
        "spec": {"podCIDRs": ["10.244.0.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": HERE.to_string()}]},
    })
}

fn service(i: u32) -> Value {
    let ip = cluster_ip(i).to_string();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "namespace": "default", "name": format!("service-{i}"), "uid": format!("s{i}"),
            "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app.kubernetes.io/name": format!("service-{i}")},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster",
            "selector": {"app.kubernetes.io/name": format!("service-{i}")},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
        "status": {"loadBalancer": {}},
    })
}

/// The slice of a Service. That of the one that changes has an endpoint on one of two ports.
fn slice(i: u32, side: usize) -> Value {
    let (port, addresses): (u16, Vec<String>) = if i == CHANGING {
        (PORTS[side], vec![HERE.to_string()])
    } else {
        let address = |k: u32| {
            let [_, a, b, c] = (i * ENDPOINTS + k).to_be_bytes();
            Ipv4Addr::new(11, a, b, c).to_string()
        };
        (8080, (0..ENDPOINTS).map(address).collect())
    };
    let endpoint = |address: &String| {
        json!({
            "addresses": [address],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", i % 100),
            "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("pod-{address}")},
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default", "name": format!("service-{i}-abcde"), "uid": format!("e{i}"),
            "resourceVersion": "1", "labels": {"kubernetes.io/service-name": format!("service-{i}")},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

impl Report {
    /// Percentiles of the two latencies: 50, 99, most.
    pub fn latencies(&self) -> [[f64; 3]; 2] {
        [&self.to_map_ms, &self.to_connection_ms]
            .map(|all| [50.0, 99.0, 100.0].map(|percent| stats::percentile(all, percent)))
    }

    /// Megabytes of all maps.
    pub fn map_megabytes(&self) -> f64 {
        self.maps
            .iter()
            .map(|(_, bytes)| *bytes as f64)
            .sum::<f64>()
            / 1e6
    }
}
