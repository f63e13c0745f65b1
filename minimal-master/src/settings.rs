//! The master's settings: the same keys as flags and in the file that `--config` names.
//!
//! One struct is read by both, so a setting can't exist in one place only. A flag wins over the file,
//! the file over the default.

use std::{
    net::IpAddr,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use ipnetwork::IpNetwork;
use serde::Deserialize;

use sluice_apiserver::pki::cli::DEFAULT_DATA_DIR;

macro_rules! settings {
    ($($(#[$meta:meta])* $name:ident: $ty:ty,)+) => {
        /// What can be set, each setting absent unless it was given.
        #[derive(Args, Clone, Debug, Default, Deserialize, PartialEq)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub struct Settings {
            $($(#[$meta])* pub $name: Option<$ty>,)+
        }

        impl Settings {
            /// These settings, and `other`'s where these have none.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name),)+ }
            }
        }
    };
}

settings! {
    /// Directory for the store, keys and certificates [default: /var/lib/sluice/master]
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Address to serve on [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    bind_address: IpAddr,
    /// Port to serve on, 0 for any free one; sockets inherited by LISTEN_FDS are served besides [default: 6443]
    #[arg(long, value_name = "PORT")]
    secure_port: u16,
    /// Address by which the cluster's members reach this API server: the backend of the `kubernetes` Service
    #[arg(long, value_name = "IP")]
    advertise_address: IpAddr,
    /// More names and addresses for the serving certificate, comma-separated
    #[arg(long, value_name = "NAME|IP,...")]
    tls_san: List<String>,
    /// Networks for cluster IPs, one per family, comma-separated [default: 10.96.0.0/16,fd00:10:96::/112]
    #[arg(long, value_name = "CIDR,...")]
    service_cluster_ip_range: List<IpNetwork>,
    /// Networks for pods, one per family, comma-separated; empty: nodes get no pod CIDRs [default: 10.244.0.0/16,fd00:10:244::/56]
    #[arg(long, value_name = "CIDR,...")]
    cluster_cidr: List<IpNetwork>,
    /// Prefix length of a node's IPv4 pod CIDR [default: 24]
    #[arg(long, value_name = "BITS")]
    node_cidr_mask_size_ipv4: u8,
    /// Prefix length of a node's IPv6 pod CIDR [default: 64]
    #[arg(long, value_name = "BITS")]
    node_cidr_mask_size_ipv6: u8,
    /// Ports for node ports [default: 30000-32767]
    #[arg(long, value_name = "FIRST-LAST")]
    service_node_port_range: PortRange,
    /// How long a node may be silent before it counts as lost [default: 40s]
    #[arg(long, value_name = "DURATION")]
    node_monitor_grace_period: Span,
    /// How often nodes are looked at [default: 5s]
    #[arg(long, value_name = "DURATION")]
    node_monitor_period: Span,
    /// How long pods stay on a node that is not ready, unless they say otherwise [default: 300]
    #[arg(long, value_name = "SECONDS")]
    default_not_ready_toleration_seconds: i64,
    /// How long pods stay on a node that is unreachable, unless they say otherwise [default: 300]
    #[arg(long, value_name = "SECONDS")]
    default_unreachable_toleration_seconds: i64,
    /// Bearer tokens: lines of `token,user,uid[,"group1,group2"]`
    #[arg(long, value_name = "FILE")]
    token_auth_file: PathBuf,
    /// Authority that kubelets' serving certificates must be of, in PEM; any certificate is taken without it
    #[arg(long, value_name = "FILE")]
    kubelet_certificate_authority: PathBuf,
    /// Where the administrator's kubeconfig is written [default: DATA_DIR/admin.kubeconfig]
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// The server's address in that kubeconfig [default: https://127.0.0.1:PORT]
    #[arg(long, value_name = "URL")]
    kubeconfig_server: String,
}

impl Settings {
    /// Reads the file of settings in YAML. Unknown keys are errors that name the key.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_yaml_ng::from_str(&text).with_context(|| format!("{}", path.display()))
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir
            .clone()
            .unwrap_or_else(|| DEFAULT_DATA_DIR.into())
    }

    /// Where the administrator's kubeconfig is written.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig
            .clone()
            .unwrap_or_else(|| self.data_dir().join("admin.kubeconfig"))
    }

    /// The pods' networks.
    pub fn cluster_cidrs(&self) -> anyhow::Result<Vec<IpNetwork>> {
        match &self.cluster_cidr {
            Some(given) => one_per_family("cluster-cidr", given.0.clone()),
            None => Ok(vec!["10.244.0.0/16".parse()?, "fd00:10:244::/56".parse()?]),
        }
    }

    /// The API server's share of the settings.
    pub fn apiserver(
        &self,
        inherited: Vec<std::net::TcpListener>,
    ) -> anyhow::Result<sluice_apiserver::Config> {
        let default = sluice_apiserver::Config::default();
        Ok(sluice_apiserver::Config {
            data_dir: self.data_dir(),
            bind_address: self.bind_address.unwrap_or(default.bind_address),
            secure_port: self.secure_port.unwrap_or(default.secure_port),
            advertise_address: self.advertise_address,
            tls_sans: self.tls_san.clone().map(|list| list.0).unwrap_or_default(),
            service_cidrs: one_per_family(
                "service-cluster-ip-range",
                self.service_cluster_ip_range
                    .as_ref()
                    .map_or(default.service_cidrs, |l| l.0.clone()),
            )?,
            node_port_range: self
                .service_node_port_range
                .clone()
                .map_or(default.node_port_range, |range| range.0),
            token_auth_file: self.token_auth_file.clone(),
            default_not_ready_toleration_seconds: self
                .default_not_ready_toleration_seconds
                .unwrap_or(default.default_not_ready_toleration_seconds),
            default_unreachable_toleration_seconds: self
                .default_unreachable_toleration_seconds
                .unwrap_or(default.default_unreachable_toleration_seconds),
            kubelet_certificate_authority: self.kubelet_certificate_authority.clone(),
            inherited,
            ..default
        })
    }
}

/// At most one network of each family: more would be silently unused.
fn one_per_family(flag: &str, networks: Vec<IpNetwork>) -> anyhow::Result<Vec<IpNetwork>> {
    for v4 in [true, false] {
        if networks
            .iter()
            .filter(|network| network.is_ipv4() == v4)
            .count()
            > 1
        {
            bail!("--{flag}: expected at most one network per address family");
        }
    }
    Ok(networks)
}

/// A comma-separated list on the command line; in the file, that or a YAML list.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T>(pub Vec<T>);

impl<T: std::str::FromStr<Err: std::fmt::Display>> std::str::FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |item: &str| {
            item.trim()
                .parse()
                .map_err(|error| format!("{item:?}: {error}"))
        };
        let items = text.split(',').filter(|item| !item.trim().is_empty());
        items.map(parse).collect::<Result<_, _>>().map(Self)
    }
}

impl<'de, T> Deserialize<'de> for List<T>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Text(String),
            Items(Vec<String>),
        }
        let text = match Either::deserialize(deserializer)? {
            Either::Text(text) => text,
            Either::Items(items) => items.join(","),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

macro_rules! deserialize_from_str {
    ($($ty:ty),+) => {$(
        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

deserialize_from_str!(PortRange, Span);

/// `FIRST-LAST`, both included.
#[derive(Clone, Debug, PartialEq)]
pub struct PortRange(pub RangeInclusive<u16>);

impl std::str::FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("expected FIRST-LAST with 1 <= FIRST <= LAST <= 65535, not {text:?}");
        let (first, last) = text.split_once('-').ok_or_else(expected)?;
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Self(first..=last)),
            _ => Err(expected()),
        }
    }
}

/// A duration as Kubernetes' flags spell it: `40s`, `1m30s`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span(pub Duration);

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("expected a positive duration such as 40s or 1m30s, not {text:?}");
        let parsed: jiff::SignedDuration = text.parse().map_err(|_| expected())?;
        match Duration::try_from(parsed) {
            Ok(duration) if !duration.is_zero() => Ok(Self(duration)),
            _ => Err(expected()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file() {
        let flags = Settings {
            secure_port: Some(7443),
            ..Settings::default()
        };
        let file: Settings =
            serde_yaml_ng::from_str("secure-port: 8443\nnode-monitor-grace-period: 1m30s\n")
                .unwrap();
        let both = flags.or(file);
        assert_eq!(both.secure_port, Some(7443));
        assert_eq!(
            both.node_monitor_grace_period,
            Some(Span(Duration::from_secs(90)))
        );
    }

    #[test]
    fn the_file_takes_lists_in_both_forms() {
        let text = "cluster-cidr: 10.1.0.0/16,fd00::/56\ntls-san: [a.example, 192.0.2.1]\n";
        let file: Settings = serde_yaml_ng::from_str(text).unwrap();
        assert_eq!(file.cluster_cidr.unwrap().0.len(), 2);
        assert_eq!(file.tls_san.unwrap().0, ["a.example", "192.0.2.1"]);
    }

    #[test]
    fn an_unknown_key_is_named() {
        let error = serde_yaml_ng::from_str::<Settings>("secure-prot: 1\n").unwrap_err();
        assert!(error.to_string().contains("secure-prot"), "{error}");
    }

    #[test]
    fn ranges_and_durations_say_what_was_expected() {
        for text in ["30000", "0-10", "9-3", "1-70000", "a-b"] {
            assert!(
                text.parse::<PortRange>()
                    .unwrap_err()
                    .contains("FIRST-LAST"),
                "{text}"
            );
        }
        for text in ["", "5", "-3s", "0s", "soon"] {
            assert!(text.parse::<Span>().unwrap_err().contains("40s"), "{text}");
        }
        assert_eq!(
            "500ms".parse::<Span>().unwrap().0,
            Duration::from_millis(500)
        );
    }

    #[test]
    fn two_networks_of_one_family_are_refused() {
        let networks = vec![
            "10.0.0.0/16".parse().unwrap(),
            "10.1.0.0/16".parse().unwrap(),
        ];
        let error = one_per_family("cluster-cidr", networks)
            .unwrap_err()
            .to_string();
        assert!(error.contains("--cluster-cidr"), "{error}");
    }
}
