//! Pod specs, in pods and in the templates of workloads.

use serde_json::{Value, json};

use super::check::{Check, Rule};
use super::container::{self, Pod};
use super::node::TAINT_EFFECTS;
use super::{affinity, security, volume};
use crate::field::Path;
use crate::json::{flag, int, list, map, text};
use crate::{equality, names};

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;
const MAX_SEARCH_LENGTH: usize = 2048;

/// `is_pod` tells pods from templates, in which ports of the host may still be left out.
pub(super) fn spec(check: &mut Check, spec: &Value, is_pod: bool, path: &Path<'_>) {
    volume::volumes(check, list(spec, "volumes"), &path.child("volumes"));
    container::containers(check, &Pod::of(spec), path);
    host_network(check, spec, is_pod, path);
    policies(check, spec, path);
    check.labels(&path.child("nodeSelector"), map(spec, "nodeSelector"));
    security::pod(check, spec, &path.child("securityContext"));
    affinity::affinity(check, &spec["affinity"], &path.child("affinity"));
    dns_config(check, spec, &path.child("dnsConfig"));
    gates(check, spec, path);
    let constraints = list(spec, "topologySpreadConstraints");
    affinity::spread(check, constraints, &path.child("topologySpreadConstraints"));
    named_things(check, spec, path);
    if let Some(seconds) = int(spec, "activeDeadlineSeconds") {
        let messages = names::in_range(seconds, 1, i32::MAX.into());
        check.number(&path.child("activeDeadlineSeconds"), seconds, messages);
    }
    tolerations(check, list(spec, "tolerations"), &path.child("tolerations"));
    host_aliases(check, list(spec, "hostAliases"), &path.child("hostAliases"));
}

fn policies(check: &mut Check, spec: &Value, path: &Path<'_>) {
    check.one_of(
        &path.child("restartPolicy"),
        text(spec, "restartPolicy"),
        &["Always", "OnFailure", "Never"],
    );
    check.one_of(
        &path.child("dnsPolicy"),
        text(spec, "dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    check.optional_one_of(
        &path.child("preemptionPolicy"),
        text(spec, "preemptionPolicy"),
        &["PreemptLowerPriority", "Never"],
    );
}

/// Names of other objects, and the pod's own names.
fn named_things(check: &mut Check, spec: &Value, path: &Path<'_>) {
    let rules: [(&str, Rule); 6] = [
        ("serviceAccountName", names::dns_subdomain),
        ("nodeName", names::dns_subdomain),
        ("hostname", names::dns_label),
        ("subdomain", names::dns_label),
        ("priorityClassName", names::dns_subdomain),
        ("runtimeClassName", names::dns_subdomain),
    ];
    for (field, rule) in rules {
        let value = text(spec, field);
        if !value.is_empty() {
            check.syntax(&path.child(field), value, rule(value));
        }
    }
}

/// In the host's network, a container's port is the host's port.
fn host_network(check: &mut Check, spec: &Value, is_pod: bool, path: &Path<'_>) {
    if !flag(spec, "hostNetwork") {
        return;
    }
    let containers = path.child("containers");
    for (index, container) in list(spec, "containers").iter().enumerate() {
        let path = containers.index(index);
        let ports = path.child("ports");
        for (index, port) in list(container, "ports").iter().enumerate() {
            let host = int(port, "hostPort").unwrap_or_default();
            if (is_pod || host != 0) && Some(host) != int(port, "containerPort") {
                check.invalid(
                    &ports.index(index).child("hostPort"),
                    &json!(host),
                    "must match `containerPort` when `hostNetwork` is true",
                );
            }
        }
    }
}

fn dns_config(check: &mut Check, spec: &Value, path: &Path<'_>) {
    let config = spec.get("dnsConfig").filter(|config| config.is_object());
    if text(spec, "dnsPolicy") == "None" {
        match config {
            None => {
                check.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
                return;
            }
            Some(config) if list(config, "nameservers").is_empty() => {
                let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                check.required(&path.child("nameservers"), detail);
                return;
            }
            Some(_) => {}
        }
    }
    if let Some(config) = config {
        nameservers(
            check,
            list(config, "nameservers"),
            &path.child("nameservers"),
        );
        searches(check, list(config, "searches"), &path.child("searches"));
    }
}

fn nameservers(check: &mut Check, servers: &[Value], path: &Path<'_>) {
    if servers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        check.invalid(path, &json!(servers), detail);
    }
    for (index, server) in servers.iter().filter_map(Value::as_str).enumerate() {
        check.syntax(&path.index(index), server, names::ip(server));
    }
}

fn searches(check: &mut Check, searches: &[Value], path: &Path<'_>) {
    if searches.len() > MAX_SEARCH_PATHS {
        let detail = format!("must not have more than {MAX_SEARCH_PATHS} search paths");
        check.invalid(path, &json!(searches), detail);
    }
    let texts: Vec<&str> = searches.iter().filter_map(Value::as_str).collect();
    if texts.join(" ").len() > MAX_SEARCH_LENGTH {
        let detail = format!(
            "must not have more than {MAX_SEARCH_LENGTH} characters (including spaces) in the search list"
        );
        check.invalid(path, &json!(searches), detail);
    }
    for (index, search) in texts
        .iter()
        .enumerate()
        .filter(|(_, search)| **search != ".")
    {
        let name = search.strip_suffix('.').unwrap_or(search);
        check.syntax(
            &path.index(index),
            name,
            names::dns_subdomain(&name.replace('_', "")),
        );
    }
}

fn gates(check: &mut Check, spec: &Value, path: &Path<'_>) {
    let readiness = path.child("readinessGates");
    for (index, gate) in list(spec, "readinessGates").iter().enumerate() {
        let ty = text(gate, "conditionType");
        check.syntax(
            &readiness.index(index).child("conditionType"),
            ty,
            names::qualified_name(ty),
        );
    }
    let scheduling = path.child("schedulingGates");
    let gates = list(spec, "schedulingGates");
    for (index, gate) in gates.iter().enumerate() {
        let name = text(gate, "name");
        check.syntax(&scheduling.index(index), name, names::qualified_name(name));
        if gates[..index].contains(gate) {
            check.duplicate(&scheduling.index(index), &json!(name));
        }
    }
}

pub(super) fn tolerations(check: &mut Check, tolerations: &[Value], path: &Path<'_>) {
    for (index, toleration) in tolerations.iter().enumerate() {
        toleration_rules(check, toleration, &path.index(index));
    }
}

fn toleration_rules(check: &mut Check, toleration: &Value, path: &Path<'_>) {
    let field = |name: &str| text(toleration, name);
    let (key, operator, value, effect) = (
        field("key"),
        field("operator"),
        field("value"),
        field("effect"),
    );
    if !key.is_empty() {
        check.syntax(&path.child("key"), key, names::qualified_name(key));
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        check.invalid(&path.child("operator"), &json!(operator), detail);
    }
    if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        check.invalid(&path.child("effect"), &json!(effect), detail);
    }
    match operator {
        "" | "Equal" => {
            let messages = names::label_value(value);
            if !messages.is_empty() {
                check.invalid(&path.child("operator"), &json!(value), messages.join(";"));
            }
        }
        "Exists" if value.is_empty() => {}
        "Exists" => {
            let detail = "value must be empty when `operator` is 'Exists'";
            check.invalid(&path.child("operator"), &json!(value), detail);
        }
        other => check.one_of(&path.child("operator"), other, &["Equal", "Exists"]),
    }
    check.optional_one_of(&path.child("effect"), effect, TAINT_EFFECTS);
}

/// Tolerations of a pod may be added; of the others only the time may change.
pub(super) fn only_added_tolerations(
    check: &mut Check,
    new: &[Value],
    old: &[Value],
    path: &Path<'_>,
) {
    let without_time = |toleration: &Value| {
        let mut toleration = toleration.clone();
        crate::json::set(&mut toleration, "tolerationSeconds", None);
        toleration
    };
    let kept = |old: &Value| {
        let old = without_time(old);
        new.iter()
            .any(|new| equality::equal(Some(&without_time(new)), Some(&old)))
    };
    if !old.iter().all(kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        check.forbidden(path, detail);
    }
}

fn host_aliases(check: &mut Check, aliases: &[Value], path: &Path<'_>) {
    for (index, alias) in aliases.iter().enumerate() {
        let path = path.index(index);
        let ip = text(alias, "ip");
        check.syntax(&path.child("ip"), ip, names::ip(ip));
        let hostnames = path.child("hostnames");
        for (index, name) in list(alias, "hostnames")
            .iter()
            .filter_map(Value::as_str)
            .enumerate()
        {
            check.syntax(&hostnames.index(index), name, names::dns_subdomain(name));
        }
    }
}
