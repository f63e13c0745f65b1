//! Nodes.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::check::Check;
use super::resources;
use crate::field::Path;
use crate::json::{list, list_at, map_at, text, text_at};
use crate::{FieldError, equality, names};

pub(super) const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn content(check: &mut Check, node: &Value) {
    taints(check, list_at(node, "/spec/taints"));
    capacities(check, node);
    pod_cidrs(check, list_at(node, "/spec/podCIDRs"));
}

/// Upstream reports taints below `metadata`, and so does this.
fn taints(check: &mut Check, taints: &[Value]) {
    let metadata = Path::root("metadata");
    let path = metadata.child("taints");
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        let (key, value) = (text(taint, "key"), text(taint, "value"));
        check.syntax(&path.child("key"), key, names::qualified_name(key));
        check.syntax(&path.child("value"), value, names::label_value(value));
        check.one_of(&path.child("effect"), text(taint, "effect"), TAINT_EFFECTS);
        let same =
            |other: &&Value| other["key"] == taint["key"] && other["effect"] == taint["effect"];
        if taints[..index].iter().any(|other| same(&other)) {
            let mut error = FieldError::duplicate(&path, taint);
            error.detail = "taints must be unique by key and effect pair".to_owned();
            check.add(error);
        }
    }
}

fn capacities(check: &mut Check, node: &Value) {
    let status = Path::root("status");
    for list in ["capacity", "allocatable"] {
        let path = status.child(list);
        for (name, amount) in map_at(node, &format!("/status/{list}")) {
            resources::quantity(check, name, amount, &path.child(name));
        }
    }
}

fn pod_cidrs(check: &mut Check, cidrs: &[Value]) {
    let spec = Path::root("spec");
    let path = spec.child("podCIDRs");
    let mut families = Vec::new();
    for (index, cidr) in cidrs.iter().filter_map(Value::as_str).enumerate() {
        check.syntax(&path.index(index), cidr, names::cidr(cidr));
        families.extend(cidr.parse::<IpNetwork>().map(|network| network.is_ipv4()));
        if cidrs[..index].iter().any(|other| other == cidr) {
            check.duplicate(&path.index(index), &json!(cidr));
        }
    }
    if cidrs.len() > 2 || matches!(families[..], [a, b] if a == b) {
        let detail = "may specify no more than one CIDR for each IP family";
        check.invalid(&path, &json!(cidrs), detail);
    }
}

pub(super) fn update(check: &mut Check, new: &Value, old: &Value) {
    let spec = Path::root("spec");
    let cidrs = |node: &Value| {
        node.pointer("/spec/podCIDRs")
            .cloned()
            .unwrap_or(Value::Null)
    };
    if !list_at(old, "/spec/podCIDRs").is_empty() && cidrs(old) != cidrs(new) {
        check.forbidden(
            &spec.child("podCIDRs"),
            "node updates may not change podCIDR except from \"\" to valid",
        );
    }
    let provider = |node| text_at(node, "/spec/providerID");
    if !provider(old).is_empty() && provider(old) != provider(new) {
        check.forbidden(
            &spec.child("providerID"),
            "node updates may not change providerID except from \"\" to valid",
        );
    }
}

pub(super) fn status(check: &mut Check, node: &Value) {
    capacities(check, node);
    let status = Path::root("status");
    let path = status.child("addresses");
    let addresses = list(&node["status"], "addresses");
    for (index, address) in addresses.iter().enumerate() {
        let is_same = |other: &Value| equality::equal(Some(other), Some(address));
        if addresses[..index].iter().any(is_same) {
            check.duplicate(&path.index(index), address);
        }
    }
}

/// Whether two addresses are of different families; false when one is no address.
pub(super) fn dual_stack(a: &str, b: &str) -> bool {
    match (a.parse::<IpAddr>(), b.parse::<IpAddr>()) {
        (Ok(a), Ok(b)) => a.is_ipv4() != b.is_ipv4(),
        _ => false,
    }
}
