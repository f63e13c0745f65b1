//! What the runtime is told about a pod's sandbox: names, DNS, host ports, cgroup, namespaces.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{HostAlias, Pod, PodDNSConfig};

use super::{labels, spec};
use crate::cri::v1;

/// Longest hostname that Linux takes.
const MAX_HOSTNAME: usize = 63;

/// What a node adds to every sandbox.
#[derive(Clone, Debug, Default)]
pub struct NodeDns {
    /// Addresses of the cluster's DNS service; empty when there is none.
    pub servers: Vec<String>,
    /// Domain of the cluster.
    pub domain: String,
    /// The resolver configuration of the node, for `dnsPolicy: Default`.
    pub resolv_conf: PathBuf,
}

/// Directory of a pod's logs below `logs`.
pub fn log_directory(logs: &Path, pod: &Pod) -> PathBuf {
    logs.join(format!(
        "{}_{}_{}",
        spec::namespace(pod),
        spec::name(pod),
        spec::uid(pod)
    ))
}

/// The sandbox configuration of a pod.
pub fn config(
    pod: &Pod,
    attempt: u32,
    dns: &NodeDns,
    logs: &Path,
    cgroup_parent: String,
) -> v1::PodSandboxConfig {
    let metadata = v1::PodSandboxMetadata {
        name: spec::name(pod).into(),
        uid: spec::uid(pod).into(),
        namespace: spec::namespace(pod).into(),
        attempt,
    };
    v1::PodSandboxConfig {
        metadata: Some(metadata),
        hostname: if spec::host_network(pod) {
            String::new()
        } else {
            hostname(pod, &dns.domain).0
        },
        log_directory: log_directory(logs, pod).to_string_lossy().into_owned(),
        dns_config: Some(dns_config(pod, dns)),
        port_mappings: port_mappings(pod),
        labels: labels::sandbox_labels(pod),
        annotations: labels::sandbox_annotations(pod),
        linux: Some(linux(pod, cgroup_parent)),
    }
}

/// Hostname and fully qualified name (empty without a subdomain) of a pod.
pub fn hostname(pod: &Pod, domain: &str) -> (String, String) {
    let spec = spec::spec(pod);
    let wanted = spec
        .hostname
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or(spec::name(pod));
    let mut short: String = wanted.chars().take(MAX_HOSTNAME).collect();
    short.truncate(short.trim_end_matches(['-', '.']).len());
    let full = match spec.subdomain.as_deref().filter(|name| !name.is_empty()) {
        Some(subdomain) => format!("{short}.{subdomain}.{}.svc.{domain}", spec::namespace(pod)),
        None => String::new(),
    };
    if spec.set_hostname_as_fqdn == Some(true) && !full.is_empty() {
        (full.clone(), full)
    } else {
        (short, full)
    }
}

fn port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    let ports =
        spec::all_containers(pod).flat_map(|(container, _)| container.ports.iter().flatten());
    let on_host = ports
        .filter(|port| port.host_port.is_some_and(|port| port > 0) && !spec::host_network(pod));
    let mapping = |port: &k8s_openapi::api::core::v1::ContainerPort| v1::PortMapping {
        protocol: match port.protocol.as_deref() {
            Some("UDP") => v1::Protocol::Udp,
            Some("SCTP") => v1::Protocol::Sctp,
            _ => v1::Protocol::Tcp,
        }
        .into(),
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or_default(),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    };
    on_host.map(mapping).collect()
}

fn linux(pod: &Pod, cgroup_parent: String) -> v1::LinuxPodSandboxConfig {
    let context = spec::spec(pod).security_context.as_ref();
    let sysctls = context
        .iter()
        .flat_map(|context| context.sysctls.iter().flatten());
    let sysctls = sysctls
        .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
        .collect();
    let privileged =
        spec::all_containers(pod).any(|(container, _)| super::container::privileged(container));
    let id = |value: Option<i64>| value.map(|value| v1::Int64Value { value });
    let security_context = v1::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod)),
        run_as_user: id(context.and_then(|context| context.run_as_user)),
        run_as_group: id(context
            .filter(|c| c.run_as_user.is_some())
            .and_then(|context| context.run_as_group)),
        supplemental_groups: super::container::supplemental_groups(pod),
        privileged,
        ..Default::default()
    };
    v1::LinuxPodSandboxConfig {
        cgroup_parent,
        security_context: Some(security_context),
        sysctls,
        ..Default::default()
    }
}

/// Which namespaces the pod shares with the node or among its containers.
pub fn namespaces(pod: &Pod) -> v1::NamespaceOption {
    let spec = spec::spec(pod);
    let host = |set: Option<bool>, otherwise| {
        if set == Some(true) {
            v1::NamespaceMode::Node
        } else {
            otherwise
        }
    };
    let shared = spec.share_process_namespace == Some(true);
    let pid = if shared {
        v1::NamespaceMode::Pod
    } else {
        v1::NamespaceMode::Container
    };
    v1::NamespaceOption {
        network: host(spec.host_network, v1::NamespaceMode::Pod).into(),
        pid: host(spec.host_pid, pid).into(),
        ipc: host(spec.host_ipc, v1::NamespaceMode::Pod).into(),
        target_id: String::new(),
    }
}

/// The resolver configuration that a pod's `dnsPolicy` and `dnsConfig` ask for.
fn dns_config(pod: &Pod, node: &NodeDns) -> v1::DnsConfig {
    let spec = spec::spec(pod);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let from_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !spec::host_network(pod),
        _ => false,
    };
    let base = match policy {
        "None" => v1::DnsConfig::default(),
        _ if from_cluster && !node.servers.is_empty() => cluster_dns(spec::namespace(pod), node),
        _ => host_dns(&node.resolv_conf),
    };
    match &spec.dns_config {
        Some(extra) => merge(base, extra),
        None => base,
    }
}

fn cluster_dns(namespace: &str, node: &NodeDns) -> v1::DnsConfig {
    let domain = &node.domain;
    let host = host_dns(&node.resolv_conf);
    let mut searches = vec![
        format!("{namespace}.svc.{domain}"),
        format!("svc.{domain}"),
        domain.clone(),
    ];
    searches.extend(host.searches);
    v1::DnsConfig {
        servers: node.servers.clone(),
        searches,
        options: vec!["ndots:5".into()],
    }
}

fn host_dns(path: &Path) -> v1::DnsConfig {
    parse_resolv_conf(&std::fs::read_to_string(path).unwrap_or_default())
}

fn parse_resolv_conf(text: &str) -> v1::DnsConfig {
    let mut found = v1::DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => found.servers.extend(words.next().map(str::to_owned)),
            Some("search") => found.searches = words.map(str::to_owned).collect(),
            Some("options") => found.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    found
}

fn merge(mut base: v1::DnsConfig, extra: &PodDNSConfig) -> v1::DnsConfig {
    append(&mut base.servers, extra.nameservers.iter().flatten());
    append(&mut base.searches, extra.searches.iter().flatten());
    for option in extra.options.iter().flatten() {
        let name = option.name.as_deref().unwrap_or_default();
        base.options
            .retain(|known| known.split(':').next() != Some(name));
        base.options.push(match option.value.as_deref() {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        });
    }
    base
}

fn append<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

/// The file that the pod sees as /etc/hosts. A pod in the node's network gets the node's own with its aliases.
pub fn hosts_file(pod: &Pod, pod_ips: &[String], domain: &str) -> String {
    let aliases = spec::spec(pod).host_aliases.as_deref().unwrap_or_default();
    if spec::host_network(pod) {
        let own = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
        return format!(
            "# Kubernetes-managed hosts file (host network).\n{own}{}",
            alias_lines(aliases)
        );
    }
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::\tip6-localnet\nfe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    let (short, full) = hostname(pod, domain);
    for ip in pod_ips {
        let names = if full.is_empty() {
            short.clone()
        } else {
            format!("{full}\t{short}")
        };
        text.push_str(&format!("{ip}\t{names}\n"));
    }
    text + &alias_lines(aliases)
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let line = |alias: &HostAlias| {
        format!(
            "{}\t{}\n",
            alias.ip,
            alias
                .hostnames
                .iter()
                .flatten()
                .cloned()
                .collect::<Vec<_>>()
                .join("\t")
        )
    };
    format!(
        "\n# Entries added by HostAliases.\n{}",
        aliases.iter().map(line).collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(
            json!({ "metadata": { "name": "web-0", "namespace": "ns", "uid": "u" }, "spec": spec }),
        )
        .unwrap()
    }

    fn node() -> NodeDns {
        NodeDns {
            servers: vec!["10.96.0.10".into()],
            domain: "cluster.local".into(),
            resolv_conf: "/nonexistent".into(),
        }
    }

    #[test]
    fn names_of_pods() {
        assert_eq!(
            hostname(&pod(json!({ "containers": [] })), "d"),
            ("web-0".into(), String::new())
        );
        let named = pod(json!({ "containers": [], "hostname": "h", "subdomain": "s" }));
        assert_eq!(hostname(&named, "d"), ("h".into(), "h.s.ns.svc.d".into()));
        let mut long = pod(json!({ "containers": [] }));
        long.metadata.name = Some(format!("{}-{}", "a".repeat(62), "b".repeat(10)));
        assert_eq!(hostname(&long, "d").0, "a".repeat(62));
    }

    #[test]
    fn dns_policies() {
        let of = |spec| dns_config(&pod(spec), &node());
        let cluster = of(json!({ "containers": [] }));
        assert_eq!(cluster.servers, ["10.96.0.10"]);
        assert_eq!(cluster.searches[0], "ns.svc.cluster.local");
        assert!(
            of(json!({ "containers": [], "hostNetwork": true }))
                .servers
                .is_empty()
        );
        let own = of(
            json!({ "containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["192.0.2.53"], "options": [{ "name": "ndots", "value": "2" }] } }),
        );
        assert_eq!(
            (own.servers, own.options),
            (vec!["192.0.2.53".to_owned()], vec!["ndots:2".to_owned()])
        );
        let more = of(
            json!({ "containers": [], "dnsConfig": { "options": [{ "name": "ndots", "value": "1" }] } }),
        );
        assert_eq!(more.options, ["ndots:1"]);
    }

    #[test]
    fn the_hosts_file_names_the_pod_in_both_families() {
        let pod = pod(
            json!({ "containers": [], "hostAliases": [{ "ip": "192.0.2.7", "hostnames": ["a", "b"] }] }),
        );
        let text = hosts_file(&pod, &["10.0.0.2".into(), "fd00::2".into()], "d");
        for line in [
            "127.0.0.1\tlocalhost",
            "10.0.0.2\tweb-0",
            "fd00::2\tweb-0",
            "192.0.2.7\ta\tb",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}");
        }
    }

    #[test]
    fn host_ports_are_mapped_only_outside_the_host_network() {
        let spec = |host: bool| {
            json!({ "hostNetwork": host, "containers": [{ "name": "c", "ports": [
            { "containerPort": 80, "hostPort": 8080, "protocol": "UDP" }, { "containerPort": 81 }] }] })
        };
        let mapped = port_mappings(&pod(spec(false)));
        assert_eq!(mapped.len(), 1);
        assert_eq!(
            (mapped[0].host_port, mapped[0].protocol()),
            (8080, v1::Protocol::Udp)
        );
        assert!(port_mappings(&pod(spec(true))).is_empty());
    }
}
