//! kube-proxy's configuration file: `KubeProxyConfiguration` of `kubeproxy.config.k8s.io/v1alpha1`.
//!
//! Fields that apply are read strictly; the others, known and unknown, are named in a warning when
//! they ask for something, so that nobody believes they are in force.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::duration;

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// It is no YAML.
    #[error("{path} is not valid YAML")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        #[source]
        source: serde_yaml_ng::Error,
    },
    /// It is a file of something else.
    #[error(
        "{path}: expected kind KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1, found {found}"
    )]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it says it is.
        found: String,
    },
    /// A field has a value that makes no sense.
    #[error("{path}: {field}: {value} is not {expected}")]
    Field {
        /// The file.
        path: PathBuf,
        /// The field's path.
        field: String,
        /// What is there.
        value: String,
        /// What should be.
        expected: &'static str,
    },
}

/// The fields that apply; `None` or empty: not set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileConfig {
    /// `clientConnection.kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `hostnameOverride`.
    pub hostname_override: Option<String>,
    /// `nodePortAddresses`.
    pub node_port_addresses: Vec<String>,
    /// `clusterCIDR`, comma separated.
    pub cluster_cidr: Option<String>,
    /// `metricsBindAddress`.
    pub metrics_address: Option<SocketAddr>,
    /// `healthzBindAddress`.
    pub healthz_address: Option<SocketAddr>,
    /// `iptables.localhostNodePorts`.
    pub localhost_node_ports: Option<bool>,
    /// `conntrack.tcpEstablishedTimeout`.
    pub tcp_established: Option<Duration>,
    /// `conntrack.udpTimeout`.
    pub udp_new: Option<Duration>,
    /// `conntrack.udpStreamTimeout`.
    pub udp_established: Option<Duration>,
    /// Paths of fields that ask for something that has no effect here.
    pub ignored: Vec<String>,
}

impl FileConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is something else, or a field that applies makes no sense.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = std::fs::read_to_string(path).map_err(|source| FileError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let value: Value = serde_yaml_ng::from_str(text).map_err(|source| FileError::Syntax {
            path: path.to_owned(),
            source,
        })?;
        let word = |field: &str| value[field].as_str().unwrap_or("nothing").to_owned();
        let (version, kind) = (word("apiVersion"), word("kind"));
        if version != "kubeproxy.config.k8s.io/v1alpha1" || kind != "KubeProxyConfiguration" {
            return Err(FileError::Kind {
                path: path.to_owned(),
                found: format!("{version} {kind}"),
            });
        }
        let mut config = Self::default();
        let mut leaves = Vec::new();
        collect_leaves("", &value, &mut leaves);
        for (field, value) in leaves {
            config.set(path, field, value)?;
        }
        config.ignored.sort_unstable();
        Ok(config)
    }

    fn set(&mut self, path: &Path, field: String, value: &Value) -> Result<(), FileError> {
        let known = match field.as_str() {
            "apiVersion" | "kind" => Ok(()),
            "clientConnection.kubeconfig" => {
                text(value).map(|text| self.kubeconfig = Some(text.into()))
            }
            "hostnameOverride" => text(value).map(|text| self.hostname_override = Some(text)),
            "nodePortAddresses" => texts(value).map(|texts| self.node_port_addresses = texts),
            "clusterCIDR" => text(value).map(|text| self.cluster_cidr = Some(text)),
            "metricsBindAddress" => {
                address(value, 10_249).map(|addr| self.metrics_address = Some(addr))
            }
            "healthzBindAddress" => {
                address(value, 10_256).map(|addr| self.healthz_address = Some(addr))
            }
            "iptables.localhostNodePorts" => {
                boolean(value).map(|set| self.localhost_node_ports = Some(set))
            }
            "conntrack.tcpEstablishedTimeout" => {
                timeout(value).map(|time| self.tcp_established = Some(time))
            }
            "conntrack.udpTimeout" => timeout(value).map(|time| self.udp_new = Some(time)),
            "conntrack.udpStreamTimeout" => {
                timeout(value).map(|time| self.udp_established = Some(time))
            }
            _ => {
                self.ignored.push(field.clone());
                Ok(())
            }
        };
        known.map_err(|expected| FileError::Field {
            path: path.to_owned(),
            field,
            value: value.to_string(),
            expected,
        })
    }
}

/// All fields that hold something, by path. Zero values are how kube-proxy's own dumps say "not set";
/// only a switch that is on by default means something when it is off.
fn collect_leaves<'a>(path: &str, value: &'a Value, leaves: &mut Vec<(String, &'a Value)>) {
    if let Value::Object(fields) = value {
        for (name, value) in fields {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            collect_leaves(&path, value, leaves);
        }
        return;
    }
    let unset = match value {
        Value::Null => true,
        Value::Bool(set) => !set && path != "iptables.localhostNodePorts",
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || duration::parse(text) == Some(Duration::ZERO),
        Value::Array(items) => items.is_empty(),
        Value::Object(_) => false,
    };
    if !unset {
        leaves.push((path.to_owned(), value));
    }
}

fn text(value: &Value) -> Result<String, &'static str> {
    value.as_str().map(str::to_owned).ok_or("a string")
}

fn texts(value: &Value) -> Result<Vec<String>, &'static str> {
    let items = value.as_array().ok_or("a list of strings")?;
    items
        .iter()
        .map(|item| text(item).map_err(|_| "a list of strings"))
        .collect()
}

fn boolean(value: &Value) -> Result<bool, &'static str> {
    value.as_bool().ok_or("true or false")
}

fn timeout(value: &Value) -> Result<Duration, &'static str> {
    value
        .as_str()
        .and_then(duration::parse)
        .ok_or("a duration such as 24h0m0s")
}

fn address(value: &Value, port: u16) -> Result<SocketAddr, &'static str> {
    value
        .as_str()
        .and_then(|text| parse_address(text, port))
        .ok_or("an address such as 0.0.0.0:10256")
}

/// `IP:PORT`, or `IP` with the default port.
pub(super) fn parse_address(text: &str, port: u16) -> Option<SocketAddr> {
    let plain = || {
        text.trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .ok()
            .map(|ip| SocketAddr::new(ip, port))
    };
    text.parse().ok().or_else(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<FileConfig, String> {
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        FileConfig::parse(Path::new("kube-proxy.yaml"), &format!("{head}{text}"))
            .map_err(|error| crate::chain(&error))
    }

    #[test]
    fn what_kubeadm_writes_is_read_and_what_cannot_apply_is_named() {
        let config = parse(
            "bindAddress: 0.0.0.0\nbindAddressHardFail: false\nclientConnection:\n  acceptContentTypes: ''\n  \
             burst: 0\n  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf\n  qps: 0\nclusterCIDR: 10.244.0.0/16\n\
             configSyncPeriod: 0s\nconntrack:\n  maxPerCore: null\n  min: null\n  tcpEstablishedTimeout: 1h0m0s\n\
             healthzBindAddress: ''\nhostnameOverride: ''\niptables:\n  localhostNodePorts: false\n  masqueradeAll: false\n  \
             syncPeriod: 0s\nipvs:\n  scheduler: rr\nmetricsBindAddress: 127.0.0.1\nmode: nftables\nnodePortAddresses: null\n\
             winkernel:\n  enableDSR: false\n",
        )
        .unwrap();
        assert_eq!(
            config.kubeconfig,
            Some("/var/lib/kube-proxy/kubeconfig.conf".into())
        );
        assert_eq!(config.cluster_cidr.as_deref(), Some("10.244.0.0/16"));
        assert_eq!(
            config.metrics_address,
            Some("127.0.0.1:10249".parse().unwrap())
        );
        assert_eq!(config.healthz_address, None);
        assert_eq!(config.tcp_established, Some(Duration::from_secs(3600)));
        assert_eq!(config.localhost_node_ports, Some(false));
        assert_eq!(config.ignored, ["bindAddress", "ipvs.scheduler", "mode"]);
    }

    #[test]
    fn a_wrong_value_names_file_field_and_what_was_expected() {
        for (text, expected) in [
            (
                "healthzBindAddress: nowhere",
                "kube-proxy.yaml: healthzBindAddress: \"nowhere\" is not an address such as 0.0.0.0:10256",
            ),
            (
                "nodePortAddresses: 7",
                "nodePortAddresses: 7 is not a list of strings",
            ),
            (
                "conntrack: {udpTimeout: soon}",
                "conntrack.udpTimeout: \"soon\" is not a duration",
            ),
            ("hostnameOverride: 5", "hostnameOverride: 5 is not a string"),
            ("a: [", "kube-proxy.yaml is not valid YAML"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn another_kind_of_file_is_refused() {
        let error =
            FileConfig::parse(Path::new("x.yaml"), "kind: KubeletConfiguration").unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("found nothing KubeletConfiguration"),
            "{error}"
        );
    }
}
