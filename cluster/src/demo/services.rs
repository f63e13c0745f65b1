//! The example's Services and what stands behind them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use crate::progress::say;
use crate::table::Table;

/// The Service inside the cluster.
pub const CLUSTER_SERVICE: &str = "front";
/// The Service at every node's port.
pub const NODE_PORT_SERVICE: &str = "front-nodeport";

/// Where the example is reached.
pub struct Addresses {
    /// Cluster IPs of the front tier.
    pub cluster: Vec<IpAddr>,
    /// Port of the cluster IPs.
    pub port: u16,
    /// Port at the nodes' addresses.
    pub node_port: u16,
}

/// Reads them from the Services.
pub async fn addresses(client: &Client) -> Result<Addresses> {
    let api: Api<Service> = Api::default_namespaced(client.clone());
    let inside = api.get(CLUSTER_SERVICE).await?.spec.unwrap_or_default();
    let outside = api.get(NODE_PORT_SERVICE).await?.spec.unwrap_or_default();
    let ips = inside.cluster_ips.unwrap_or_default();
    let port = inside.ports.iter().flatten().next().map(|port| port.port);
    let node_port = outside
        .ports
        .iter()
        .flatten()
        .next()
        .and_then(|port| port.node_port);
    Ok(Addresses {
        cluster: ips.iter().map(|ip| ip.parse()).collect::<Result<_, _>>()?,
        port: u16::try_from(port.context("Service front has no port")?)?,
        node_port: u16::try_from(node_port.context("Service front-nodeport has no node port")?)?,
    })
}

/// Prints Services and backends; the nodes of all pods.
pub async fn show(client: &Client) -> Result<BTreeMap<String, String>> {
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let slices: Api<EndpointSlice> = Api::default_namespaced(client.clone());
    let all = ListParams::default();
    let (services, pods, slices) =
        tokio::try_join!(services.list(&all), pods.list(&all), slices.list(&all))?;
    let mut table = Table::new(&["SERVICE", "TYPE", "CLUSTER-IPS", "PORTS", "BACKENDS"]);
    for service in &services.items {
        table.row(service_row(service, &slices.items));
    }
    say(&format!(
        "\n{}\n\n{}",
        table.lines().join("\n"),
        pod_table(&pods.items).lines().join("\n")
    ));
    let node = |pod: &Pod| Some((pod.name_any(), pod.spec.as_ref()?.node_name.clone()?));
    Ok(pods.items.iter().filter_map(node).collect())
}

fn service_row(service: &Service, slices: &[EndpointSlice]) -> [String; 5] {
    let spec = service.spec.clone().unwrap_or_default();
    let ports = spec.ports.unwrap_or_default().into_iter().map(|port| {
        let protocol = port.protocol.unwrap_or_else(|| "TCP".into());
        let node_port = port
            .node_port
            .map(|number| format!(":{number}"))
            .unwrap_or_default();
        format!("{}{node_port}/{protocol}", port.port)
    });
    [
        service.name_any(),
        spec.type_.unwrap_or_default(),
        spec.cluster_ips.unwrap_or_default().join(","),
        ports.collect::<Vec<_>>().join(","),
        backends(&service.name_any(), slices),
    ]
}

/// Ready endpoints per family.
fn backends(service: &str, slices: &[EndpointSlice]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| belongs_to(slice, service)) {
        let ready = slice
            .endpoints
            .iter()
            .flatten()
            .filter(|endpoint| is_ready(endpoint))
            .count();
        *counts.entry(&slice.address_type).or_default() += ready;
    }
    let counts: Vec<String> = counts
        .iter()
        .map(|(family, count)| format!("{count} {family}"))
        .collect();
    counts.join(", ")
}

/// Whether the slice lists endpoints of that Service.
pub fn belongs_to(slice: &EndpointSlice, service: &str) -> bool {
    slice
        .labels()
        .get("kubernetes.io/service-name")
        .is_some_and(|name| name == service)
}

/// A missing condition counts as ready, as the API says.
pub fn is_ready(endpoint: &k8s_openapi::api::discovery::v1::Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .and_then(|conditions| conditions.ready)
        .unwrap_or(true)
}

fn pod_table(pods: &[Pod]) -> Table {
    let mut table = Table::new(&["POD", "NODE", "ADDRESSES"]);
    for pod in pods {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        let addresses = pod
            .status
            .as_ref()
            .and_then(|status| status.pod_ips.clone())
            .unwrap_or_default();
        let addresses: Vec<String> = addresses.into_iter().map(|address| address.ip).collect();
        table.row([
            pod.name_any(),
            node.unwrap_or_default(),
            addresses.join(","),
        ]);
    }
    table
}
