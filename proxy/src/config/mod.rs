//! How the agent is told what to do: flags, kube-proxy's configuration file, defaults, in this order.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnetwork::IpNetwork;

use crate::loader::XdpMode;

mod duration;
mod file;
mod resolve;

pub use file::{FileConfig, FileError};
pub use resolve::{ConfigError, Flags};

/// Everything settled.
#[derive(Clone, Debug)]
pub struct Config {
    /// Kubeconfig; `None`: the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// The own Node's name.
    pub node_name: String,
    /// Which of the node's addresses node ports are served on.
    pub node_port_addresses: NodePortAddresses,
    /// Node ports on loopback too.
    pub loopback_node_ports: bool,
    /// Pods' networks.
    pub cluster_cidrs: Vec<IpNetwork>,
    /// Destinations outside of the cluster that see pods' own addresses.
    pub non_masquerade_cidrs: Vec<IpNetwork>,
    /// Pods that leave the cluster get the node's address.
    pub masquerade: bool,
    /// Where metrics are served; `None`: nowhere.
    pub metrics_address: Option<SocketAddr>,
    /// Where health is served; `None`: nowhere.
    pub healthz_address: Option<SocketAddr>,
    /// Pins.
    pub bpf_root: PathBuf,
    /// cgroup2 directory for the socket hooks; `None`: the root of the hierarchy.
    pub cgroup_path: Option<PathBuf>,
    /// North-south devices; empty: found out.
    pub devices: Vec<String>,
    /// How they take packets in.
    pub xdp_mode: XdpMode,
    /// When idle flows end.
    pub timeouts: Timeouts,
}

impl Config {
    /// Whether pods that leave the cluster get the node's address: it must be known who is a pod.
    pub fn masquerades(&self) -> bool {
        self.masquerade && !self.cluster_cidrs.is_empty()
    }
}

/// Which of the node's addresses node ports are served on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// All that are not loopback or link-local.
    All,
    /// The Node object's first address of each family.
    Primary,
    /// Those in these networks.
    In(Vec<IpNetwork>),
}

/// When idle flows end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP that the server has not answered.
    pub tcp_new: Duration,
    /// TCP (kube-proxy's `conntrack.tcpEstablishedTimeout`).
    pub tcp_established: Duration,
    /// TCP after a FIN or RST.
    pub tcp_closing: Duration,
    /// UDP without an answer (`conntrack.udpTimeout`).
    pub udp_new: Duration,
    /// UDP with answers (`conntrack.udpStreamTimeout`).
    pub udp_established: Duration,
}

impl Default for Timeouts {
    /// kube-proxy's defaults, and the kernel's conntrack's where it has none. A closing flow holds a source
    /// port for translation, so it goes soon (Cilium keeps it for 10 s too).
    fn default() -> Self {
        Self {
            tcp_new: Duration::from_secs(60),
            tcp_established: Duration::from_secs(86_400),
            tcp_closing: Duration::from_secs(10),
            udp_new: Duration::from_secs(30),
            udp_established: Duration::from_secs(120),
        }
    }
}

/// Where metrics are served unless said otherwise.
pub const METRICS_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10_249);
/// Where health is served unless said otherwise.
pub const HEALTHZ_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10_256);
