//! Names, paths and addresses of a cluster: all a function of its name.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Nodes of a cluster.
pub const NODES: u8 = 3;
/// Port of the API server inside the cluster's own network.
pub const API_PORT: u16 = 6443;
/// Pods' addresses.
pub const POD_CIDRS: &str = "10.244.0.0/16,fd00:10:244::/56";
/// Services' addresses.
pub const SERVICE_CIDRS: &str = "10.96.0.0/16,fd00:10:96::/112";
/// Prefix lengths of the network between the machines, IPv4 and IPv6.
pub const MACHINE_PREFIXES: (u8, u8) = (24, 64);

const NAME_LIMIT: usize = 40;

/// One of the namespaces that play a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// The API server, the scheduler and the controllers.
    Master,
    /// A node, counted from 1.
    Node(u8),
    /// A machine outside the cluster.
    Client,
}

impl Machine {
    /// Every machine of a cluster.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Master, Self::Client]
            .into_iter()
            .chain(Self::nodes())
    }

    /// The nodes alone.
    pub fn nodes() -> impl Iterator<Item = Self> {
        (1..=NODES).map(Self::Node)
    }

    /// The name inside the cluster, which for a node is the Node object's name.
    pub fn name(self) -> String {
        match self {
            Self::Master => "master".into(),
            Self::Node(number) => format!("node{number}"),
            Self::Client => "client".into(),
        }
    }

    fn host(self) -> u8 {
        match self {
            Self::Master => 2,
            Self::Node(number) => 10 + number,
            Self::Client => 100,
        }
    }

    /// Address in the benchmarking range of RFC 2544, which is routed nowhere.
    pub fn v4(self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 0, self.host())
    }

    /// Address in a unique local prefix (RFC 4193); its last group reads like the IPv4 address's last byte.
    pub fn v6(self) -> Ipv6Addr {
        let digits = self.host().to_string();
        let group = digits.chars().fold(0, |value, digit| {
            value * 16 + digit.to_digit(10).unwrap_or(0) as u16
        });
        Ipv6Addr::new(0xfd00, 0x198, 0x18, 0, 0, 0, 0, group)
    }
}

/// A cluster's name and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    name: String,
}

impl Layout {
    /// A name is a DNS label, so that it is a file name, a cgroup and part of a namespace's name alike.
    pub fn new(name: &str) -> Result<Self, String> {
        let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fits = (1..=NAME_LIMIT).contains(&name.len());
        if fits && name.chars().all(inside) && !name.starts_with('-') && !name.ends_with('-') {
            return Ok(Self { name: name.into() });
        }
        Err(format!(
            "the name {name:?} must be 1 to {NAME_LIMIT} lower-case letters, digits and dashes, with a letter or digit at both ends"
        ))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Namespace of a machine.
    pub fn namespace(&self, machine: Machine) -> String {
        format!("{}-{}", self.name, machine.name())
    }

    /// Namespace of the bridge that joins the machines.
    pub fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    /// Every namespace of the cluster.
    pub fn namespaces(&self) -> Vec<String> {
        let machines = Machine::all().map(|machine| self.namespace(machine));
        machines.chain([self.switch()]).collect()
    }

    /// What outlives a reboot.
    pub fn state(&self) -> PathBuf {
        PathBuf::from("/var/lib/sluice").join(&self.name)
    }

    /// State of one machine.
    pub fn machine_state(&self, machine: Machine) -> PathBuf {
        self.state().join(machine.name())
    }

    /// What does not outlive a reboot: sockets, pid files, mounts.
    pub fn run(&self) -> PathBuf {
        PathBuf::from("/run/sluice").join(&self.name)
    }

    /// Runtime files of one machine.
    pub fn machine_run(&self, machine: Machine) -> PathBuf {
        self.run().join(machine.name())
    }

    /// Log files.
    pub fn logs(&self) -> PathBuf {
        self.state().join("logs")
    }

    /// Pinned BPF objects.
    pub fn pins(&self) -> PathBuf {
        PathBuf::from(BPFFS).join(&self.name)
    }

    /// Cgroup of a machine, relative to a hierarchy's root.
    pub fn cgroup(&self, machine: Machine) -> PathBuf {
        PathBuf::from(&self.name).join(machine.name())
    }

    /// Kubeconfig of the administrator.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.state().join("admin.kubeconfig")
    }

    /// containerd's socket on a node.
    pub fn containerd_socket(&self, node: Machine) -> PathBuf {
        self.machine_run(node).join("containerd.sock")
    }
}

/// Where the BPF file system is expected.
pub const BPFFS: &str = "/sys/fs/bpf";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_read_alike() {
        assert_eq!(Machine::Node(1).v4().to_string(), "198.18.0.11");
        assert_eq!(Machine::Node(1).v6().to_string(), "fd00:198:18::11");
        assert_eq!(Machine::Client.v6().to_string(), "fd00:198:18::100");
        assert_eq!(Machine::Master.v6().to_string(), "fd00:198:18::2");
    }

    #[test]
    fn names_that_could_leave_their_place_are_refused() {
        for name in ["", "a/b", "..", "-a", "a-", "A", &"a".repeat(41)] {
            assert!(Layout::new(name).is_err(), "{name:?}");
        }
        assert!(Layout::new("sluice-2").is_ok());
    }

    #[test]
    fn every_namespace_is_named_once() {
        let mut namespaces = Layout::new("x").unwrap().namespaces();
        namespaces.sort();
        namespaces.dedup();
        assert_eq!(namespaces.len(), NODES as usize + 3);
    }
}
