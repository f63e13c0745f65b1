//! Endpoints and EndpointSlices.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::check::{Check, Rule};
use crate::field::Path;
use crate::json::{int, list, text};
use crate::{FieldError, names};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_PORTS: usize = 20_000;
const MAX_ADDRESSES: usize = 100;

pub(super) fn endpoints(check: &mut Check, object: &Value) {
    let path = Path::root("subsets");
    for (index, subset) in list(object, "subsets").iter().enumerate() {
        let path = path.index(index);
        let (ready, not_ready) = (list(subset, "addresses"), list(subset, "notReadyAddresses"));
        if ready.is_empty() && not_ready.is_empty() {
            check.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        addresses(check, ready, &path.child("addresses"));
        addresses(check, not_ready, &path.child("notReadyAddresses"));
        ports(check, list(subset, "ports"), &path.child("ports"));
    }
}

fn addresses(check: &mut Check, addresses: &[Value], path: &Path<'_>) {
    for (index, address) in addresses.iter().enumerate() {
        let path = path.index(index);
        let ip = text(address, "ip");
        check.syntax(&path.child("ip"), ip, names::endpoint_ip(ip));
        for (field, rule) in [
            ("hostname", names::dns_label as Rule),
            ("nodeName", names::dns_subdomain),
        ] {
            let value = text(address, field);
            if !value.is_empty() {
                check.syntax(&path.child(field), value, rule(value));
            }
        }
    }
}

fn ports(check: &mut Check, ports: &[Value], path: &Path<'_>) {
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        match text(port, "name") {
            "" if ports.len() > 1 => check.required(&path.child("name"), ""),
            "" => {}
            name => check.syntax(&path.child("name"), name, names::dns_label(name)),
        }
        let number = int(port, "port").unwrap_or_default();
        check.number(&path.child("port"), number, names::port(number));
        check.one_of(&path.child("protocol"), text(port, "protocol"), PROTOCOLS);
        app_protocol(check, port, &path);
    }
}

fn app_protocol(check: &mut Check, port: &Value, path: &Path<'_>) {
    let protocol = text(port, "appProtocol");
    if !protocol.is_empty() {
        check.syntax(
            &path.child("appProtocol"),
            protocol,
            names::qualified_name(protocol),
        );
    }
}

pub(super) fn slice(check: &mut Check, object: &Value) {
    let address_type = text(object, "addressType");
    check.one_of(
        &Path::root("addressType"),
        address_type,
        &["FQDN", "IPv4", "IPv6"],
    );
    let (endpoints, ports) = (list(object, "endpoints"), list(object, "ports"));
    let path = Path::root("endpoints");
    too_many(check, &path, endpoints.len(), MAX_ENDPOINTS);
    for (index, endpoint) in endpoints.iter().enumerate() {
        slice_endpoint(check, endpoint, address_type, &path.index(index));
    }
    let path = Path::root("ports");
    too_many(check, &path, ports.len(), MAX_PORTS);
    slice_ports(check, ports, &path);
}

fn too_many(check: &mut Check, path: &Path<'_>, count: usize, max: usize) {
    if count > max {
        check.add(FieldError::too_many(path, count, max));
    }
}

fn slice_endpoint(check: &mut Check, endpoint: &Value, address_type: &str, path: &Path<'_>) {
    let addresses = list(endpoint, "addresses");
    let addresses_path = path.child("addresses");
    if addresses.is_empty() {
        check.required(&addresses_path, "must contain at least 1 address");
    }
    too_many(check, &addresses_path, addresses.len(), MAX_ADDRESSES);
    for (index, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
        let messages = address_messages(address, address_type);
        check.syntax(&addresses_path.index(index), address, messages);
    }
    for (field, rule) in [
        ("nodeName", names::dns_subdomain as Rule),
        ("hostname", names::dns_label),
    ] {
        let value = text(endpoint, field);
        if !value.is_empty() {
            check.syntax(&path.child(field), value, rule(value));
        }
    }
}

fn address_messages(address: &str, address_type: &str) -> Vec<String> {
    let parsed = address.parse::<IpAddr>();
    match (address_type, parsed) {
        ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => names::endpoint_ip(address),
        ("IPv4" | "IPv6", _) => vec![format!("must be a valid {address_type} address")],
        ("FQDN", _) => fqdn(address),
        _ => Vec::new(),
    }
}

fn fqdn(name: &str) -> Vec<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let messages = names::dns_subdomain(name);
    match messages.is_empty() && !name.contains('.') {
        true => vec!["should be a domain with at least two segments separated by dots".to_owned()],
        false => messages,
    }
}

fn slice_ports(check: &mut Check, ports: &[Value], path: &Path<'_>) {
    let mut seen: Vec<&str> = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            check.syntax(&path.child("name"), name, names::dns_label(name));
        }
        if seen.contains(&name) {
            check.duplicate(&path.child("name"), &json!(name));
        }
        seen.push(name);
        if let Some(number) = int(port, "port") {
            check.number(&path.child("port"), number, names::port(number));
        }
        check.one_of(&path.child("protocol"), text(port, "protocol"), PROTOCOLS);
        app_protocol(check, port, &path);
    }
}

pub(super) fn slice_update(check: &mut Check, new: &Value, old: &Value) {
    check.immutable(
        &Path::root("addressType"),
        new.get("addressType"),
        old.get("addressType"),
    );
}
