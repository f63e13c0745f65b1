//! Small worlds of Kubernetes objects for the planner's and the reconciler's tests.

use std::net::IpAddr;

use k8s_openapi::api::{core, discovery};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::planner::{EndpointSlice, Node, ObjectName, Options, Planner, Service};

/// The node that tests plan for.
pub const NODE: &str = "node1";

/// Something that happens.
#[derive(Clone, Debug)]
pub enum Event {
    /// A Service, EndpointSlice or Node in its wire form is added or changed.
    Set(Value),
    /// It is deleted.
    Delete(Value),
    /// Node ports are served on these addresses.
    Addresses(Vec<IpAddr>),
}

/// A planner for [`NODE`] with an address per family.
pub fn planner() -> Planner {
    let mut planner = Planner::new(Options {
        loopback_node_ports: true,
    });
    planner.set_node_port_addresses(node_addresses());
    planner
}

/// The node's addresses.
pub fn node_addresses() -> Vec<IpAddr> {
    ["198.18.0.11", "fd00:198:18::11"]
        .map(|text| text.parse().unwrap())
        .into()
}

/// Hands an event to a planner, as the watch does.
pub fn happen(planner: &mut Planner, event: &Event) {
    match event {
        Event::Set(object) => set(planner, object),
        Event::Delete(object) => delete(planner, object),
        Event::Addresses(addresses) => planner.set_node_port_addresses(addresses.clone()),
    }
}

fn set(planner: &mut Planner, object: &Value) {
    let name = name_of(object);
    match object["kind"].as_str() {
        Some("Service") => {
            let service: core::v1::Service = serde_json::from_value(object.clone()).unwrap();
            let (service, problems) = Service::from_api(&name, &service);
            planner.set_service(&name, service, problems);
        }
        Some("EndpointSlice") => {
            let slice: discovery::v1::EndpointSlice =
                serde_json::from_value(object.clone()).unwrap();
            let (slice, problems) = EndpointSlice::from_api(&name, &slice, NODE);
            planner.set_slice(&name, slice, problems);
        }
        Some("Node") => {
            let node: core::v1::Node = serde_json::from_value(object.clone()).unwrap();
            planner.set_node(Node::from_api(&node));
        }
        kind => panic!("{kind:?} is no kind that the agent watches"),
    }
}

fn delete(planner: &mut Planner, object: &Value) {
    let name = name_of(object);
    match object["kind"].as_str() {
        Some("Service") => planner.set_service(&name, None, Vec::new()),
        Some("EndpointSlice") => planner.set_slice(&name, None, Vec::new()),
        _ => planner.set_node(Node::default()),
    }
}

/// The object's name.
pub fn name_of(object: &Value) -> ObjectName {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    ObjectName::new(text("namespace"), text("name"))
}

/// A slice of Service `service` in `default` with one port named `http`.
pub fn slice(name: &str, service: &str, endpoints: &Value) -> Value {
    let first = endpoints[0]["addresses"][0].as_str().unwrap_or_default();
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": "default",
            "name": name,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": if first.contains(':') { "IPv6" } else { "IPv4" },
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// A Service in `default` with this spec.
pub fn service(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "default", "name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": spec,
    })
}

/// Events in a world small enough for them to collide: four Services that share external addresses
/// and node ports, six slices that change Services, two zones.
pub fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(), 1..40)
}

fn event() -> impl Strategy<Value = Event> {
    let addresses = prop::sample::subsequence(node_addresses(), 0..=2);
    prop_oneof![
        8 => any_service().prop_map(Event::Set),
        2 => any_service().prop_map(Event::Delete),
        10 => any_slice().prop_map(Event::Set),
        3 => any_slice().prop_map(Event::Delete),
        1 => prop::sample::select(vec!["", "a", "b"]).prop_map(|zone| Event::Set(node(zone))),
        1 => addresses.prop_map(Event::Addresses),
    ]
}

fn node(zone: &str) -> Value {
    json!({
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {"topology.kubernetes.io/zone": zone}},
    })
}

fn any_service() -> impl Strategy<Value = Value> {
    let policy = || prop::sample::select(vec!["Cluster", "Local"]);
    let affinity = prop::sample::select(vec!["None", "ClientIP"]);
    let external = prop::sample::select(vec![
        json!([]),
        json!(["192.0.2.1"]),
        json!(["192.0.2.1", "192.0.2.2"]),
    ]);
    let node_port = prop::sample::select(vec![0, 30_080]);
    let protocol = prop::sample::select(vec!["TCP", "UDP"]);
    (0..4u8, policy(), policy(), affinity, external, node_port, any::<bool>(), protocol).prop_map(
        |(i, internal, outside, affinity, external, node_port, dual, protocol)| {
            let v4 = format!("10.96.0.{}", i + 1);
            let ips = if dual { json!([v4, format!("fd00:10:96::{}", i + 1)]) } else { json!([v4]) };
            let spec = json!({
                "clusterIP": v4,
                "clusterIPs": ips,
                "internalTrafficPolicy": internal,
                "externalTrafficPolicy": outside,
                "sessionAffinity": affinity,
                "externalIPs": external,
                "loadBalancerSourceRanges": ["192.0.2.0/24"],
                "ports": [
                    {"name": "http", "port": 80, "protocol": protocol, "nodePort": node_port},
                    {"name": "other", "port": 81, "protocol": "TCP"},
                ],
            });
            let mut service = service(&format!("s{i}"), &spec);
            service["status"] = json!({"loadBalancer": {"ingress": [{"ip": format!("192.0.2.{}", 10 + i % 2)}]}});
            service
        },
    )
}

fn any_slice() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["a", "b", "c", "d", "e", "f"]);
    let endpoints = prop::collection::vec(any_endpoint(), 0..6);
    (name, 0..4u8, endpoints, any::<bool>()).prop_map(|(name, service, endpoints, udp)| {
        let mut slice = slice(name, &format!("s{service}"), &Value::Array(endpoints));
        if udp {
            slice["ports"][0]["protocol"] = json!("UDP");
        }
        // A quarter of the slices are IPv6: decided by the name, as a slice cannot change its family.
        if name == "e" || name == "f" {
            slice["addressType"] = json!("IPv6");
            for endpoint in slice["endpoints"].as_array_mut().unwrap() {
                let v4 = endpoint["addresses"][0].as_str().unwrap();
                endpoint["addresses"][0] =
                    json!(format!("fd00:10:244::{}", v4.rsplit('.').next().unwrap()));
            }
        }
        slice
    })
}

fn any_endpoint() -> impl Strategy<Value = Value> {
    let state = prop::sample::select(vec![
        (true, true, false),
        (false, true, true),
        (false, false, true),
        (false, false, false),
    ]);
    let node = prop::sample::select(vec![NODE, "node2"]);
    let zones = prop::sample::select(vec![None, Some("a"), Some("b")]);
    (1..8u8, state, node, zones).prop_map(|(i, (ready, serving, terminating), node, zone)| {
        let hints = zone.map(|zone| json!({"forZones": [{"name": zone}]}));
        json!({
            "addresses": [format!("10.244.0.{i}")],
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            "nodeName": node,
            "hints": hints,
        })
    })
}
