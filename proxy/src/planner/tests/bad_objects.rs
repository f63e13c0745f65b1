//! Nonsense in an object is named and left out; the rest of it, and all others, go on.

use serde_json::{Value, json};

use super::{dump_of, plan_of};
use crate::planner::{FrontendKind, HEADLESS_LABEL, PROXY_NAME_LABEL};
use crate::testing::{Event, happen, planner, service, slice};

fn good() -> Value {
    service(
        "good",
        &json!({"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}]}),
    )
}

fn problems(objects: &[Value]) -> Vec<String> {
    let mut planner = planner();
    for object in objects {
        happen(&mut planner, &Event::Set(object.clone()));
    }
    planner.problems().map(ToString::to_string).collect()
}

fn patched(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[last] = value;
    object
}

#[test]
fn each_bad_field_of_a_service_is_named() {
    let base = || {
        let spec = json!({
            "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1"],
            "sessionAffinity": "ClientIP",
            "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}],
        });
        service("web", &spec)
    };
    for (pointer, value, expected) in [
        (
            "/spec/clusterIPs",
            json!(["ten"]),
            "Service default/web: spec.clusterIPs[0]: \"ten\" is not an IP address",
        ),
        (
            "/spec/externalIPs",
            json!(["127.0.0.1"]),
            "spec.externalIPs[0]: 127.0.0.1 cannot be",
        ),
        (
            "/spec/externalIPs",
            json!(["fd00::1"]),
            "spec.externalIPs: fd00::1 is not an IPv4 address",
        ),
        (
            "/spec/ports",
            json!([{"name": "http", "port": 0}]),
            "spec.ports[0].port: 0 is not a port",
        ),
        (
            "/spec/ports",
            json!([{"name": "http", "port": 80, "nodePort": 70_000}]),
            "spec.ports[0].nodePort: 70000 is not a port",
        ),
        (
            "/spec/ports",
            json!([{"name": "x", "port": 1, "protocol": "ICMP"}]),
            "spec.ports[0].protocol: \"ICMP\" is not supported",
        ),
        (
            "/spec/ports",
            json!([{"name": "x", "port": 1}, {"name": "x", "port": 2}]),
            "spec.ports[1].name: \"x\" is there twice",
        ),
        (
            "/spec/ports",
            json!([{"name": "x", "port": 1}, {"name": "y", "port": 1}]),
            "spec.ports[1].port: 1/TCP is there twice",
        ),
        (
            "/spec/loadBalancerSourceRanges",
            json!(["10.0.0.0/33"]),
            "spec.loadBalancerSourceRanges[0]: \"10.0.0.0/33\" is not a network",
        ),
        (
            "/spec/sessionAffinityConfig",
            json!({"clientIP": {"timeoutSeconds": 0}}),
            "timeoutSeconds: 0 is not a timeout",
        ),
        (
            "/status",
            json!({"loadBalancer": {"ingress": [{"ip": "x"}]}}),
            "status.loadBalancer.ingress[0]: \"x\" is not",
        ),
    ] {
        let found = problems(&[patched(base(), pointer, value), good()]);
        assert_eq!(found.len(), 1, "{pointer}: {found:?}");
        assert!(found[0].contains(expected), "{found:?} lacks {expected:?}");
        assert!(found[0].starts_with("Service default/web: "), "{found:?}");
    }
    assert_eq!(problems(&[base(), good()]), Vec::<String>::new());
}

#[test]
fn each_bad_field_of_a_slice_is_named() {
    let base = || {
        slice(
            "web-1",
            "web",
            &json!([{"addresses": ["10.244.0.1"]}, {"addresses": ["10.244.0.2"]}]),
        )
    };
    for (pointer, value, expected) in [
        (
            "/addressType",
            json!("FQDN"),
            "addressType: \"FQDN\" is not supported",
        ),
        (
            "/endpoints/1/addresses",
            json!(["fd00::1"]),
            "endpoints[1].addresses[0]: fd00::1 is not an IPv4 address",
        ),
        (
            "/endpoints/1/addresses",
            json!(["0.0.0.0"]),
            "endpoints[1].addresses[0]: 0.0.0.0 cannot be",
        ),
        ("/ports/0/port", json!(0), "ports[0].port: 0 is not a port"),
        (
            "/ports/0/protocol",
            json!("QUIC"),
            "ports[0].protocol: \"QUIC\" is not supported",
        ),
    ] {
        let found = problems(&[patched(base(), pointer, value)]);
        assert_eq!(found.len(), 1, "{pointer}: {found:?}");
        assert!(found[0].contains(expected), "{found:?} lacks {expected:?}");
        assert!(
            found[0].starts_with("EndpointSlice default/web-1: "),
            "{found:?}"
        );
    }
}

#[test]
fn a_bad_endpoint_leaves_the_good_ones_of_its_slice() {
    let web = service(
        "web",
        &json!({"clusterIP": "10.96.0.1", "ports": [{"name": "http", "port": 80}]}),
    );
    let slice = slice(
        "web-1",
        "web",
        &json!([{"addresses": ["10.244.0.1"]}, {"addresses": ["nonsense"]}, {"addresses": []}]),
    );
    let plan = plan_of(&[web, slice], "web");
    assert_eq!(plan.ports[0].backends.len(), 1);
}

#[test]
fn a_service_with_nothing_usable_does_not_stop_another() {
    let bad = service(
        "bad",
        &json!({"clusterIP": "nonsense", "ports": [{"port": -1}, {"protocol": "?", "port": 1}]}),
    );
    let with_bad = dump_of(&[bad, good()]);
    assert!(
        with_bad.contains("default/good:http/TCP/IPv4"),
        "{with_bad}"
    );
    assert_eq!(with_bad, dump_of(&[good()]));
}

#[test]
fn services_that_are_none_of_our_business_are_skipped() {
    let spec = |extra: Value| {
        let mut spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
        spec.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        spec
    };
    let labelled = |label: &str| {
        patched(
            service("s", &spec(json!({}))),
            "/metadata/labels",
            json!({label: ""}),
        )
    };
    for object in [
        service("s", &spec(json!({"clusterIP": "None"}))),
        service("s", &spec(json!({"clusterIP": ""}))),
        service("s", &spec(json!({"type": "ExternalName"}))),
        labelled(PROXY_NAME_LABEL),
        labelled(HEADLESS_LABEL),
    ] {
        assert_eq!(dump_of(std::slice::from_ref(&object)), "", "{object}");
    }
    assert_ne!(dump_of(&[service("s", &spec(json!({})))]), "");
}

#[test]
fn a_service_that_becomes_none_of_our_business_goes() {
    let mut planner = planner();
    happen(&mut planner, &Event::Set(good()));
    planner.drain();
    let labelled = patched(
        good(),
        "/metadata/labels",
        json!({PROXY_NAME_LABEL: "other"}),
    );
    happen(&mut planner, &Event::Set(labelled));
    let changes = planner.drain();
    assert!(changes.len() == 1 && changes[0].plan.ports.is_empty());
}

#[test]
fn one_number_for_tcp_and_udp_is_two_frontends() {
    let spec = json!({"clusterIP": "10.96.0.1", "ports": [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]});
    let plan = plan_of(&[service("dns", &spec)], "dns");
    let keys: Vec<_> = plan
        .ports
        .iter()
        .map(|port| port.frontends[0].key.to_string())
        .collect();
    assert_eq!(keys, ["10.96.0.1:53/UDP", "10.96.0.1:53/TCP"]);
    assert!(
        plan.ports
            .iter()
            .all(|port| port.frontends[0].kind == FrontendKind::ClusterIp)
    );
}
