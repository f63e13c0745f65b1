//! Nodes and pods as network namespaces: real links, the real daemon and the real plugin as processes.

use std::fs::{self, File};
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};
use sluice_ipam::client::Client;
use sluice_ipam::links::netlink::{Netlink, Request};
use sluice_ipam::links::pod;
use sluice_ipam::protocol::{self, Held, Reply};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);

/// Polls until `ready`, or fails with what was being waited for.
pub fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !ready() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A named network namespace that goes with this value.
pub struct Namespace {
    path: PathBuf,
    file: Option<File>,
}

impl Namespace {
    pub fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests make network namespaces: run them as root"
        );
        fs::create_dir_all("/run/netns").unwrap();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/run/netns/ipam-{}-{number}", std::process::id()));
        File::create(&path).unwrap();
        let target = path.clone();
        let made = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let none = None::<&str>;
            mount(
                Some("/proc/thread-self/ns/net"),
                &target,
                none,
                MsFlags::MS_BIND,
                none,
            )
            .unwrap();
            pod::bring_up(&mut Netlink::open().unwrap(), "lo").unwrap();
        });
        made.join().expect("cannot make a network namespace");
        let file = Some(File::open(&path).unwrap());
        Self { path, file }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn fd(&self) -> RawFd {
        self.file.as_ref().unwrap().as_raw_fd()
    }

    /// Runs on a thread of its own inside the namespace.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let file = self.file.as_ref().unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A command that starts inside the namespace.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let fd = self.file.as_ref().unwrap().try_clone().unwrap();
        let mut command = Command::new(program.as_ref());
        // SAFETY: setns is a plain system call, allowed between fork and exec; it allocates nothing.
        unsafe { command.pre_exec(move || Ok(setns(&fd, CloneFlags::CLONE_NEWNET)?)) };
        command
    }

    pub fn links(&self) -> Vec<String> {
        self.run(links_here)
    }

    /// Unmounts it, as a runtime does when a pod ends.
    pub fn destroy(&mut self) {
        self.file = None;
        let _ = umount2(&self.path, MntFlags::MNT_DETACH);
        let _ = fs::remove_file(&self.path);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.destroy();
    }
}

/// Sends messages, each of which must succeed.
pub fn apply(messages: Vec<(RouteNetlinkMessage, u16)>) {
    let requests = messages
        .into_iter()
        .map(|(message, flags)| Request { message, flags })
        .collect();
    Netlink::open().unwrap().execute(requests).unwrap();
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.into()));
    message
}

fn index(name: &str) -> u32 {
    pod::find(&mut Netlink::open().unwrap(), name)
        .unwrap()
        .index
}

pub fn add_address(link: &str, address: IpAddr, prefix_len: u8) {
    let message = address_message(link, address, prefix_len);
    apply(vec![(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )]);
}

/// Takes a pod's addresses away.
pub fn remove_addresses(link: &str, addresses: &[IpAddr]) {
    for address in addresses {
        let message = address_message(link, *address, if address.is_ipv4() { 32 } else { 128 });
        apply(vec![(RouteNetlinkMessage::DelAddress(message), 0)]);
    }
}

pub fn remove_link(name: &str) {
    pod::remove(&mut Netlink::open().unwrap(), name).unwrap();
}

pub fn bring_down(name: &str) {
    let mut message = named(name);
    message.header.change_mask = LinkFlags::Up;
    apply(vec![(RouteNetlinkMessage::SetLink(message), 0)]);
}

/// The links of the namespace that the thread is in.
pub fn links_here() -> Vec<String> {
    let links = pod::links(&mut Netlink::open().unwrap()).unwrap();
    links.into_iter().map(|link| link.name).collect()
}

fn address_message(link: &str, address: IpAddr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = match address {
        IpAddr::V4(_) => netlink_packet_route::AddressFamily::Inet,
        IpAddr::V6(_) => netlink_packet_route::AddressFamily::Inet6,
    };
    message.header.index = index(link);
    message.header.prefix_len = prefix_len;
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
        .attributes
        .push(AddressAttribute::Flags(AddressFlags::Nodad));
    message
}

fn up(mut message: LinkMessage) -> (RouteNetlinkMessage, u16) {
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    (RouteNetlinkMessage::SetLink(message), 0)
}

/// A bridge that joins nodes.
pub struct Switch(Namespace);

impl Switch {
    pub fn new() -> Self {
        let namespace = Namespace::new();
        namespace.run(|| {
            let mut bridge = named("br0");
            bridge
                .attributes
                .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
                    InfoKind::Bridge,
                )]));
            apply(vec![
                (
                    RouteNetlinkMessage::NewLink(bridge),
                    NLM_F_CREATE | NLM_F_EXCL,
                ),
                up(named("br0")),
            ]);
        });
        Self(namespace)
    }

    /// Gives a node its eth0, with the addresses 198.18.0.N and fd00:198:18::N.
    fn plug(&self, node: &Namespace, number: u8) {
        let port = format!("port{number}");
        let target = node.fd();
        self.0.run(|| {
            let mut peer = named("eth0");
            peer.attributes.push(LinkAttribute::NetNsFd(target));
            let mut pair = named(&port);
            pair.attributes
                .push(LinkAttribute::Controller(index("br0")));
            pair.attributes.push(LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]));
            apply(vec![
                (
                    RouteNetlinkMessage::NewLink(pair),
                    NLM_F_CREATE | NLM_F_EXCL,
                ),
                up(named(&port)),
            ]);
        });
        node.run(|| {
            apply(vec![up(named("eth0"))]);
            let (v4, v6) = addresses(number);
            add_address("eth0", v4, 24);
            add_address("eth0", v6, 64);
        });
    }
}

fn addresses(number: u8) -> (IpAddr, IpAddr) {
    let v4 = format!("198.18.0.{number}").parse().unwrap();
    let v6 = format!("fd00:198:18::{number}").parse().unwrap();
    (v4, v6)
}

/// A Node object as the API server would have it: pods in 10.88.N.0/24 and fd88:0:0:N::/64.
pub fn node_object(number: u8) -> Value {
    let (v4, v6) = addresses(number);
    let cidrs = cidrs(number);
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": format!("node{number}"), "uid": format!("uid-{number}") },
        "spec": { "podCIDR": cidrs[0], "podCIDRs": cidrs },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": v4 },
                { "type": "InternalIP", "address": v6 },
            ],
        },
    })
}

pub fn cidrs(number: u8) -> [String; 2] {
    [
        format!("10.88.{number}.0/24"),
        format!("fd88:0:0:{number}::/64"),
    ]
}

/// A node: namespace, directories, and a daemon that can be killed and started.
pub struct Node {
    pub namespace: Namespace,
    pub directory: TempDir,
    pub number: u8,
    source: Vec<String>,
    daemon: Mutex<Option<Child>>,
}

impl Node {
    /// A node that takes its addresses from flags.
    pub fn alone() -> Self {
        Self::with_pools(&cidrs(1))
    }

    pub fn with_pools(cidrs: &[String]) -> Self {
        let node = Self::new(1, vec!["--pod-cidr".into(), cidrs.join(",")]);
        node.namespace.run(|| {
            let mut pair = named("eth0");
            pair.attributes
                .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(
                    InfoKind::Veth,
                )]));
            apply(vec![
                (
                    RouteNetlinkMessage::NewLink(pair),
                    NLM_F_CREATE | NLM_F_EXCL,
                ),
                up(named("eth0")),
            ]);
            add_address("eth0", addresses(1).0, 24);
            // Without a carrier an IPv6 address of eth0 would stay tentative.
            add_address("lo", addresses(1).1, 128);
        });
        node.started()
    }

    fn new(number: u8, source: Vec<String>) -> Self {
        let namespace = Namespace::new();
        Self {
            namespace,
            directory: TempDir::new().unwrap(),
            number,
            source,
            daemon: Mutex::default(),
        }
    }

    /// A node on a switch that watches an API server.
    pub fn joined(switch: &Switch, number: u8, api: &super::api::FakeApi) -> Self {
        let mut node = Self::new(number, Vec::new());
        switch.plug(&node.namespace, number);
        let port = api.listen_in(&node.namespace);
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "c", "cluster": { "server": format!("http://127.0.0.1:{port}") } }],
            "users": [{ "name": "u", "user": {} }],
            "contexts": [{ "name": "x", "context": { "cluster": "c", "user": "u" } }],
            "current-context": "x",
        });
        let path = node.directory.path().join("kubeconfig");
        fs::write(&path, kubeconfig.to_string()).unwrap();
        node.source = vec![
            "--kubeconfig".into(),
            path.to_str().unwrap().into(),
            "--hostname-override".into(),
            format!("node{number}"),
        ];
        node.started()
    }

    fn started(self) -> Self {
        self.start();
        self.wait_ready();
        self
    }

    pub fn start(&self) {
        let directory = self.directory.path();
        let log = File::options()
            .create(true)
            .append(true)
            .open(directory.join("daemon.log"))
            .unwrap();
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_sluice-ipam"));
        command
            .args(["daemon", "--cool-down", "0"])
            .args(&self.source);
        for (flag, name) in [
            ("--socket", "ipam.sock"),
            ("--data-dir", "data"),
            ("--cni-conf-dir", "net.d"),
            ("--cni-bin-dir", "bin"),
        ] {
            command.arg(flag).arg(directory.join(name));
        }
        let daemon = command.stderr(log).spawn().unwrap();
        *self.daemon.lock().unwrap() = Some(daemon);
    }

    /// kill -9.
    pub fn kill(&self) {
        if let Some(mut daemon) = self.daemon.lock().unwrap().take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("ipam.sock")
    }

    pub fn ask(&self, request: &protocol::Request) -> Reply {
        Client::new(self.socket(), DEADLINE).call(request).unwrap()
    }

    pub fn wait_ready(&self) {
        eventually("the daemon is ready", || {
            self.ask(&protocol::Request::Status) == Reply::Ready
        });
        let conflist = self.directory.path().join("net.d/10-sluice.conflist");
        eventually("the CNI configuration is written", || conflist.exists());
    }

    pub fn held(&self) -> Vec<Held> {
        match self.ask(&protocol::Request::Show) {
            Reply::Shown { held, .. } => held,
            other => panic!("{other:?}"),
        }
    }

    pub fn findings(&self) -> Vec<protocol::Finding> {
        match self.ask(&protocol::Request::Check) {
            Reply::Checked { findings } => findings,
            other => panic!("{other:?}"),
        }
    }

    /// The host-side ends of pods' links.
    pub fn pod_links(&self) -> Vec<String> {
        let links = self.namespace.links().into_iter();
        links.filter(|name| name.starts_with("slu")).collect()
    }

    pub fn config(&self, version: &str) -> Value {
        json!({ "cniVersion": version, "name": "sluice", "type": "sluice-cni", "socket": self.socket() })
    }

    /// Runs the plugin as a runtime would.
    pub fn cni(&self, command: &str, id: &str, netns: &Path, config: &Value) -> Outcome {
        self.plugin("sluice-cni", command, id, netns, config)
    }

    pub fn plugin(
        &self,
        name: &str,
        command: &str,
        id: &str,
        netns: &Path,
        config: &Value,
    ) -> Outcome {
        let child = self.spawn(name, command, id, netns, config);
        Outcome::of(child.wait_with_output().unwrap())
    }

    /// An ADD that is on its way.
    pub fn spawn_add(&self, id: &str, netns: &Path) -> Child {
        self.spawn("sluice-cni", "ADD", id, netns, &self.config("1.0.0"))
    }

    fn spawn(&self, name: &str, command: &str, id: &str, netns: &Path, config: &Value) -> Child {
        let bin = self.directory.path().join("bin");
        let interface = if name == "loopback" { "lo" } else { "eth0" };
        let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={id}");
        let mut process = self.namespace.command(bin.join(name));
        process
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", interface)
            .env("CNI_PATH", &bin)
            .env("CNI_ARGS", arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = process.spawn().unwrap();
        // A plugin that refuses its environment does not read.
        let _ = child
            .stdin
            .take()
            .unwrap()
            .write_all(config.to_string().as_bytes());
        child
    }

    pub fn add(&self, id: &str, pod: &Namespace) -> Pod {
        let outcome = self.cni("ADD", id, pod.path(), &self.config("1.0.0"));
        assert!(outcome.success, "{outcome:?}\n{}", self.log());
        Pod {
            addresses: outcome.addresses(),
        }
    }

    pub fn del(&self, id: &str, pod: &Namespace) -> Outcome {
        self.cni("DEL", id, pod.path(), &self.config("1.0.0"))
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("daemon.log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the log of node{}:\n{}", self.number, self.log());
        }
    }
}

/// What a pod got.
#[derive(Clone, Debug)]
pub struct Pod {
    pub addresses: Vec<IpAddr>,
}

/// What the plugin printed.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub success: bool,
    pub json: Value,
}

impl Outcome {
    fn of(output: Output) -> Self {
        Self {
            success: output.status.success(),
            json: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        }
    }

    pub fn code(&self) -> u64 {
        self.json["code"].as_u64().unwrap_or(0)
    }

    pub fn message(&self) -> &str {
        self.json["msg"].as_str().unwrap_or_default()
    }

    pub fn addresses(&self) -> Vec<IpAddr> {
        let ips = self.json["ips"].as_array().into_iter().flatten();
        ips.map(|ip| {
            ip["address"]
                .as_str()
                .unwrap()
                .split('/')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect()
    }
}
