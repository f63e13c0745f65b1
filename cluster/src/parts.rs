//! The processes of a cluster and the arguments that each is started with.

use std::path::{Path, PathBuf};

use crate::cgroups::Hierarchies;
use crate::containerd::CniDirectories;
use crate::layout::{API_PORT, Layout, Machine, POD_CIDRS, SERVICE_CIDRS};
use crate::links::UPLINK;
use crate::spawn::Part;

/// How quickly a lost node is noticed. A tenth of what is usual between machines: here a heartbeat costs
/// next to nothing and somebody is watching.
pub const NODE_GRACE_SECONDS: u32 = 4;

/// Names of a node's processes, in the order in which they are started.
pub const NODE_PARTS: [&str; 4] = ["containerd", "ipam", "proxy", "kubelet"];

/// The address of the API server inside the cluster's network.
pub fn api_url() -> String {
    format!("https://{}:{API_PORT}", Machine::Master.v4())
}

/// Who is started, with which program.
pub struct Parts<'a> {
    /// The cluster.
    pub layout: &'a Layout,
    /// This executable, or the one that takes its place.
    pub program: &'a Path,
    /// Where the socket hooks are attached.
    pub hierarchies: &'a Hierarchies,
}

impl Parts<'_> {
    /// The master.
    pub fn master(&self, api_port: u16) -> Part {
        let state = self.layout.machine_state(Machine::Master);
        let names = [
            Machine::Master.v4().to_string(),
            Machine::Master.v6().to_string(),
            "127.0.0.1".into(),
            "localhost".into(),
        ];
        let mut arguments = Arguments::new("master");
        arguments
            .path("--data-dir", &state)
            .add("--secure-port", API_PORT)
            .add("--advertise-address", Machine::Master.v4())
            .add("--tls-san", names.join(","))
            .add("--service-cluster-ip-range", SERVICE_CIDRS)
            .add("--cluster-cidr", POD_CIDRS)
            .add(
                "--node-monitor-grace-period",
                format!("{NODE_GRACE_SECONDS}s"),
            )
            .add("--node-monitor-period", "500ms")
            .path("--kubeconfig", &self.layout.admin_kubeconfig())
            .add(
                "--kubeconfig-server",
                format!("https://127.0.0.1:{api_port}"),
            );
        Part {
            host_port: Some(api_port),
            ..self.part("master", Machine::Master, arguments)
        }
    }

    /// The allocator of a node's pod addresses, which also installs the CNI plugin.
    pub fn ipam(&self, node: Machine) -> Part {
        let cni = CniDirectories::of(self.layout, node);
        let mut arguments = Arguments::new("ipam");
        arguments.word("daemon");
        self.identify(&mut arguments, node)
            .path("--socket", &self.layout.machine_run(node).join("ipam.sock"))
            .path("--data-dir", &self.layout.machine_state(node).join("ipam"))
            .path("--cni-conf-dir", &cni.conf)
            .path("--cni-bin-dir", &cni.bin);
        self.part("ipam", node, arguments)
    }

    /// The service load balancer of a node.
    pub fn proxy(&self, node: Machine) -> Part {
        let mut arguments = Arguments::new("proxy");
        self.identify(&mut arguments, node)
            .add("--cluster-cidr", POD_CIDRS)
            .path("--bpf-root", &self.layout.pins().join(node.name()))
            .add("--devices", UPLINK);
        if let Some(root) = self.hierarchies.v2() {
            arguments.path("--cgroup-path", &root.join(self.layout.cgroup(node)));
        }
        self.part("proxy", node, arguments)
    }

    /// The kubelet of a node.
    pub fn kubelet(&self, node: Machine) -> Part {
        let socket = self.layout.containerd_socket(node);
        let tls = self.tls_directory(node);
        let mut arguments = Arguments::new("kubelet");
        self.identify(&mut arguments, node)
            .add("--node-ip", format!("{},{}", node.v4(), node.v6()))
            .add(
                "--container-runtime-endpoint",
                format!("unix://{}", socket.display()),
            )
            .path(
                "--root-dir",
                &self.layout.machine_state(node).join("kubelet"),
            )
            .path(
                "--cgroup-root",
                &Path::new("/").join(self.layout.cgroup(node)),
            )
            .path("--tls-cert-file", &tls.join("tls.crt"))
            .path("--tls-private-key-file", &tls.join("tls.key"))
            .path("--client-ca-file", &tls.join("ca.crt"))
            .add("--node-lease-renew-interval", "1s")
            .add("--node-status-update-frequency", "2s");
        self.part("kubelet", node, arguments)
    }

    /// The credentials of a node.
    pub fn kubeconfig(&self, node: Machine) -> PathBuf {
        self.layout.machine_state(node).join("kubeconfig")
    }

    /// The serving certificate of a node's kubelet.
    pub fn tls_directory(&self, node: Machine) -> PathBuf {
        self.layout.machine_state(node).join("tls")
    }

    fn identify<'a>(&self, arguments: &'a mut Arguments, node: Machine) -> &'a mut Arguments {
        arguments
            .path("--kubeconfig", &self.kubeconfig(node))
            .add("--hostname-override", node.name())
    }

    fn part(&self, name: &'static str, machine: Machine, arguments: Arguments) -> Part {
        Part {
            name,
            machine,
            program: self.program.to_path_buf(),
            arguments: arguments.0,
            host_port: None,
        }
    }
}

struct Arguments(Vec<String>);

impl Arguments {
    fn new(command: &str) -> Self {
        Self(vec![command.into()])
    }

    fn word(&mut self, word: &str) -> &mut Self {
        self.0.push(word.into());
        self
    }

    fn add(&mut self, flag: &str, value: impl ToString) -> &mut Self {
        self.word(flag).word(&value.to_string())
    }

    fn path(&mut self, flag: &str, value: &Path) -> &mut Self {
        self.add(flag, value.display())
    }
}
