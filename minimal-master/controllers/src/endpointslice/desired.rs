//! The endpoints that a Service should have: per address family and set of ports.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::{Node, ObjectReference, Pod, Service, ServicePort},
        discovery::v1::{
            Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
        },
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use sluice_client::pod as pods;

/// `IPv4` or `IPv6`, as EndpointSlices spell it.
pub type Family = &'static str;
/// Endpoints with 4-byte addresses.
pub const IPV4: Family = "IPv4";
/// Endpoints with 16-byte addresses.
pub const IPV6: Family = "IPv6";

/// Endpoints of one family that serve the same port numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The address family.
    pub family: Family,
    /// The ports, in the Service's order.
    pub ports: Vec<EndpointPort>,
    /// By address.
    pub endpoints: BTreeMap<String, Endpoint>,
}

/// The zone of a node, by the well-known label.
pub fn zone(node: &Node) -> Option<String> {
    node.labels().get("topology.kubernetes.io/zone").cloned()
}

/// Everything that the Service should have. Each of its families has at least one group, perhaps empty.
pub fn groups(
    service: &Service,
    pods: &[Arc<Pod>],
    zone_of: &dyn Fn(&str) -> Option<String>,
) -> Vec<Group> {
    let mut groups = Vec::new();
    for family in families(service) {
        groups.extend(groups_of(family, service, pods, zone_of));
    }
    groups
}

fn groups_of(
    family: Family,
    service: &Service,
    pods: &[Arc<Pod>],
    zone_of: &dyn Fn(&str) -> Option<String>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for pod in pods.iter().filter(|pod| !pods::is_terminal(pod)) {
        let Some(address) = address(pod, family) else {
            continue;
        };
        let ports = ports(service, pod);
        let at = groups
            .iter()
            .position(|group| group.ports == ports)
            .unwrap_or_else(|| {
                groups.push(Group {
                    family,
                    ports,
                    endpoints: BTreeMap::new(),
                });
                groups.len() - 1
            });
        let endpoint = endpoint(service, pod, &address, zone_of);
        groups[at].endpoints.insert(address, endpoint);
    }
    if groups.is_empty() {
        groups.push(Group {
            family,
            ports: Vec::new(),
            endpoints: BTreeMap::new(),
        });
    }
    groups
}

fn families(service: &Service) -> Vec<Family> {
    let spec = service.spec.as_ref();
    let named = spec
        .and_then(|s| s.ip_families.as_ref())
        .into_iter()
        .flatten();
    let mut families: Vec<Family> = named
        .map(|family| if family == IPV6 { IPV6 } else { IPV4 })
        .collect();
    if families.is_empty() {
        // An API server that doesn't default families still gives an address.
        let ip = spec
            .and_then(|s| s.cluster_ip.as_deref())
            .unwrap_or_default();
        families.push(if ip.contains(':') { IPV6 } else { IPV4 });
    }
    families
}

/// The pod's first address of a family.
pub fn address(pod: &Pod, family: Family) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
    let all = all.chain(&status.pod_ip);
    all.filter_map(|text| text.parse::<IpAddr>().ok())
        .find(|ip| ip.is_ipv6() == (family == IPV6))
        .map(|ip| ip.to_string())
}

/// The Service's ports as this pod serves them; a named port that the pod lacks is left out.
pub fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let ports = service
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(target(port, pod)?),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect()
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            named(name, port.protocol.as_deref().unwrap_or("TCP"), pod)
        }
    }
}

fn named(name: &str, protocol: &str, pod: &Pod) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten());
    ports
        .into_iter()
        .find(|p| {
            p.name.as_deref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol
        })
        .map(|p| p.container_port)
}

fn endpoint(
    service: &Service,
    pod: &Pod,
    address: &str,
    zone_of: &dyn Fn(&str) -> Option<String>,
) -> Endpoint {
    let spec = service.spec.as_ref();
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let publish = spec
        .and_then(|s| s.publish_not_ready_addresses)
        .unwrap_or(false);
    let node = pods::node_name(pod);
    let zone = node.and_then(zone_of);
    let ready = publish || (serving && !terminating);
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        hints: ready
            .then(|| hints(service, node, zone.as_deref()))
            .flatten(),
        node_name: node.map(Into::into),
        zone,
        target_ref: Some(target_ref(pod)),
        ..Endpoint::default()
    }
}

/// The pod as an endpoint refers to it.
pub fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The pod's own host name, when its subdomain is this Service: DNS publishes it.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let ours = spec.subdomain == service.metadata.name
        && pod.metadata.namespace == service.metadata.namespace;
    spec.hostname
        .clone()
        .filter(|name| ours && !name.is_empty())
}

/// `trafficDistribution` (KEP-4444, KEP-3015): which zones and nodes an endpoint is meant for.
fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    let for_zones = zone.map(|name| vec![ForZone { name: name.into() }]);
    let for_nodes = node.map(|name| vec![ForNode { name: name.into() }]);
    match distribution {
        "PreferClose" | "PreferSameZone" if for_zones.is_some() => Some(EndpointHints {
            for_zones,
            for_nodes: None,
        }),
        "PreferSameNode" if for_nodes.is_some() => Some(EndpointHints {
            for_zones,
            for_nodes,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec}),
        )
        .unwrap()
    }

    fn pod(name: &str, ips: &[&str], ready: bool, more: Value) -> Arc<Pod> {
        let ips: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}")},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIPs": ips, "conditions": [
                {"type": "Ready", "status": if ready { "True" } else { "False" }},
            ]},
        });
        if let Value::Object(more) = more {
            for (key, value) in more {
                pod["metadata"][key] = value;
            }
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn dual() -> Service {
        service(
            json!({"ipFamilies": ["IPv4", "IPv6"], "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}),
        )
    }

    fn in_zone_a(_: &str) -> Option<String> {
        Some("a".into())
    }

    #[test]
    fn a_dual_stack_pod_is_an_endpoint_in_each_family() {
        let pods = [pod("p", &["10.0.0.1", "fd00::1"], true, json!({}))];
        let groups = groups(&dual(), &pods, &in_zone_a);
        assert_eq!(groups.len(), 2);
        assert_eq!(
            (groups[0].family, groups[0].ports[0].port),
            (IPV4, Some(8080))
        );
        let v6 = &groups[1].endpoints["fd00::1"];
        assert_eq!(v6.zone.as_deref(), Some("a"));
        assert_eq!(v6.node_name.as_deref(), Some("n1"));
        assert_eq!(
            v6.target_ref.as_ref().unwrap().uid.as_deref(),
            Some("uid-p")
        );
    }

    #[test]
    fn conditions_tell_ready_serving_and_terminating_apart() {
        let gone = json!({"deletionTimestamp": "2024-01-01T00:00:00Z"});
        let pods = [
            pod("a", &["10.0.0.1"], true, json!({})),
            pod("b", &["10.0.0.2"], false, json!({})),
            pod("c", &["10.0.0.3"], true, gone),
        ];
        let conditions = |publish: bool, ip: &str| {
            let service =
                service(json!({"ipFamilies": ["IPv4"], "publishNotReadyAddresses": publish}));
            let c = groups(&service, &pods, &in_zone_a)[0].endpoints[ip]
                .conditions
                .clone()
                .unwrap();
            (c.ready.unwrap(), c.serving.unwrap(), c.terminating.unwrap())
        };
        assert_eq!(conditions(false, "10.0.0.1"), (true, true, false));
        assert_eq!(conditions(false, "10.0.0.2"), (false, false, false));
        assert_eq!(conditions(false, "10.0.0.3"), (false, true, true));
        assert_eq!(conditions(true, "10.0.0.2"), (true, false, false));
    }

    #[test]
    fn pods_whose_named_port_differs_are_grouped_apart_and_a_missing_one_is_left_out() {
        let mut other = (*pod("q", &["10.0.0.2"], true, json!({}))).clone();
        other.spec.as_mut().unwrap().containers[0]
            .ports
            .as_mut()
            .unwrap()[0]
            .container_port = 9090;
        let mut none = (*pod("r", &["10.0.0.3"], true, json!({}))).clone();
        none.spec.as_mut().unwrap().containers[0].ports = None;
        let pods = [
            pod("p", &["10.0.0.1"], true, json!({})),
            Arc::new(other),
            Arc::new(none),
        ];
        let ports: Vec<_> = groups(&dual(), &pods, &in_zone_a)
            .iter()
            .filter(|group| group.family == IPV4)
            .map(|group| group.ports.first().and_then(|port| port.port))
            .collect();
        assert_eq!(ports, [Some(8080), Some(9090), None]);
    }

    #[test]
    fn finished_pods_and_pods_without_an_address_are_no_endpoints() {
        let mut done = (*pod("d", &["10.0.0.9"], true, json!({}))).clone();
        done.status.as_mut().unwrap().phase = Some("Succeeded".into());
        let pods = [Arc::new(done), pod("p", &[], true, json!({}))];
        let groups = groups(&dual(), &pods, &in_zone_a);
        assert!(groups.iter().all(|group| group.endpoints.is_empty()));
        assert_eq!(groups.len(), 2);
    }

    #[test]
    fn traffic_distribution_becomes_hints_on_ready_endpoints() {
        let pods = [pod("p", &["10.0.0.1"], true, json!({}))];
        let hints = |distribution: &str| {
            let service =
                service(json!({"ipFamilies": ["IPv4"], "trafficDistribution": distribution}));
            groups(&service, &pods, &in_zone_a)[0].endpoints["10.0.0.1"]
                .hints
                .clone()
        };
        assert_eq!(
            hints("PreferClose").unwrap().for_zones.unwrap()[0].name,
            "a"
        );
        assert_eq!(
            hints("PreferSameNode").unwrap().for_nodes.unwrap()[0].name,
            "n1"
        );
        assert!(hints("Other").is_none());
    }
}
