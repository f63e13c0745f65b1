//! Services.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::check::Check;
use super::node::dual_stack;
use crate::field::Path;
use crate::json::{int, list, list_at, map, text};
use crate::{FieldError, names};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
/// Longest time that a client may stay with a backend: a day, in seconds.
const MAX_AFFINITY_SECONDS: i64 = 86_400;

pub(super) fn content(check: &mut Check, service: &Value) {
    let path = Path::root("spec");
    let spec = &service["spec"];
    let ty = text(spec, "type");
    if list(spec, "ports").is_empty() && !is_headless(spec) && ty != "ExternalName" {
        check.required(&path.child("ports"), "");
    }
    type_rules(check, spec, ty, &path);
    ports(check, spec, &path.child("ports"));
    check.labels(&path.child("selector"), map(spec, "selector"));
    affinity(check, spec, &path);
    if ty != "ExternalName" {
        cluster_ips(check, spec, &path);
    }
    external_ips(check, spec, &path.child("externalIPs"));
    check.one_of(&path.child("type"), ty, TYPES);
    port_conflicts(check, spec, &path.child("ports"));
    load_balancer(check, spec, ty, &path);
    traffic(check, spec, ty, &path);
}

pub(super) fn is_headless(spec: &Value) -> bool {
    match list(spec, "clusterIPs") {
        [] => text(spec, "clusterIP") == "None",
        ips => ips.len() == 1 && ips[0] == "None",
    }
}

fn type_rules(check: &mut Check, spec: &Value, ty: &str, path: &Path<'_>) {
    match ty {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {ty} services");
            check.invalid(&path.child("clusterIPs").index(0), &json!("None"), detail);
        }
        "ExternalName" => {
            for field in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                if !crate::equality::equal(spec.get(field), None) {
                    let detail = "may not be set for ExternalName services";
                    check.forbidden(&path.child(field), detail);
                }
            }
            let name = text(spec, "externalName");
            let name = name.strip_suffix('.').unwrap_or(name);
            check.required_syntax(&path.child("externalName"), name, names::dns_subdomain);
        }
        _ => {}
    }
}

fn ports(check: &mut Check, spec: &Value, path: &Path<'_>) {
    let ports = list(spec, "ports");
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if name.is_empty() && ports.len() > 1 {
            check.required(&path.child("name"), "");
        } else if !name.is_empty() {
            check.syntax(&path.child("name"), name, names::dns_label(name));
            if ports[..index]
                .iter()
                .any(|other| text(other, "name") == name)
            {
                check.duplicate(&path.child("name"), &json!(name));
            }
        }
        let number = int(port, "port").unwrap_or_default();
        check.number(&path.child("port"), number, names::port(number));
        check.one_of(&path.child("protocol"), text(port, "protocol"), PROTOCOLS);
        check.port(&path.child("targetPort"), port.get("targetPort"));
        let protocol = text(port, "appProtocol");
        if !protocol.is_empty() {
            check.syntax(
                &path.child("appProtocol"),
                protocol,
                names::qualified_name(protocol),
            );
        }
    }
}

/// Ports and node ports may not occur twice for a protocol.
fn port_conflicts(check: &mut Check, spec: &Value, path: &Path<'_>) {
    let ports = list(spec, "ports");
    for (index, port) in ports.iter().enumerate() {
        let node_port = int(port, "nodePort").unwrap_or_default();
        if node_port == 0 {
            continue;
        }
        let path = path.index(index);
        if text(spec, "type") == "ClusterIP" {
            let detail = "may not be used when `type` is 'ClusterIP'";
            check.forbidden(&path.child("nodePort"), detail);
        }
        if ports[..index]
            .iter()
            .any(|other| same(other, port, "nodePort"))
        {
            check.duplicate(&path.child("nodePort"), &json!(node_port));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        if ports[..index].iter().any(|other| same(other, port, "port")) {
            let key = json!({"port": port["port"], "protocol": port["protocol"]});
            check.duplicate(&path.index(index), &key);
        }
    }
}

fn same(a: &Value, b: &Value, field: &str) -> bool {
    a["protocol"] == b["protocol"] && a[field] == b[field]
}

fn affinity(check: &mut Check, spec: &Value, path: &Path<'_>) {
    let affinity = text(spec, "sessionAffinity");
    check.one_of(
        &path.child("sessionAffinity"),
        affinity,
        &["ClientIP", "None"],
    );
    let config = path.child("sessionAffinityConfig");
    if affinity == "None" && spec["sessionAffinityConfig"].is_object() {
        check.forbidden(&config, "must not be set when session affinity is None");
    }
    let seconds = spec.pointer("/sessionAffinityConfig/clientIP/timeoutSeconds");
    if affinity == "ClientIP" {
        let client = config.child("clientIP");
        let path = client.child("timeoutSeconds");
        match seconds.and_then(Value::as_i64) {
            None => check.required(&path, "when session affinity type is ClientIP"),
            Some(seconds) if (1..=MAX_AFFINITY_SECONDS).contains(&seconds) => {}
            Some(seconds) => {
                let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
                check.invalid(&path, &json!(seconds), detail);
            }
        }
    }
}

fn cluster_ips(check: &mut Check, spec: &Value, path: &Path<'_>) {
    let (ip, ips) = (text(spec, "clusterIP"), list(spec, "clusterIPs"));
    let ips_path = path.child("clusterIPs");
    match (ip, ips) {
        ("", []) => {}
        ("", _) => {
            check.invalid(
                &ips_path,
                &json!(ips),
                "must be empty when `clusterIP` is not specified",
            );
        }
        (_, []) => check.required(&ips_path, ""),
        (ip, [first, ..]) if first != ip => {
            check.invalid(&ips_path, &json!(ips), "first value must match `clusterIP`");
        }
        _ => {}
    }
    families(check, spec, path);
    let errors = check.errors.len();
    for (index, ip) in ips.iter().filter_map(Value::as_str).enumerate() {
        if index > 0 || ip != "None" {
            check.syntax(&ips_path.index(index), ip, names::ip(ip));
        } else if ips.len() > 1 {
            check.invalid(
                &ips_path,
                &json!(ips),
                "'None' must be the first and only value",
            );
        }
    }
    if ips.len() > 2 {
        check.invalid(&ips_path, &json!(ips), "may only hold up to 2 values");
    }
    if check.errors.len() > errors {
        return;
    }
    if let [first, second] = ips
        && !dual_stack(
            first.as_str().unwrap_or_default(),
            second.as_str().unwrap_or_default(),
        )
    {
        let detail = "may specify no more than one IP for each IP family";
        check.invalid(&ips_path, &json!(ips), detail);
    }
    families_fit(check, spec, &ips_path);
}

fn families(check: &mut Check, spec: &Value, path: &Path<'_>) {
    let families = list(spec, "ipFamilies");
    let families_path = path.child("ipFamilies");
    for (index, family) in families.iter().enumerate() {
        let path = families_path.index(index);
        check.one_of(&path, family.as_str().unwrap_or_default(), FAMILIES);
        if families[..index].contains(family) {
            check.duplicate(&path, family);
        }
    }
    check.optional_one_of(
        &path.child("ipFamilyPolicy"),
        text(spec, "ipFamilyPolicy"),
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
    );
}

fn families_fit(check: &mut Check, spec: &Value, path: &Path<'_>) {
    let pairs = list(spec, "clusterIPs")
        .iter()
        .zip(list(spec, "ipFamilies"));
    for (index, (ip, family)) in pairs.enumerate() {
        let Some(Ok(address)) = ip.as_str().map(str::parse::<IpAddr>) else {
            continue;
        };
        let found = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let family = family.as_str().unwrap_or_default();
        if found != family {
            let detail =
                format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            check.invalid(&path.index(index), ip, detail);
        }
    }
}

fn external_ips(check: &mut Check, spec: &Value, path: &Path<'_>) {
    for (index, ip) in list(spec, "externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .enumerate()
    {
        check.syntax(&path.index(index), ip, names::endpoint_ip(ip));
    }
}

fn load_balancer(check: &mut Check, spec: &Value, ty: &str, path: &Path<'_>) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let balanced = ty == "LoadBalancer";
    // Upstream names the field in upper case here.
    let ranges_path = path.child("LoadBalancerSourceRanges");
    let ranges = list(spec, "loadBalancerSourceRanges");
    if !ranges.is_empty() && !balanced {
        check.forbidden(&ranges_path, ONLY);
    }
    for (index, range) in ranges.iter().filter_map(Value::as_str).enumerate() {
        let range = range.trim();
        check.syntax(&ranges_path.index(index), range, names::cidr(range));
    }
    if !spec["allocateLoadBalancerNodePorts"].is_null() && !balanced {
        check.forbidden(&path.child("allocateLoadBalancerNodePorts"), ONLY);
    }
    let class = text(spec, "loadBalancerClass");
    if !class.is_empty() && !balanced {
        check.forbidden(&path.child("loadBalancerClass"), ONLY);
    } else if !class.is_empty() {
        check.syntax(
            &path.child("loadBalancerClass"),
            class,
            names::qualified_name(class),
        );
    }
}

fn traffic(check: &mut Check, spec: &Value, ty: &str, path: &Path<'_>) {
    const POLICIES: &[&str] = &["Cluster", "Local"];
    let external = text(spec, "externalTrafficPolicy");
    let external_path = path.child("externalTrafficPolicy");
    let accessible = matches!(ty, "NodePort" | "LoadBalancer")
        || (ty == "ClusterIP" && !list(spec, "externalIPs").is_empty());
    if accessible {
        check.one_of(&external_path, external, POLICIES);
    } else if !external.is_empty() {
        let detail = "may only be set for externally-accessible services";
        check.invalid(&external_path, &json!(external), detail);
    }
    health_check_port(
        check,
        spec,
        ty == "LoadBalancer" && external == "Local",
        path,
    );
    let internal = text(spec, "internalTrafficPolicy");
    let internal_path = path.child("internalTrafficPolicy");
    match ty {
        "ClusterIP" | "NodePort" | "LoadBalancer" => {
            check.one_of(&internal_path, internal, POLICIES);
        }
        _ => check.optional_one_of(&internal_path, internal, POLICIES),
    }
    check.optional_one_of(
        &path.child("trafficDistribution"),
        text(spec, "trafficDistribution"),
        &["PreferClose", "PreferSameNode", "PreferSameZone"],
    );
}

fn health_check_port(check: &mut Check, spec: &Value, needed: bool, path: &Path<'_>) {
    let port = int(spec, "healthCheckNodePort").unwrap_or_default();
    let path = path.child("healthCheckNodePort");
    match (needed, port) {
        (_, 0) => {}
        (true, port) => check.number(&path, port, names::port(port)),
        (false, port) => {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            check.invalid(&path, &json!(port), detail);
        }
    }
}

pub(super) fn status(check: &mut Check, service: &Value) {
    let status = Path::root("status");
    let balancer = status.child("loadBalancer");
    let path = balancer.child("ingress");
    let ingress = list_at(service, "/status/loadBalancer/ingress");
    if !ingress.is_empty() && text(&service["spec"], "type") != "LoadBalancer" {
        check.forbidden(
            &path,
            "may only be used when `spec.type` is \"LoadBalancer\"",
        );
    }
    for (index, entry) in ingress.iter().enumerate() {
        let path = path.index(index);
        let (ip, hostname) = (text(entry, "ip"), text(entry, "hostname"));
        if !ip.is_empty() {
            check.syntax(&path.child("ip"), ip, names::ip(ip));
        }
        if !hostname.is_empty() {
            let messages = names::dns_subdomain(hostname);
            check.syntax(&path.child("hostname"), hostname, messages);
        }
        if text(entry, "ipMode").is_empty() && !ip.is_empty() {
            check.add(FieldError::required(
                &path.child("ipMode"),
                "must be specified when `ip` is set",
            ));
        }
    }
}
