//! Pods: what may be created, what may change afterwards, and their status.

use serde_json::{Value, json};

use super::check::Check;
use super::node::dual_stack;
use super::pod_spec;
use crate::field::Path;
use crate::json::{int_at, list, list_at, text, text_at};
use crate::{equality, names};

/// What an update may change, as upstream words it.
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn content(check: &mut Check, pod: &Value) {
    let path = Path::root("spec");
    let spec = &pod["spec"];
    pod_spec::spec(check, spec, true, &path);
    for list_name in ["containers", "initContainers"] {
        let path = path.child(list_name);
        for (index, container) in list(spec, list_name).iter().enumerate() {
            let image = text(container, "image");
            if image.trim() != image {
                let detail = "must not have leading or trailing whitespace";
                check.invalid(&path.index(index).child("image"), &json!(image), detail);
            }
        }
    }
}

pub(super) fn only_on_create(check: &mut Check, pod: &Value) {
    let path = Path::root("spec");
    if !list_at(pod, "/spec/ephemeralContainers").is_empty() {
        check.forbidden(
            &path.child("ephemeralContainers"),
            "cannot be set on create",
        );
    }
    let gated = !list_at(pod, "/spec/schedulingGates").is_empty();
    if gated && !text_at(pod, "/spec/nodeName").is_empty() {
        let detail = "cannot be set until all schedulingGates have been cleared";
        check.forbidden(&path.child("nodeName"), detail);
    }
}

pub(super) fn update(check: &mut Check, new: &Value, old: &Value) {
    let path = Path::root("spec");
    let (new, old) = (&new["spec"], &old["spec"]);
    for name in ["containers", "initContainers"] {
        if list(new, name).len() != list(old, name).len() {
            check.forbidden(
                &path.child(name),
                "pod updates may not add or remove containers",
            );
            return;
        }
    }
    if !deadline(check, new, old, &path.child("activeDeadlineSeconds")) {
        return;
    }
    let tolerations = path.child("tolerations");
    let (added, known) = (list(new, "tolerations"), list(old, "tolerations"));
    pod_spec::only_added_tolerations(check, added, known, &tolerations);
    scheduling_gates(check, new, old, &path.child("schedulingGates"));
    let munged = with_updatable_fields_of(new, old);
    if !equality::equal(Some(&munged), Some(old)) {
        let mut changes = Vec::new();
        differences(Some(old), Some(&munged), "spec", &mut changes);
        let detail = format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            changes.join("\n")
        );
        check.forbidden(&path, detail);
    }
}

/// The deadline may be set and shortened. False when there is no use in looking further.
fn deadline(check: &mut Check, new: &Value, old: &Value, path: &Path<'_>) -> bool {
    let seconds = |spec: &Value| spec["activeDeadlineSeconds"].as_i64();
    match (seconds(new), seconds(old)) {
        (Some(new), Some(old)) if new > old => {
            check.invalid(
                path,
                &json!(new),
                "must be less than or equal to previous value",
            );
            false
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            check.invalid(path, &Value::Null, detail);
            true
        }
        _ => true,
    }
}

fn scheduling_gates(check: &mut Check, new: &Value, old: &Value, path: &Path<'_>) {
    let known = list(old, "schedulingGates");
    for (index, gate) in list(new, "schedulingGates").iter().enumerate() {
        if !known.contains(gate) {
            let detail = format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                text(gate, "name")
            );
            check.forbidden(&path.index(index).child("name"), detail);
        }
    }
}

/// `new` with what may change taken from `old`: what differs then may not.
fn with_updatable_fields_of(new: &Value, old: &Value) -> Value {
    let mut munged = new.clone();
    for name in ["containers", "initContainers"] {
        let images = list(old, name)
            .iter()
            .map(|container| container.get("image").cloned());
        for (container, image) in crate::json::list_mut(&mut munged, name)
            .iter_mut()
            .zip(images)
        {
            crate::json::set(container, "image", image);
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        crate::json::set(&mut munged, field, old.get(field).cloned());
    }
    let grace = |spec: &Value| int_at(spec, "/terminationGracePeriodSeconds");
    if grace(old) < 0 && grace(new) == 1 {
        munged["terminationGracePeriodSeconds"] = old["terminationGracePeriodSeconds"].clone();
    }
    if !list(old, "schedulingGates").is_empty() {
        for field in ["nodeSelector", "affinity"] {
            crate::json::set(&mut munged, field, old.get(field).cloned());
        }
    }
    munged
}

/// One line for each field that differs, as `spec.hostname: "a" -> "b"`.
fn differences(old: Option<&Value>, new: Option<&Value>, path: &str, lines: &mut Vec<String>) {
    if equality::equal(old, new) {
        return;
    }
    match (old, new) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                differences(a.get(key), b.get(key), &format!("{path}.{key}"), lines);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(Some(a), Some(b), &format!("{path}[{index}]"), lines);
            }
        }
        (old, new) => {
            let show = |value: Option<&Value>| value.map_or("<unset>".to_owned(), Value::to_string);
            lines.push(format!("  {path}: {} -> {}", show(old), show(new)));
        }
    }
}

pub(super) fn status_update(check: &mut Check, new: &Value, old: &Value) {
    let path = Path::root("status");
    let (status, old_status) = (&new["status"], &old["status"]);
    check.immutable(
        &path.child("qosClass"),
        status.get("qosClass"),
        old_status.get("qosClass"),
    );
    let policy = text_at(old, "/spec/restartPolicy");
    for (field, policy) in [
        ("containerStatuses", policy),
        ("initContainerStatuses", policy),
        ("ephemeralContainerStatuses", "Never"),
    ] {
        let sidecars = list_at(old, "/spec/initContainers");
        stays_terminated(check, status, old_status, field, policy, sidecars);
    }
    addresses(check, list(status, "podIPs"), &path.child("podIPs"));
    host_addresses(check, status, &path.child("hostIPs"));
}

/// A container that ended and may not restart stays ended.
fn stays_terminated(
    check: &mut Check,
    new: &Value,
    old: &Value,
    field: &str,
    policy: &str,
    init_containers: &[Value],
) {
    let status = Path::root("status");
    let path = status.child(field);
    let may_restart = |status: &Value| {
        let name = text(status, "name");
        let sidecar = init_containers
            .iter()
            .any(|c| text(c, "name") == name && text(c, "restartPolicy") == "Always");
        let failed = int_at(status, "/state/terminated/exitCode") != 0;
        policy == "Always" || sidecar || (policy == "OnFailure" && failed)
    };
    for (index, old) in list(old, field).iter().enumerate() {
        if !old["state"]["terminated"].is_object() || may_restart(old) {
            continue;
        }
        let revived = |new: &Value| {
            text(new, "name") == text(old, "name") && !new["state"]["terminated"].is_object()
        };
        if list(new, field).iter().any(revived) {
            let detail = "may not be transitioned to non-terminated state";
            check.forbidden(&path.index(index).child("state"), detail);
        }
    }
}

/// One address a family, no address twice.
fn addresses(check: &mut Check, addresses: &[Value], path: &Path<'_>) {
    for (index, address) in addresses.iter().enumerate() {
        let ip = text(address, "ip");
        check.syntax(&path.index(index), ip, names::ip(ip));
        if addresses[..index].contains(address) {
            check.duplicate(&path.index(index), address);
        }
    }
    let two_families = match addresses {
        [] | [_] => true,
        [a, b] => dual_stack(text(a, "ip"), text(b, "ip")),
        _ => false,
    };
    if !two_families {
        let detail = "may specify no more than one IP for each IP family";
        check.invalid(path, &json!(addresses), detail);
    }
}

fn host_addresses(check: &mut Check, status: &Value, path: &Path<'_>) {
    let hosts = list(status, "hostIPs");
    if let Some(first) = hosts.first()
        && text(first, "ip") != text(status, "hostIP")
    {
        check.invalid(
            &path.index(0).child("ip"),
            &first["ip"],
            "must be equal to `hostIP`",
        );
    }
    addresses(check, hosts, path);
}
