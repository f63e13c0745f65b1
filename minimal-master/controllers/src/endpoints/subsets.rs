//! Pods as subsets: addresses that share their ports, ready and not ready.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Pod, Service};
use sluice_client::pod as pods;

use crate::endpointslice::{IPV4, IPV6, address, hostname, ports, target_ref};

/// An Endpoints object holds no more addresses than this (KEP-752).
const MAX_ADDRESSES: usize = 1000;

/// By port set (in the Service's order, so that equal sets compare equal) and address.
type ByPorts = Vec<(Vec<EndpointPort>, BTreeMap<String, (EndpointAddress, bool)>)>;

/// The subsets of a Service, and whether addresses had to be left out.
pub fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let spec = service.spec.as_ref();
    let first = spec.and_then(|s| s.ip_families.as_ref()?.first().cloned());
    let family = if first.as_deref() == Some(IPV6) {
        IPV6
    } else {
        IPV4
    };
    let publish = spec
        .and_then(|s| s.publish_not_ready_addresses)
        .unwrap_or(false);
    let mut by_ports = ByPorts::new();
    for pod in pods {
        let terminating = pod.metadata.deletion_timestamp.is_some() && !publish;
        let Some(ip) = address(pod, family).filter(|_| !pods::is_terminal(pod) && !terminating)
        else {
            continue;
        };
        let ready = publish || pods::is_ready(pod);
        let entry = (endpoint_address(service, pod, &ip), ready);
        set_for(&mut by_ports, legacy_ports(service, pod)).insert(ip, entry);
    }
    let truncated = truncate(&mut by_ports);
    (by_ports.into_iter().map(subset).collect(), truncated)
}

fn set_for(
    by_ports: &mut ByPorts,
    ports: Vec<EndpointPort>,
) -> &mut BTreeMap<String, (EndpointAddress, bool)> {
    let at = by_ports
        .iter()
        .position(|(known, _)| *known == ports)
        .unwrap_or_else(|| {
            by_ports.push((ports, BTreeMap::new()));
            by_ports.len() - 1
        });
    &mut by_ports[at].1
}

fn legacy_ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let port = |port: k8s_openapi::api::discovery::v1::EndpointPort| EndpointPort {
        name: port.name.filter(|name| !name.is_empty()),
        port: port.port.unwrap_or(0),
        protocol: port.protocol,
        app_protocol: port.app_protocol,
    };
    ports(service, pod).into_iter().map(port).collect()
}

fn endpoint_address(service: &Service, pod: &Pod, ip: &str) -> EndpointAddress {
    EndpointAddress {
        ip: ip.to_owned(),
        hostname: hostname(service, pod),
        node_name: pods::node_name(pod).map(Into::into),
        target_ref: Some(target_ref(pod)),
    }
}

/// Not ready addresses go first, then ready ones from the end.
fn truncate(by_ports: &mut ByPorts) -> bool {
    let total = by_ports.iter().map(|(_, set)| set.len()).sum::<usize>();
    let mut surplus = total.saturating_sub(MAX_ADDRESSES);
    let truncated = surplus > 0;
    for wanted in [false, true] {
        for (_, set) in by_ports.iter_mut().rev() {
            let drop: Vec<String> = set
                .iter()
                .rev()
                .filter(|(_, (_, ready))| *ready == wanted)
                .map(|(ip, _)| ip.clone())
                .take(surplus)
                .collect();
            surplus -= drop.len();
            drop.iter().for_each(|ip| drop_one(set, ip));
        }
    }
    by_ports.retain(|(_, set)| !set.is_empty());
    truncated
}

fn drop_one(set: &mut BTreeMap<String, (EndpointAddress, bool)>, ip: &str) {
    set.remove(ip);
}

fn subset(
    (ports, set): (Vec<EndpointPort>, BTreeMap<String, (EndpointAddress, bool)>),
) -> EndpointSubset {
    let (ready, not_ready): (Vec<_>, Vec<_>) = set.into_values().partition(|(_, ready)| *ready);
    let list = |entries: Vec<(EndpointAddress, bool)>| {
        (!entries.is_empty()).then(|| entries.into_iter().map(|(address, _)| address).collect())
    };
    EndpointSubset {
        addresses: list(ready),
        not_ready_addresses: list(not_ready),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(n: usize, ready: bool) -> Arc<Pod> {
        let ip = format!("10.0.{}.{}", n / 250, n % 250);
        let status = if ready { "True" } else { "False" };
        let pod = json!({
            "metadata": {"name": format!("p{n}")}, "spec": {"containers": []},
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": status}]},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn service() -> Service {
        serde_json::from_value(
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}),
        )
        .unwrap()
    }

    #[test]
    fn ready_and_not_ready_addresses_are_told_apart() {
        let (subsets, truncated) = subsets(&service(), &[pod(1, true), pod(2, false)]);
        assert!(!truncated);
        assert_eq!(subsets.len(), 1);
        assert_eq!(subsets[0].addresses.as_ref().unwrap()[0].ip, "10.0.0.1");
        assert_eq!(
            subsets[0].not_ready_addresses.as_ref().unwrap()[0].ip,
            "10.0.0.2"
        );
        assert_eq!(subsets[0].ports.as_ref().unwrap()[0].port, 80);
    }

    #[test]
    fn beyond_a_thousand_addresses_the_not_ready_ones_are_left_out_first() {
        let pods: Vec<_> = (0..1100).map(|n| pod(n, n % 10 != 0)).collect();
        let (subsets, truncated) = subsets(&service(), &pods);
        assert!(truncated);
        assert_eq!(subsets[0].addresses.as_ref().unwrap().len(), 990);
        assert_eq!(subsets[0].not_ready_addresses.as_ref().unwrap().len(), 10);
    }
}
