//! Node ports and health-check node ports.

use serde_json::{Value, json};
use sluice_api::FieldError;

use super::pool::Problem;
use super::{Draft, Refusal, Resource, SPEC, remove, service_type};

fn wants_node_ports(spec: &Value) -> bool {
    match service_type(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != json!(false),
        _ => false,
    }
}

fn may_have_node_ports(spec: &Value) -> bool {
    matches!(service_type(spec), "NodePort" | "LoadBalancer")
}

fn wants_health_port(spec: &Value) -> bool {
    service_type(spec) == "LoadBalancer" && spec["externalTrafficPolicy"] == "Local"
}

fn number(value: &Value) -> Option<u16> {
    u16::try_from(value.as_u64()?).ok().filter(|port| *port > 0)
}

pub(super) fn fill(draft: &mut Draft<'_>, spec: &mut Value) -> Result<(), Refusal> {
    if may_have_node_ports(spec) {
        take_chosen(draft, spec)?;
    }
    if wants_node_ports(spec) {
        draw_missing(draft, spec)?;
    }
    if wants_health_port(spec) {
        fill_health_port(draft, spec)?;
    }
    Ok(())
}

fn take_chosen(draft: &mut Draft<'_>, spec: &Value) -> Result<(), Refusal> {
    let path = SPEC.child("ports");
    for (index, port) in spec["ports"].as_array().into_iter().flatten().enumerate() {
        if let Some(node_port) = number(&port["nodePort"]) {
            let at = path.index(index);
            let at = at.child("nodePort");
            take(draft, node_port)
                .map_err(|detail| FieldError::invalid(&at, &json!(node_port), detail))?;
        }
    }
    Ok(())
}

fn take(draft: &mut Draft<'_>, port: u16) -> Result<(), String> {
    draft
        .take(Resource::NodePort(port))
        .map_err(|problem| match problem {
            Problem::Taken => "provided port is already allocated".to_owned(),
            Problem::OutOfRange(range) => format!(
                "provided port is not in the valid range. The range of valid ports is {range}"
            ),
            other => other.to_string(),
        })
}

/// TCP and UDP of one port share a node port, as far as the client does not say otherwise.
fn draw_missing(draft: &mut Draft<'_>, spec: &mut Value) -> Result<(), Refusal> {
    let count = spec["ports"].as_array().map_or(0, Vec::len);
    for index in 0..count {
        if number(&spec["ports"][index]["nodePort"]).is_some() {
            continue;
        }
        let node_port = match sibling(&spec["ports"], index) {
            Some(port) => port,
            None => draft.draw_port().map_err(Refusal::Full)?,
        };
        spec["ports"][index]["nodePort"] = json!(node_port);
    }
    Ok(())
}

fn sibling(ports: &Value, index: usize) -> Option<u16> {
    let port = &ports[index];
    let others = ports.as_array()?.iter();
    let same = others
        .filter(|other| other["port"] == port["port"] && other["protocol"] != port["protocol"]);
    same.filter_map(|other| number(&other["nodePort"])).next()
}

fn fill_health_port(draft: &mut Draft<'_>, spec: &mut Value) -> Result<(), Refusal> {
    match number(&spec["healthCheckNodePort"]) {
        Some(port) => take(draft, port).map_err(|detail| {
            let path = SPEC.child("healthCheckNodePort");
            FieldError::invalid(&path, &json!(port), detail).into()
        }),
        None => {
            let port = draft.draw_port().map_err(Refusal::Full)?;
            spec["healthCheckNodePort"] = json!(port);
            Ok(())
        }
    }
}

/// An update that leaves node ports out keeps them; one that changes to a type without them loses those it left as
/// they were.
pub(super) fn keep_allocated(spec: &mut Value, old: &Value) {
    let old_ports = old["ports"].as_array().cloned().unwrap_or_default();
    let (keep, had) = (may_have_node_ports(spec), may_have_node_ports(old));
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        let before = old_ports
            .iter()
            .find(|old| old["port"] == port["port"] && old["protocol"] == port["protocol"]);
        let before = before.and_then(|old| number(&old["nodePort"]));
        match number(&port["nodePort"]) {
            None if keep && before.is_some() => port["nodePort"] = json!(before),
            given @ Some(_) if !keep && had && given == before => remove(port, "nodePort"),
            _ => {}
        }
    }
    keep_health_port(spec, old);
}

fn keep_health_port(spec: &mut Value, old: &Value) {
    let before = number(&old["healthCheckNodePort"]);
    match number(&spec["healthCheckNodePort"]) {
        None if wants_health_port(spec) && before.is_some() => {
            spec["healthCheckNodePort"] = json!(before);
        }
        given @ Some(_) if !wants_health_port(spec) && given == before => {
            remove(spec, "healthCheckNodePort");
        }
        _ => {}
    }
}
