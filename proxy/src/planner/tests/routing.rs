//! Which endpoints traffic goes to: one table row per rule.

use serde_json::{Value, json};

use super::plan_of;
use crate::planner::{FrontendKind, PortPlan};
use crate::testing::{NODE, service, slice};

/// An endpoint in words: `r`eady, `d`raining (serving, terminating), `n`ot ready; `@` for local; then
/// zone hints (`a`, `b`) or node hints (`1`: this node, `2`: another).
fn endpoint(i: usize, words: &str) -> Value {
    let has = |c| words.contains(c);
    let zones: Vec<_> = ["a", "b"]
        .into_iter()
        .filter(|z| words.contains(z))
        .map(|z| json!({"name": z}))
        .collect();
    let nodes: Vec<_> = [("1", NODE), ("2", "node2")]
        .into_iter()
        .filter(|(c, _)| words.contains(c))
        .map(|(_, name)| json!({"name": name}))
        .collect();
    json!({
        "addresses": [format!("10.244.0.{i}")],
        "nodeName": if has('@') { NODE } else { "node2" },
        "conditions": {"ready": has('r'), "serving": has('r') || has('d'), "terminating": has('d')},
        "hints": {"forZones": zones, "forNodes": nodes},
    })
}

fn ports(spec: &Value, endpoints: &[&str], zone: &str) -> Vec<PortPlan> {
    let endpoints: Vec<_> = endpoints
        .iter()
        .enumerate()
        .map(|(i, words)| endpoint(i + 1, words))
        .collect();
    let node = json!({"kind": "Node", "metadata": {"name": NODE, "labels": {"topology.kubernetes.io/zone": zone}}});
    let objects = [
        node,
        service("web", spec),
        slice("web-1", "web", &Value::Array(endpoints)),
    ];
    plan_of(&objects, "web").ports
}

fn spec(internal: &str, external: &str, node_port: u16) -> Value {
    json!({
        "clusterIP": "10.96.0.1",
        "internalTrafficPolicy": internal,
        "externalTrafficPolicy": external,
        "ports": [{"name": "http", "port": 80, "nodePort": node_port}],
    })
}

/// What traffic meets: the endpoints' numbers, `drop` or `reject`.
fn outcome(ports: &[PortPlan], kind: FrontendKind, from_outside: bool) -> String {
    let port = ports
        .iter()
        .find(|port| port.frontends.iter().any(|f| f.kind == kind))
        .unwrap();
    let chosen = port
        .backends
        .iter()
        .filter(|b| if from_outside { b.external } else { b.internal });
    let numbers: Vec<_> = chosen
        .map(|b| b.addr.to_string().rsplit('.').next().unwrap().to_owned())
        .collect();
    let drop = if from_outside {
        port.external_drop
    } else {
        port.internal_drop
    };
    match (numbers.is_empty(), drop) {
        (false, false) => numbers.join(","),
        (true, true) => "drop".to_owned(),
        (true, false) => "reject".to_owned(),
        (false, true) => "contradiction".to_owned(),
    }
}

#[test]
fn cluster_policy_takes_the_ready_and_falls_back_to_the_draining() {
    for (endpoints, expected) in [
        (&["r", "r@", "n"][..], "1,2"),
        (&["r", "d"], "1"),
        (&["d", "n", "d@"], "1,3"),
        (&["n"], "reject"),
        (&[], "reject"),
    ] {
        let ports = ports(&spec("Cluster", "Cluster", 0), endpoints, "");
        assert_eq!(
            outcome(&ports, FrontendKind::ClusterIp, false),
            expected,
            "{endpoints:?}"
        );
    }
}

#[test]
fn internal_local_keeps_to_the_node_and_drops_when_endpoints_are_elsewhere() {
    for (endpoints, expected) in [
        (&["r", "r@"][..], "2"),
        (&["r", "d@"], "2"),
        (&["r@", "d@"], "1"),
        (&["r", "n@"], "drop"),
        (&["d"], "drop"),
        (&["n", "n@"], "reject"),
    ] {
        let ports = ports(&spec("Local", "Cluster", 0), endpoints, "");
        assert_eq!(
            outcome(&ports, FrontendKind::ClusterIp, false),
            expected,
            "{endpoints:?}"
        );
    }
}

#[test]
fn external_local_holds_for_outside_traffic_only() {
    for (endpoints, outside, inside) in [
        (&["r", "r@"][..], "2", "1,2"),
        (&["r", "d@"], "2", "1"),
        (&["r"], "drop", "1"),
        (&["n"], "reject", "reject"),
    ] {
        let ports = ports(&spec("Cluster", "Local", 30_080), endpoints, "");
        assert_eq!(
            outcome(&ports, FrontendKind::NodePort, true),
            outside,
            "{endpoints:?} from outside"
        );
        assert_eq!(
            outcome(&ports, FrontendKind::NodePort, false),
            inside,
            "{endpoints:?} from inside"
        );
        assert_eq!(
            outcome(&ports, FrontendKind::ClusterIp, false),
            inside,
            "{endpoints:?} to the cluster IP"
        );
    }
}

#[test]
fn inside_traffic_to_a_node_port_ignores_internal_local() {
    let ports = ports(&spec("Local", "Local", 30_080), &["r", "r@"], "");
    assert_eq!(outcome(&ports, FrontendKind::ClusterIp, false), "2");
    assert_eq!(outcome(&ports, FrontendKind::NodePort, false), "1,2");
    assert_eq!(outcome(&ports, FrontendKind::NodePort, true), "2");
}

#[test]
fn hints_count_only_when_all_ready_endpoints_carry_them() {
    for (zone, endpoints, expected) in [
        ("a", &["ra", "rb"][..], "1"),
        ("a", &["ra", "rb", "r"], "1,2,3"),
        ("a", &["ra", "rb", "n"], "1"),
        ("a", &["rab", "rb"], "1"),
        ("c", &["ra", "rb"], "1,2"),
        ("", &["ra", "rb"], "1,2"),
        ("a", &["na", "db"], "2"),
        ("a", &["r1a", "r2a", "r2b"], "1"),
        ("a", &["r2a", "r2b"], "1"),
        ("a", &["r1", "ra"], "1,2"),
    ] {
        let ports = ports(&spec("Cluster", "Cluster", 0), endpoints, zone);
        assert_eq!(
            outcome(&ports, FrontendKind::ClusterIp, false),
            expected,
            "zone {zone:?}, {endpoints:?}"
        );
    }
}

#[test]
fn hints_do_not_touch_local_policy() {
    let ports = ports(&spec("Cluster", "Local", 30_080), &["r@b", "ra"], "a");
    assert_eq!(outcome(&ports, FrontendKind::NodePort, true), "1");
    assert_eq!(outcome(&ports, FrontendKind::NodePort, false), "2");
}

#[test]
fn source_ranges_guard_load_balancers_alone() {
    let spec = json!({
        "type": "LoadBalancer",
        "clusterIP": "10.96.0.1",
        "loadBalancerSourceRanges": ["203.0.113.9/24", "fd00::/8"],
        "ports": [{"name": "http", "port": 80, "nodePort": 30_080}],
    });
    let mut web = service("web", &spec);
    web["status"] = json!({"loadBalancer": {"ingress": [
        {"ip": "192.0.2.1"},
        {"ip": "192.0.2.2", "ipMode": "Proxy"},
        {"hostname": "example.org"},
    ]}});
    let plan = plan_of(&[web], "web");
    let guarded: Vec<_> = plan.ports[0]
        .frontends
        .iter()
        .filter(|f| f.source_ranges)
        .map(|f| f.key.to_string())
        .collect();
    assert_eq!(guarded, ["192.0.2.1:80/TCP"]);
    // Only the networks of the port's own family count, without host bits.
    assert_eq!(
        plan.ports[0].source_ranges,
        ["203.0.113.0/24".parse().unwrap()]
    );
    assert!(
        plan.ports[0]
            .frontends
            .iter()
            .all(|f| f.key.addr.to_string() != "192.0.2.2")
    );
}

#[test]
fn a_health_check_counts_ready_endpoints_of_this_node() {
    let mut spec = spec("Cluster", "Local", 30_080);
    spec["type"] = json!("LoadBalancer");
    spec["healthCheckNodePort"] = json!(31_000);
    let endpoints = ["r@", "r@", "d@", "r"]
        .iter()
        .enumerate()
        .map(|(i, words)| endpoint(i + 1, words))
        .collect();
    let objects = [
        service("web", &spec),
        slice("web-1", "web", &Value::Array(endpoints)),
    ];
    let check = plan_of(&objects, "web").health_check.unwrap();
    assert_eq!((check.port, check.local_endpoints), (31_000, 2));
    spec["externalTrafficPolicy"] = json!("Cluster");
    assert_eq!(plan_of(&[service("web", &spec)], "web").health_check, None);
}
