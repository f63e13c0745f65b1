//! Defaults: what a client may leave out, filled in as upstream fills it in.
//!
//! Upstream's `pkg/apis/*/v1/defaults.go` and the conversions between its versioned and internal types are the rule;
//! what its admission plugins add (service accounts, tolerations) belongs to the server.

mod apps;
mod pod;

use serde_json::{Map, Value, json};

use crate::Kind;
use crate::json::{default, default_text, list_mut, map, name, object_mut, set, text};

pub(crate) use pod::mirror_service_account;
pub use pod::tag_is_latest;

/// Fills in the defaults of a decoded object. Applying twice changes nothing more.
pub fn apply(kind: &Kind, object: &mut Value) {
    match (kind.group, kind.kind) {
        ("", "Endpoints") => endpoints(object),
        ("", "Namespace") => namespace(object),
        ("", "Node") => node(object),
        ("", "Pod") => pod::pod(object),
        ("", "Secret") => secret(object),
        ("", "Service") => service(object),
        ("apps", "Deployment") => apps::deployment(object),
        ("apps", "ReplicaSet") => apps::replica_set(object),
        ("discovery.k8s.io", "EndpointSlice") => endpoint_slice(object),
        _ => {}
    }
}

/// Every namespace carries its name as a label, so that selectors can name it.
pub(crate) fn namespace(object: &mut Value) {
    let name = name(object).to_owned();
    if !name.is_empty()
        && let Some(metadata) = object_mut(object, "metadata")
        && let Value::Object(labels) = metadata.entry("labels").or_insert_with(|| json!({}))
    {
        labels.insert(
            "kubernetes.io/metadata.name".to_owned(),
            Value::String(name),
        );
    }
    if let Some(status) = object.get_mut("status") {
        default_text(status, "phase", "Active");
    }
}

fn node(object: &mut Value) {
    if let Some(status) = object.get_mut("status")
        && let Some(capacity) = status.get("capacity").cloned()
    {
        default(status, "allocatable", capacity);
    }
    if let Some(spec) = object.get_mut("spec") {
        mirror_pod_cidrs(spec);
    }
}

/// `podCIDR` is the first of `podCIDRs`; clients may send either.
fn mirror_pod_cidrs(spec: &mut Value) {
    let first = spec
        .pointer("/podCIDRs/0")
        .and_then(Value::as_str)
        .map(str::to_owned);
    match first {
        Some(first) => spec["podCIDR"] = json!(first),
        None if !text(spec, "podCIDR").is_empty() => {
            spec["podCIDRs"] = json!([text(spec, "podCIDR")]);
        }
        None => {}
    }
}

/// `stringData` is a way to write `data`; it is never stored.
fn secret(object: &mut Value) {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let plain: Map<String, Value> = map(object, "stringData").clone();
    if !plain.is_empty()
        && let Some(data) = object_mut(object, "data")
    {
        for (key, value) in plain {
            let encoded = STANDARD.encode(value.as_str().unwrap_or_default());
            data.insert(key, Value::String(encoded));
        }
    }
    set(object, "stringData", None);
    default_text(object, "type", "Opaque");
}

/// How long a client stays with a backend by default, seconds (`DefaultClientIPServiceAffinitySeconds`).
const CLIENT_IP_AFFINITY_SECONDS: u32 = 10_800;

fn service(object: &mut Value) {
    if object_mut(object, "spec").is_none() {
        return;
    }
    let spec = &mut object["spec"];
    session_affinity(spec);
    default_text(spec, "type", "ClusterIP");
    for port in list_mut(spec, "ports") {
        service_port(port);
    }
    let ty = text(spec, "type").to_owned();
    let external_ips = !crate::json::list(spec, "externalIPs").is_empty();
    match ty.as_str() {
        "NodePort" | "LoadBalancer" => default_text(spec, "externalTrafficPolicy", "Cluster"),
        "ClusterIP" if external_ips => default_text(spec, "externalTrafficPolicy", "Cluster"),
        _ => {}
    }
    if matches!(ty.as_str(), "ClusterIP" | "NodePort" | "LoadBalancer") {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if ty == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
        load_balancer_status(object);
    }
}

fn session_affinity(spec: &mut Value) {
    default_text(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => set(spec, "sessionAffinityConfig", None),
        "ClientIP"
            if spec
                .pointer("/sessionAffinityConfig/clientIP/timeoutSeconds")
                .is_none() =>
        {
            let config = json!({"clientIP": {"timeoutSeconds": CLIENT_IP_AFFINITY_SECONDS}});
            set(spec, "sessionAffinityConfig", Some(config));
        }
        _ => {}
    }
}

fn service_port(port: &mut Value) {
    default_text(port, "protocol", "TCP");
    let unset = match port.get("targetPort") {
        None | Some(Value::Null) => true,
        Some(target) => target == &json!(0) || target == &json!(""),
    };
    if unset && let Some(number) = port.get("port").cloned() {
        port["targetPort"] = number;
    }
}

fn load_balancer_status(object: &mut Value) {
    let Some(balancer) = object.pointer_mut("/status/loadBalancer") else {
        return;
    };
    for ingress in list_mut(balancer, "ingress") {
        if !text(ingress, "ip").is_empty() {
            default(ingress, "ipMode", "VIP");
        }
    }
}

fn endpoints(object: &mut Value) {
    for subset in list_mut(object, "subsets") {
        for port in list_mut(subset, "ports") {
            default_text(port, "protocol", "TCP");
        }
    }
}

fn endpoint_slice(object: &mut Value) {
    for port in list_mut(object, "ports") {
        default(port, "name", "");
        default(port, "protocol", "TCP");
    }
}
