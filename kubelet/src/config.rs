//! `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1), the fields that apply here. Others are warned of by
//! name: a file written for another kubelet works, and nothing of it is lost silently.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;
use serde::Deserialize;
use serde_json::Value;

/// Why a configuration file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not a KubeletConfiguration, or a field has the wrong type.
    #[error("{path}: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        message: String,
    },
}

/// The file's fields, all optional; flags win over them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileConfig {
    /// Address of both servers.
    pub address: Option<String>,
    /// Port of the authenticated server.
    pub port: Option<u16>,
    /// Port of the read-only server; 0 for none.
    pub read_only_port: Option<u16>,
    /// Serving certificate.
    pub tls_cert_file: Option<PathBuf>,
    /// Serving key.
    pub tls_private_key_file: Option<PathBuf>,
    /// Who may call the authenticated server.
    pub authentication: Authentication,
    /// Socket of the runtime.
    pub container_runtime_endpoint: Option<String>,
    /// Parent of `kubepods`.
    pub cgroup_root: Option<String>,
    /// `cgroupfs`; others are refused.
    pub cgroup_driver: Option<String>,
    /// Domain of the cluster.
    pub cluster_domain: Option<String>,
    /// Addresses of the cluster's DNS service.
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    /// The node's resolver configuration.
    pub resolv_conf: Option<PathBuf>,
    /// Most pods at a time.
    pub max_pods: Option<u32>,
    /// Time between two looks at the node.
    #[serde(deserialize_with = "duration")]
    pub node_status_update_frequency: Option<Duration>,
    /// Seconds after which a Lease that was not renewed has run out.
    pub node_lease_duration_seconds: Option<i32>,
    /// Taints that the node registers with.
    pub register_with_taints: Vec<Taint>,
    /// Resources that pods may not use.
    pub system_reserved: BTreeMap<String, String>,
    /// Resources that pods may not use.
    pub kube_reserved: BTreeMap<String, String>,
    /// Size at which a container's log is rotated.
    pub container_log_max_size: Option<String>,
    /// Log files kept for a container.
    pub container_log_max_files: Option<usize>,
    /// Directory of pods' logs.
    pub pod_logs_dir: Option<PathBuf>,
}

/// `authentication`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Authentication {
    /// `authentication.x509`.
    pub x509: X509,
}

/// `authentication.x509`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct X509 {
    /// CA of client certificates.
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: Option<PathBuf>,
}

/// Names of the fields above.
const KNOWN: [&str; 24] = [
    "address",
    "port",
    "readOnlyPort",
    "tlsCertFile",
    "tlsPrivateKeyFile",
    "authentication",
    "containerRuntimeEndpoint",
    "cgroupRoot",
    "cgroupDriver",
    "clusterDomain",
    "clusterDNS",
    "resolvConf",
    "maxPods",
    "nodeStatusUpdateFrequency",
    "nodeLeaseDurationSeconds",
    "registerWithTaints",
    "systemReserved",
    "kubeReserved",
    "containerLogMaxSize",
    "containerLogMaxFiles",
    "podLogsDir",
    "apiVersion",
    "kind",
    "metadata",
];

/// Reads a configuration file; also returns the names of its fields that are not used.
///
/// # Errors
/// Names the file, and the field that is wrong.
pub fn read(path: &Path) -> Result<(FileConfig, Vec<String>), Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&text).map_err(|message| Error::Invalid {
        path: path.to_owned(),
        message,
    })
}

fn parse(text: &str) -> Result<(FileConfig, Vec<String>), String> {
    let value: Value = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    let is = |field: &str, expected: &str| match value.get(field).and_then(Value::as_str) {
        Some(found) if found == expected => Ok(()),
        found => Err(format!("{field} is {found:?}, expected {expected:?}")),
    };
    is("kind", "KubeletConfiguration")?;
    is("apiVersion", "kubelet.config.k8s.io/v1beta1")?;
    let fields = value.as_object().into_iter().flat_map(|map| map.keys());
    let unused = fields
        .filter(|field| !KNOWN.contains(&field.as_str()))
        .cloned()
        .collect();
    let config: FileConfig = serde_json::from_value(value).map_err(|error| error.to_string())?;
    match config.cgroup_driver.as_deref() {
        None | Some("cgroupfs") => Ok((config, unused)),
        Some(other) => Err(format!(
            "cgroupDriver {other:?} is not supported: expected \"cgroupfs\""
        )),
    }
}

/// A duration as Go writes it: `10s`, `1m30s`, `500ms`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let invalid = || {
        format!("{text:?} is not a duration: expected a number with a unit, such as 10s or 1m30s")
    };
    let mut total = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |end| digits + end);
        total += number * unit(&rest[digits..unit_end]).ok_or_else(invalid)?;
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(total).map_err(|_| invalid())
}

fn unit(name: &str) -> Option<f64> {
    Some(match name {
        "h" => 3600.0,
        "m" => 60.0,
        "s" => 1.0,
        "ms" => 1e-3,
        "us" | "µs" => 1e-6,
        "ns" => 1e-9,
        _ => return None,
    })
}

fn duration<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_duration(&text))
        .transpose()
        .map_err(serde::de::Error::custom)
}

/// A taint as a flag writes it: `key=value:Effect` or `key:Effect`.
pub fn parse_taint(text: &str) -> Result<Taint, String> {
    let invalid = || format!("{text:?} is not a taint: expected key=value:Effect");
    let (left, effect) = text.rsplit_once(':').ok_or_else(invalid)?;
    let (key, value) = left.split_once('=').unwrap_or((left, ""));
    if key.is_empty() || !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(invalid());
    }
    let value = (!value.is_empty()).then(|| value.to_owned());
    Ok(Taint {
        key: key.into(),
        value,
        effect: effect.into(),
        time_added: None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

    #[test]
    fn a_file_is_read_and_unused_fields_are_named() {
        let text = format!(
            "{HEAD}maxPods: 20\nclusterDNS: [10.96.0.10]\nnodeStatusUpdateFrequency: 1m30s\nevictionHard: {{}}\nauthentication: {{x509: {{clientCAFile: /ca}}}}\n"
        );
        let (config, unused) = parse(&text).unwrap();
        assert_eq!(config.max_pods, Some(20));
        assert_eq!(config.cluster_dns, ["10.96.0.10"]);
        assert_eq!(
            config.node_status_update_frequency,
            Some(Duration::from_secs(90))
        );
        assert_eq!(unused, ["evictionHard"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("kind: Pod", "expected \"KubeletConfiguration\""),
            (&format!("{HEAD}maxPods: many"), "many"),
            (
                &format!("{HEAD}cgroupDriver: systemd"),
                "expected \"cgroupfs\"",
            ),
            (&format!("{HEAD}nodeStatusUpdateFrequency: 10"), "10"),
        ];
        for (text, expected) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn durations_and_taints() {
        assert_eq!(parse_duration("1h2m3s"), Ok(Duration::from_secs(3723)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        for bad in ["", "10", "s", "10x", "-1s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        let taint = parse_taint("a/b=c:NoSchedule").unwrap();
        assert_eq!(
            (taint.key.as_str(), taint.value.as_deref()),
            ("a/b", Some("c"))
        );
        assert!(parse_taint("a=b").is_err() && parse_taint("a:Never").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,80}") {
            let _ = (parse(&text), parse_duration(&text), parse_taint(&text));
        }
    }
}
