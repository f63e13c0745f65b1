//! The row of a Service.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::{age, labels, or_none};
use crate::json::{int, list, list_at, map, name, text};

pub(super) fn cells(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &service["spec"];
    let cluster_ip = match list(spec, "clusterIPs") {
        [first, ..] => first.as_str().unwrap_or_default(),
        [] => text(spec, "clusterIP"),
    };
    vec![
        json!(name(service)),
        json!(text(spec, "type")),
        json!(or_none(cluster_ip)),
        json!(external_ip(service)),
        json!(ports(list(spec, "ports"))),
        age(service, now),
        json!(labels(map(spec, "selector"))),
    ]
}

fn external_ip(service: &Value) -> String {
    let spec = &service["spec"];
    let given: Vec<&str> = list(spec, "externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match text(spec, "type") {
        "ExternalName" => text(spec, "externalName").to_owned(),
        "LoadBalancer" => {
            let all: Vec<&str> = given.into_iter().chain(balancers(service)).collect();
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        _ => or_none(&given.join(",")).to_owned(),
    }
}

fn balancers(service: &Value) -> impl Iterator<Item = &str> {
    list_at(service, "/status/loadBalancer/ingress")
        .iter()
        .map(|ingress| match text(ingress, "ip") {
            "" => text(ingress, "hostname"),
            ip => ip,
        })
}

fn ports(ports: &[Value]) -> String {
    let one = |port: &Value| {
        let (number, protocol) = (
            int(port, "port").unwrap_or_default(),
            text(port, "protocol"),
        );
        match int(port, "nodePort").unwrap_or_default() {
            0 => format!("{number}/{protocol}"),
            node_port => format!("{number}:{node_port}/{protocol}"),
        }
    };
    or_none(&ports.iter().map(one).collect::<Vec<_>>().join(",")).to_owned()
}
