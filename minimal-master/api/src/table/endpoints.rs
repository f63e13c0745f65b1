//! Rows of Endpoints and EndpointSlices: the first three addresses and how many more there are.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::cells::age;
use crate::json::{int, list, name, text};

const SHOWN: usize = 3;

pub(super) fn of_endpoints(endpoints: &Value) -> String {
    let subsets = list(endpoints, "subsets");
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    shorten(&subsets.iter().flat_map(subset).collect::<Vec<_>>())
}

fn subset(subset: &Value) -> Vec<String> {
    let addresses = || {
        list(subset, "addresses")
            .iter()
            .map(|address| text(address, "ip"))
    };
    match list(subset, "ports") {
        [] => addresses().map(str::to_owned).collect(),
        ports => ports
            .iter()
            .flat_map(|port| {
                let number = int(port, "port").unwrap_or_default();
                addresses().map(move |ip| host_port(ip, number))
            })
            .collect(),
    }
}

fn host_port(ip: &str, port: i64) -> String {
    match ip.contains(':') {
        true => format!("[{ip}]:{port}"),
        false => format!("{ip}:{port}"),
    }
}

pub(super) fn slice(slice: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = list(slice, "ports").iter().map(slice_port).collect();
    let addresses: Vec<String> = list(slice, "endpoints")
        .iter()
        .flat_map(|endpoint| list(endpoint, "addresses"))
        .filter_map(|address| address.as_str().map(str::to_owned))
        .collect();
    vec![
        json!(name(slice)),
        json!(text(slice, "addressType")),
        json!(or_unset(shorten(&ports))),
        json!(or_unset(shorten(&addresses))),
        age(slice, now),
    ]
}

fn slice_port(port: &Value) -> String {
    match (int(port, "port"), text(port, "name")) {
        (Some(number), _) => number.to_string(),
        (None, "") => "*".to_owned(),
        (None, name) => name.to_owned(),
    }
}

fn or_unset(text: String) -> String {
    if text.is_empty() {
        "<unset>".to_owned()
    } else {
        text
    }
}

fn shorten(items: &[String]) -> String {
    let shown = items[..items.len().min(SHOWN)].join(",");
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}
