//! A Service, as far as it matters to routing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1 as api;

use super::problem::{Problems, read};
use super::{Family, Fault, ObjectName, Problem};
use crate::maps::Protocol;

/// A Service with this label belongs to another proxy.
pub const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// A Service or EndpointSlice with this label is headless and none of a proxy's business.
pub const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";

/// How long ClientIP affinity lasts when the Service does not say (API default).
const DEFAULT_AFFINITY: Duration = Duration::from_secs(10_800);

/// The part of a Service that routing depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Creation, in seconds since 1970: the older Service wins an address that two claim.
    pub created: i64,
    /// Cluster IPs, one per family.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` whose `ipMode` is VIP.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`; empty: everybody.
    pub source_ranges: Vec<IpNetwork>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// ClientIP session affinity and how long it lasts.
    pub affinity: Option<Duration>,
    /// `spec.healthCheckNodePort`, when its policy asks for one.
    pub health_check_node_port: Option<u16>,
}

/// A Service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty when it has none.
    pub name: Arc<str>,
    /// Protocol.
    pub protocol: Protocol,
    /// Port on cluster IPs, external IPs and load balancers.
    pub port: u16,
    /// Port on nodes.
    pub node_port: Option<u16>,
}

impl Service {
    /// Reads a Service; `None` when a proxy has nothing to do with it (kube-proxy's
    /// `ShouldSkipService` and its label selectors). What cannot be used is left out and named.
    pub fn from_api(name: &ObjectName, service: &api::Service) -> (Option<Self>, Vec<Problem>) {
        let Some(spec) = service.spec.as_ref().filter(|spec| !skipped(service, spec)) else {
            return (None, Vec::new());
        };
        let mut problems = Problems::new("Service", name.clone());
        let read = Self {
            created: created(service),
            cluster_ips: cluster_ips(spec, &mut problems),
            external_ips: external_ips(spec, &mut problems),
            load_balancer_ips: load_balancer_ips(service, &mut problems),
            source_ranges: source_ranges(spec, &mut problems),
            ports: ports(spec, &mut problems),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            affinity: affinity(spec, &mut problems),
            health_check_node_port: health_check_node_port(spec, &mut problems),
        };
        let read = read.in_own_families(&mut problems);
        (Some(read), problems.into_vec())
    }

    /// A Service is served in the families of its cluster IPs only, as by kube-proxy.
    pub fn has_family(&self, family: Family) -> bool {
        self.cluster_ips.iter().any(|ip| Family::of(*ip) == family)
    }

    fn in_own_families(mut self, problems: &mut Problems) -> Self {
        let families = Family::ALL.map(|family| self.has_family(family));
        let mut keep = |field: &str, ip: &IpAddr| {
            let known = families[Family::of(*ip) as usize];
            if !known {
                let expected = if families[0] { "IPv4" } else { "IPv6" };
                problems.add(
                    field,
                    Fault::WrongFamily {
                        value: ip.to_string(),
                        expected,
                    },
                );
            }
            known
        };
        self.external_ips.retain(|ip| keep("spec.externalIPs", ip));
        self.load_balancer_ips
            .retain(|ip| keep("status.loadBalancer.ingress", ip));
        self
    }

    /// Whether anything outside of the cluster can reach it.
    pub fn externally_accessible(&self) -> bool {
        !self.external_ips.is_empty()
            || !self.load_balancer_ips.is_empty()
            || self.ports.iter().any(|port| port.node_port.is_some())
    }
}

fn skipped(service: &api::Service, spec: &api::ServiceSpec) -> bool {
    let labelled = service.metadata.labels.as_ref().is_some_and(|labels| {
        labels.contains_key(PROXY_NAME_LABEL) || labels.contains_key(HEADLESS_LABEL)
    });
    let headless = matches!(spec.cluster_ip.as_deref(), None | Some("" | "None"));
    labelled || headless || spec.type_.as_deref() == Some("ExternalName")
}

fn created(service: &api::Service) -> i64 {
    service
        .metadata
        .creation_timestamp
        .as_ref()
        .map_or(i64::MAX, |time| time.0.as_second())
}

fn cluster_ips(spec: &api::ServiceSpec, problems: &mut Problems) -> Vec<IpAddr> {
    match spec.cluster_ips.as_deref() {
        Some(ips @ [_, ..]) => addresses("spec.clusterIPs", ips, problems),
        _ => addresses("spec.clusterIP", &spec.cluster_ip, problems),
    }
}

fn external_ips(spec: &api::ServiceSpec, problems: &mut Problems) -> Vec<IpAddr> {
    addresses(
        "spec.externalIPs",
        spec.external_ips.iter().flatten(),
        problems,
    )
}

fn addresses<'a>(
    field: &str,
    texts: impl IntoIterator<Item = &'a String>,
    problems: &mut Problems,
) -> Vec<IpAddr> {
    let read =
        |(i, text): (usize, &String)| problems.take(format!("{field}[{i}]"), read::address(text));
    let mut found: Vec<_> = texts.into_iter().enumerate().filter_map(read).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn load_balancer_ips(service: &api::Service, problems: &mut Problems) -> Vec<IpAddr> {
    let ingress = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let vips = ingress
        .into_iter()
        .flatten()
        .filter(|ingress| ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"))
        .filter_map(|ingress| ingress.ip.as_ref())
        .filter(|ip| !ip.is_empty());
    addresses("status.loadBalancer.ingress", vips, problems)
}

fn source_ranges(spec: &api::ServiceSpec, problems: &mut Problems) -> Vec<IpNetwork> {
    let read = |(i, text): (usize, &String)| {
        let network = text
            .trim()
            .parse()
            .map_err(|_| Fault::NotANetwork(text.clone()));
        problems.take(format!("spec.loadBalancerSourceRanges[{i}]"), network)
    };
    let texts = spec.load_balancer_source_ranges.iter().flatten();
    let mut found: Vec<_> = texts.enumerate().filter_map(read).map(canonical).collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// The network without host bits, so that equal networks are equal.
fn canonical(network: IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

fn ports(spec: &api::ServiceSpec, problems: &mut Problems) -> Vec<ServicePort> {
    let mut found: Vec<ServicePort> = Vec::new();
    for (i, port) in spec.ports.iter().flatten().enumerate() {
        let Some(port) = port_from_api(i, port, problems) else {
            continue;
        };
        let same_name =
            |other: &ServicePort| other.name == port.name && other.protocol == port.protocol;
        let same_port =
            |other: &ServicePort| other.port == port.port && other.protocol == port.protocol;
        if found.iter().any(same_name) {
            problems.add(
                format!("spec.ports[{i}].name"),
                Fault::Duplicate(format!("{:?}", port.name)),
            );
        } else if found.iter().any(same_port) {
            let text = format!("{}/{}", port.port, port.protocol);
            problems.add(format!("spec.ports[{i}].port"), Fault::Duplicate(text));
        } else {
            found.push(port);
        }
    }
    found
}

fn port_from_api(
    i: usize,
    port: &api::ServicePort,
    problems: &mut Problems,
) -> Option<ServicePort> {
    let protocol = problems.take(
        format!("spec.ports[{i}].protocol"),
        read::protocol(port.protocol.as_deref()),
    );
    let number = problems.take(format!("spec.ports[{i}].port"), read::port(port.port));
    let node_port = port
        .node_port
        .filter(|node_port| *node_port != 0)
        .and_then(|node_port| {
            problems.take(format!("spec.ports[{i}].nodePort"), read::port(node_port))
        });
    Some(ServicePort {
        name: port.name.as_deref().unwrap_or_default().into(),
        protocol: protocol?,
        port: number?,
        node_port,
    })
}

fn affinity(spec: &api::ServiceSpec, problems: &mut Problems) -> Option<Duration> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let seconds = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    match seconds {
        None => Some(DEFAULT_AFFINITY),
        Some(seconds @ 1..=86_400) => Some(Duration::from_secs(seconds.unsigned_abs().into())),
        Some(seconds) => {
            problems.add(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                Fault::Timeout(seconds.into()),
            );
            Some(DEFAULT_AFFINITY)
        }
    }
}

/// Only a Service of type LoadBalancer with `externalTrafficPolicy: Local` needs one.
fn health_check_node_port(spec: &api::ServiceSpec, problems: &mut Problems) -> Option<u16> {
    let asked = spec.external_traffic_policy.as_deref() == Some("Local")
        && spec.type_.as_deref() == Some("LoadBalancer");
    let port = spec
        .health_check_node_port
        .filter(|port| asked && *port != 0)?;
    problems.take("spec.healthCheckNodePort", read::port(port))
}
