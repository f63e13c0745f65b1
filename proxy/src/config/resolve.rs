//! Flags over file over defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnetwork::IpNetwork;

use super::file::{FileConfig, parse_address};
use super::{Config, HEALTHZ_ADDRESS, METRICS_ADDRESS, NodePortAddresses, Timeouts};
use crate::loader::XdpMode;

/// What the command line says; `None` or empty: nothing.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `--hostname-override`.
    pub hostname_override: Option<String>,
    /// `--node-port-addresses`.
    pub node_port_addresses: Vec<String>,
    /// `--cluster-cidr`.
    pub cluster_cidr: Option<String>,
    /// `--non-masquerade-cidrs`.
    pub non_masquerade_cidrs: Vec<String>,
    /// `--masquerade`.
    pub masquerade: bool,
    /// `--metrics-bind-address`.
    pub metrics_bind_address: Option<String>,
    /// `--healthz-bind-address`.
    pub healthz_bind_address: Option<String>,
    /// `--bpf-root`.
    pub bpf_root: PathBuf,
    /// `--cgroup-path`.
    pub cgroup_path: Option<PathBuf>,
    /// `--devices`.
    pub devices: Vec<String>,
    /// `--xdp-mode`.
    pub xdp_mode: XdpMode,
}

/// Settings that make no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not a network.
    #[error("{setting}: {value:?} is not a network such as 10.244.0.0/16")]
    Network {
        /// The flag or field.
        setting: &'static str,
        /// What it says.
        value: String,
    },
    /// Not an address.
    #[error("{setting}: {value:?} is not an address such as 0.0.0.0:10256")]
    Address {
        /// The flag.
        setting: &'static str,
        /// What it says.
        value: String,
    },
    /// The machine has no name.
    #[error("cannot find out this machine's host name; name the node with --hostname-override")]
    NoHostname(#[source] std::io::Error),
}

impl Config {
    /// Settles everything.
    ///
    /// # Errors
    /// The first setting that makes no sense.
    pub fn resolve(flags: Flags, file: FileConfig) -> Result<Self, ConfigError> {
        let defaults = Timeouts::default();
        let node_ports = first_of(flags.node_port_addresses, file.node_port_addresses);
        Ok(Self {
            node_name: node_name(flags.hostname_override.or(file.hostname_override))?,
            node_port_addresses: node_port_addresses(&node_ports)?,
            loopback_node_ports: file.localhost_node_ports.unwrap_or(true),
            cluster_cidrs: cluster_cidrs(flags.cluster_cidr.or(file.cluster_cidr))?,
            non_masquerade_cidrs: networks("--non-masquerade-cidrs", &flags.non_masquerade_cidrs)?,
            masquerade: flags.masquerade,
            metrics_address: bind_address(
                "--metrics-bind-address",
                flags.metrics_bind_address,
                file.metrics_address.unwrap_or(METRICS_ADDRESS),
            )?,
            healthz_address: bind_address(
                "--healthz-bind-address",
                flags.healthz_bind_address,
                file.healthz_address.unwrap_or(HEALTHZ_ADDRESS),
            )?,
            kubeconfig: flags.kubeconfig.or(file.kubeconfig),
            bpf_root: flags.bpf_root,
            cgroup_path: flags.cgroup_path,
            devices: flags.devices,
            xdp_mode: flags.xdp_mode,
            timeouts: Timeouts {
                tcp_established: file.tcp_established.unwrap_or(defaults.tcp_established),
                udp_new: file.udp_new.unwrap_or(defaults.udp_new),
                udp_established: file.udp_established.unwrap_or(defaults.udp_established),
                ..defaults
            },
        })
    }
}

fn first_of(flags: Vec<String>, file: Vec<String>) -> Vec<String> {
    if flags.is_empty() { file } else { flags }
}

/// As the kubelet names its Node: the host name in lower case.
fn node_name(given: Option<String>) -> Result<String, ConfigError> {
    let name = match given {
        Some(name) => name,
        None => {
            let name = nix::unistd::gethostname()
                .map_err(|error| ConfigError::NoHostname(error.into()))?;
            name.to_string_lossy().into_owned()
        }
    };
    Ok(name.trim().to_lowercase())
}

fn node_port_addresses(texts: &[String]) -> Result<NodePortAddresses, ConfigError> {
    match texts {
        [] => Ok(NodePortAddresses::All),
        [only] if only == "primary" => Ok(NodePortAddresses::Primary),
        texts => Ok(NodePortAddresses::In(networks(
            "--node-port-addresses",
            texts,
        )?)),
    }
}

fn cluster_cidrs(text: Option<String>) -> Result<Vec<IpNetwork>, ConfigError> {
    let text = text.unwrap_or_default();
    let parts: Vec<_> = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(str::to_owned)
        .collect();
    networks("--cluster-cidr", &parts)
}

fn networks(setting: &'static str, texts: &[String]) -> Result<Vec<IpNetwork>, ConfigError> {
    let parse = |text: &String| {
        let network: Option<IpNetwork> = text.trim().parse().ok();
        let network = network.filter(|_| text.contains('/'));
        network.ok_or_else(|| ConfigError::Network {
            setting,
            value: text.clone(),
        })
    };
    texts.iter().map(parse).collect()
}

/// An empty address switches the server off, as with kube-proxy.
fn bind_address(
    setting: &'static str,
    flag: Option<String>,
    otherwise: SocketAddr,
) -> Result<Option<SocketAddr>, ConfigError> {
    match flag {
        None => Ok(Some(otherwise)),
        Some(text) if text.is_empty() => Ok(None),
        Some(text) => match parse_address(&text, otherwise.port()) {
            Some(addr) => Ok(Some(addr)),
            None => Err(ConfigError::Address {
                setting,
                value: text,
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_the_file_and_the_file_before_defaults() {
        let flags = Flags {
            hostname_override: Some("Node1 ".to_owned()),
            metrics_bind_address: Some(String::new()),
            healthz_bind_address: Some("[::1]:1".to_owned()),
            cluster_cidr: Some("10.244.0.0/16, fd00:10:244::/56".to_owned()),
            ..Flags::default()
        };
        let file = FileConfig {
            hostname_override: Some("other".to_owned()),
            healthz_address: Some(METRICS_ADDRESS),
            node_port_addresses: vec!["primary".to_owned()],
            ..FileConfig::default()
        };
        let config = Config::resolve(flags, file).unwrap();
        assert_eq!(config.node_name, "node1");
        assert_eq!(config.metrics_address, None);
        assert_eq!(config.healthz_address, Some("[::1]:1".parse().unwrap()));
        assert_eq!(config.node_port_addresses, NodePortAddresses::Primary);
        assert_eq!(config.cluster_cidrs.len(), 2);
        assert_eq!(config.timeouts, Timeouts::default());
    }

    #[test]
    fn nonsense_names_the_setting() {
        for (flags, expected) in [
            (
                Flags {
                    cluster_cidr: Some("10.0.0.0".to_owned()),
                    ..Flags::default()
                },
                "--cluster-cidr: \"10.0.0.0\" is not a network",
            ),
            (
                Flags {
                    node_port_addresses: vec!["x".to_owned()],
                    ..Flags::default()
                },
                "--node-port-addresses: \"x\"",
            ),
            (
                Flags {
                    healthz_bind_address: Some("x".to_owned()),
                    ..Flags::default()
                },
                "--healthz-bind-address: \"x\" is not an address",
            ),
        ] {
            let error = Config::resolve(flags, FileConfig::default()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
