//! The agent as a process: it watches an API server, and real connections go where that says.
//!
//! The agent runs in a node of a small network of namespaces (see `support::world`), as a process of its
//! own that can be killed: this very test binary, started again as [`agent_process`].

mod fake_api;
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use fake_api::FakeApi;
use serde_json::{Value, json};
use support::echo::{self, PORT, ask_tcp, ask_udp};
use support::machine::Machine;
use support::world::{FAMILIES, Family, World, client_ip, cluster_ip};
use tempfile::TempDir;

/// How long the agent may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);
const NODE_PORT: u16 = 30_080;
const HEALTHZ: u16 = 10_256;
const METRICS: u16 = 10_249;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: sluice_proxy::cli::Args,
}

/// No test: the agent's process, with its arguments in the environment.
#[test]
#[ignore = "started by the other tests as the agent's process"]
fn agent_process() {
    let arguments = std::env::var("SLUICE_AGENT").expect("started by a test");
    let cli = Cli::parse_from(std::iter::once("agent").chain(arguments.split('\n')));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if let Err(error) = runtime.block_on(sluice_proxy::cli::run(cli.args)) {
        eprintln!("agent: {error:#}");
        std::process::exit(1);
    }
}

/// A world with an API server on node 1, and servers in both pods.
struct Scene {
    world: World,
    api: FakeApi,
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        let world = World::new();
        echo::serve(&world.node1.pod, "pod1");
        echo::serve(&world.node2.pod, "pod2");
        let listener = world
            .node1
            .machine
            .run(|| TcpListener::bind("127.0.0.1:0").expect("bind"));
        let scene = Self {
            world,
            api: FakeApi::serve(listener),
            dir: tempfile::tempdir().expect("a directory"),
        };
        scene.api.put(node(json!({})));
        scene
    }

    fn node(&self) -> &Machine {
        &self.world.node1.machine
    }

    fn start(&self) -> Agent {
        self.start_with(&[])
    }

    fn start_with(&self, more: &[&str]) -> Agent {
        let mut agent = self.spawn(more);
        until("the first full sync", || {
            if let Some(status) = agent.0.try_wait().expect("wait") {
                panic!("the agent has ended with {status}: {}", agent.end().1);
            }
            self.get(HEALTHZ, "/readyz")
                .is_some_and(|(code, _)| code == 200)
        });
        agent
    }

    fn spawn(&self, more: &[&str]) -> Agent {
        let kubeconfig = self.dir.path().join("kubeconfig");
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", self.api.addr)}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        });
        fs::write(&kubeconfig, text.to_string()).expect("a kubeconfig");
        let mut arguments = vec![
            format!("--kubeconfig={}", kubeconfig.display()),
            "--hostname-override=node1".to_owned(),
            format!("--bpf-root={}", self.world.node1.pins.0.display()),
            format!("--cgroup-path={}", self.node().cgroup().display()),
            "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56".to_owned(),
        ];
        arguments.extend(more.iter().map(ToString::to_string));
        let child = self.node().run(|| {
            Command::new(std::env::current_exe().expect("this binary"))
                .args(["--exact", "agent_process", "--ignored", "--nocapture"])
                .env("SLUICE_AGENT", arguments.join("\n"))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the agent's process")
        });
        Agent(child)
    }

    /// A GET on node 1: the status code and the body; `None` when nobody answers.
    fn get(&self, port: u16, path: &str) -> Option<(u16, String)> {
        self.node()
            .run(|| http_get(SocketAddr::from(([127, 0, 0, 1], port)), path))
    }

    fn status(&self) -> Value {
        let (_, body) = self
            .get(METRICS, "/status")
            .expect("the metrics port answers");
        serde_json::from_str(&body).expect("JSON")
    }

    /// The value of a metric without labels, or with exactly these.
    fn metric(&self, name: &str) -> f64 {
        let (_, body) = self
            .get(METRICS, "/metrics")
            .expect("the metrics port answers");
        let line = body
            .lines()
            .find(|line| line.split(' ').next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in\n{body}"));
        line.split(' ')
            .nth(1)
            .expect("a value")
            .parse()
            .expect("a number")
    }

    fn put_web(&self, endpoints: &[(&str, &str)]) {
        for family in FAMILIES {
            self.api.put(slice(family, endpoints, &self.world));
        }
    }

    /// Who answers at an address, from a process on the node.
    fn who(&self, to: SocketAddr) -> Option<String> {
        self.node()
            .run(|| ask_tcp(to).ok().map(|answer| answer.server))
    }
}

fn http_get(addr: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.split(' ').nth(1)?.parse().ok()?;
    Some((code, body.to_owned()))
}

/// The agent's process; killed at the end.
struct Agent(Child);

impl Agent {
    fn kill(&mut self) {
        self.0.kill().expect("kill");
        let status = self.0.wait().expect("wait");
        assert_eq!(
            status.signal(),
            Some(libc::SIGKILL),
            "the agent had ended by itself: {status}"
        );
    }

    /// Waits for its end; its exit code and what it said.
    fn end(&mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        self.0
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut said)
            .expect("text");
        (self.0.wait().expect("wait").code(), said)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn until(what: &str, mut test: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !test() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn node(spec: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node1"},
        "spec": spec,
        "status": {"addresses": [
            {"type": "InternalIP", "address": "198.18.0.11"},
            {"type": "InternalIP", "address": "fd00:198:18::11"},
        ]},
    })
}

fn web() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "default", "name": "web", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "type": "NodePort",
            "clusterIP": cluster_ip(Family::V4),
            "clusterIPs": FAMILIES.map(cluster_ip),
            "ports": [
                {"name": "http", "port": 80, "protocol": "TCP", "nodePort": NODE_PORT},
                {"name": "echo", "port": 81, "protocol": "UDP"},
            ],
        },
    })
}

/// Endpoints are given as (pod, conditions): pod1 or pod2; ready or not.
fn slice(family: Family, endpoints: &[(&str, &str)], world: &World) -> Value {
    let endpoint = |(pod, condition): &(&str, &str)| {
        let node = if *pod == "pod1" {
            &world.node1
        } else {
            &world.node2
        };
        json!({
            "addresses": [node.pod_ip(family)],
            "nodeName": format!("node{}", node.number),
            "conditions": {"ready": *condition == "ready"},
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default",
            "name": format!("web-{family:?}"),
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": if family == Family::V4 { "IPv4" } else { "IPv6" },
        "ports": [
            {"name": "http", "port": PORT, "protocol": "TCP"},
            {"name": "echo", "port": PORT, "protocol": "UDP"},
        ],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    })
}

#[test]
fn connections_go_where_the_api_server_says_as_it_changes() {
    let scene = Scene::new();
    let _agent = scene.start();
    assert!(
        scene
            .api
            .selectors("services")
            .contains("!service.kubernetes.io/service-proxy-name")
    );
    // It masquerades, so it must know every Node.
    assert_eq!(scene.api.selectors("nodes"), "");

    scene.put_web(&[("pod1", "ready")]);
    scene.api.put(web());
    for family in FAMILIES {
        let cluster = SocketAddr::new(cluster_ip(family), 80);
        until("the cluster IP to answer", || {
            scene.who(cluster).as_deref() == Some("pod1")
        });
        let udp = SocketAddr::new(cluster_ip(family), 81);
        let (answer, from) = scene
            .node()
            .run(|| ask_udp(udp))
            .expect("an answer over UDP");
        assert_eq!((answer.server.as_str(), from), ("pod1", udp));

        let node_port = SocketAddr::new(scene.world.node1.ip(family), NODE_PORT);
        let seen = scene
            .world
            .client
            .run(|| ask_tcp(node_port))
            .expect("an answer at the node port");
        assert_eq!(
            (seen.server.as_str(), seen.seen.ip()),
            ("pod1", client_ip(family))
        );
    }
    let loopback = SocketAddr::from(([127, 0, 0, 1], NODE_PORT));
    assert_eq!(scene.who(loopback).as_deref(), Some("pod1"));

    scene.put_web(&[("pod1", "not ready"), ("pod2", "ready")]);
    for family in FAMILIES {
        let cluster = SocketAddr::new(cluster_ip(family), 80);
        until("traffic to move", || {
            scene.who(cluster).as_deref() == Some("pod2")
        });
        let node_port = SocketAddr::new(scene.world.node1.ip(family), NODE_PORT);
        let seen = scene
            .world
            .client
            .run(|| ask_tcp(node_port))
            .expect("an answer through another node");
        assert_eq!(seen.server, "pod2");
    }

    scene.put_web(&[]);
    let cluster = SocketAddr::new(cluster_ip(Family::V4), 80);
    until("a refusal", || {
        let refused = scene
            .node()
            .run(|| TcpStream::connect_timeout(&cluster, PATIENCE));
        refused.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });

    scene.api.delete(&web());
    until("the Service to leave the maps", || {
        scene
            .get(METRICS, "/metrics")
            .is_some_and(|(_, body)| !body.contains("service=\"web\""))
    });
}

#[test]
fn killed_and_started_again_it_fails_no_request() {
    let scene = Scene::new();
    scene.put_web(&[("pod1", "ready"), ("pod2", "ready")]);
    scene.api.put(web());
    let mut agent = scene.start();

    let (stop, done, failed) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    let load = |machine: &Machine, to: SocketAddr| {
        machine.enter_and(|| {
            while !stop.load(Ordering::Relaxed) {
                let answered = ask_tcp(to).is_ok();
                let count = if answered { &done } else { &failed };
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    };
    std::thread::scope(|scope| {
        for family in FAMILIES {
            let cluster = SocketAddr::new(cluster_ip(family), 80);
            let node_port = SocketAddr::new(scene.world.node1.ip(family), NODE_PORT);
            let (load, world) = (&load, &scene.world);
            scope.spawn(move || load(&world.node1.machine, cluster));
            scope.spawn(move || load(&world.client, node_port));
        }
        let more = |count: u32| {
            let target = done.load(Ordering::Relaxed) + count;
            until("requests to be answered", || {
                done.load(Ordering::Relaxed) >= target
            });
        };
        for _ in 0..5 {
            more(50);
            agent.kill();
            more(50);
            agent = scene.start();
        }
        more(50);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(
        failed.load(Ordering::Relaxed),
        0,
        "of {} requests",
        done.load(Ordering::Relaxed)
    );

    // What changed while no agent ran is there after the next start.
    agent.kill();
    scene.put_web(&[("pod2", "ready")]);
    let _agent = scene.start();
    let cluster = SocketAddr::new(cluster_ip(Family::V4), 80);
    for _ in 0..20 {
        assert_eq!(scene.who(cluster).as_deref(), Some("pod2"));
    }
}

#[test]
fn an_outage_of_the_api_server_ends_in_one_list_and_only_differences_are_written() {
    let scene = Scene::new();
    for i in 0..50 {
        let mut service = web();
        service["metadata"]["name"] = json!(format!("s{i}"));
        service["spec"]["clusterIP"] = json!(format!("10.96.1.{i}"));
        service["spec"]["clusterIPs"] = json!([format!("10.96.1.{i}")]);
        service["spec"]["ports"][0]["nodePort"] = json!(30_100 + i);
        scene.api.put(service);
    }
    scene.put_web(&[("pod1", "ready")]);
    scene.api.put(web());
    let _agent = scene.start();
    let cluster = SocketAddr::new(cluster_ip(Family::V4), 80);
    assert_eq!(scene.who(cluster).as_deref(), Some("pod1"));
    let (lists, writes) = (
        scene.api.lists("endpointslices"),
        scene.metric("sluice_proxy_map_writes_total"),
    );
    assert_eq!(lists, 1);

    scene.api.fail();
    scene.put_web(&[("pod2", "ready")]);
    scene.api.compact();
    assert_eq!(
        scene.who(cluster).as_deref(),
        Some("pod1"),
        "traffic goes on as it was"
    );
    scene.api.recover();
    until("the change to arrive", || {
        scene.who(cluster).as_deref() == Some("pod2")
    });
    for plural in ["services", "endpointslices", "nodes"] {
        until("all kinds to be listed again", || {
            scene.api.lists(plural) == 2
        });
    }
    let written = scene.metric("sluice_proxy_map_writes_total") - writes;
    // Two ports in two families: a new backend, its range, its frontends, and the old one's leave.
    assert!(written > 0.0 && written < 60.0, "{written} writes");
}

#[test]
fn a_bad_object_is_named_and_the_others_are_served() {
    let scene = Scene::new();
    let mut thief = web();
    thief["metadata"]["name"] = json!("thief");
    thief["metadata"]["creationTimestamp"] = json!("2026-02-02T00:00:00Z");
    let misshapen = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "default", "name": "misshapen"},
        "spec": {"clusterIP": "10.96.0.99", "ports": "none"},
    });
    scene.api.put(misshapen);
    scene.api.put(thief);
    scene.api.put(web());
    scene.put_web(&[("pod1", "ready")]);
    let mut bad_slice = slice(Family::V4, &[], &scene.world);
    bad_slice["metadata"]["name"] = json!("web-bad");
    bad_slice["endpoints"] = json!([{"addresses": ["nowhere"]}]);
    scene.api.put(bad_slice);
    let _agent = scene.start();
    assert_eq!(
        scene
            .who(SocketAddr::new(cluster_ip(Family::V4), 80))
            .as_deref(),
        Some("pod1")
    );

    let status = scene.status();
    let problems: Vec<_> = status["problems"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    for (object, field) in [
        ("default/misshapen", ""),
        ("default/web-bad", "endpoints[0].addresses[0]"),
        ("default/thief", "spec.clusterIPs"),
    ] {
        let named = problems
            .iter()
            .any(|problem| problem["object"] == object && problem["field"] == field);
        assert!(named, "{object} {field} is not in {status:#}");
    }
    let counted =
        "sluice_proxy_object_problems_total{kind=\"EndpointSlice\",fault=\"not-an-address\"}";
    assert!((scene.metric(counted) - 1.0).abs() < f64::EPSILON);
}

#[test]
fn health_follows_the_node_and_services_with_local_policy() {
    let scene = Scene::new();
    let mut local = web();
    local["spec"]["type"] = json!("LoadBalancer");
    local["spec"]["externalTrafficPolicy"] = json!("Local");
    local["spec"]["healthCheckNodePort"] = json!(31_000);
    scene.api.put(local);
    scene.put_web(&[("pod1", "ready"), ("pod2", "ready")]);
    let _agent = scene.start();

    let (code, body) = scene.get(HEALTHZ, "/healthz").expect("an answer");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((code, &body["nodeEligible"]), (200, &json!(true)));
    assert!(body["lastUpdated"].is_string() && body["currentTime"].is_string());

    let (code, body) = scene
        .get(31_000, "/")
        .expect("the health check port answers");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let expected = json!({
        "service": {"namespace": "default", "name": "web"},
        "localEndpoints": 1,
        "serviceProxyHealthy": true,
    });
    assert_eq!((code, body), (200, expected));
    scene.put_web(&[("pod2", "ready")]);
    until("the node to have no endpoint", || {
        scene.get(31_000, "/").is_some_and(|(code, _)| code == 503)
    });

    scene.api.put(node(
        json!({"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}),
    ));
    until("healthz to fail", || {
        scene
            .get(HEALTHZ, "/healthz")
            .is_some_and(|(code, _)| code == 503)
    });
    assert_eq!(
        scene.get(HEALTHZ, "/livez").map(|(code, _)| code),
        Some(200)
    );

    let (_, metrics) = scene.get(METRICS, "/metrics").expect("an answer");
    for name in [
        "kubeproxy_sync_proxy_rules_duration_seconds_count",
        "kubeproxy_network_programming_duration_seconds_count",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total",
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
        "kubeproxy_sync_proxy_rules_service_changes_total",
        "kubeproxy_proxy_healthz_total{code=\"503\"}",
        "kubeproxy_sync_proxy_rules_no_local_endpoints{traffic_policy=\"external\"}",
        "sluice_service_connections_total{",
        "sluice_drops_total{reason=\"no-endpoints\"}",
        "sluice_map_entries{map=\"frontends_v4\"}",
    ] {
        assert!(
            metrics.lines().any(|line| line.starts_with(name)),
            "no {name} in\n{metrics}"
        );
    }
}

#[test]
fn a_second_agent_and_bad_settings_end_in_one_line_and_cleanup_leaves_nothing() {
    let scene = Scene::new();
    let mut agent = scene.start();
    let (code, said) = scene.spawn(&[]).end();
    assert_eq!(code, Some(1));
    assert!(
        said.contains("agent: cannot serve /healthz on 0.0.0.0:10256: Address already in use"),
        "{said}"
    );
    let (code, said) = scene.spawn(&["--healthz-bind-address=nowhere"]).end();
    assert_eq!(code, Some(1));
    assert!(
        said.contains("agent: --healthz-bind-address: \"nowhere\" is not an address"),
        "{said}"
    );
    agent.kill();

    let (code, said) = scene.spawn(&["--cleanup"]).end();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        !scene.world.node1.pins.0.exists()
            || fs::read_dir(&scene.world.node1.pins.0)
                .expect("pins")
                .next()
                .is_none()
    );
}
