//! Containers of all kinds: regular, init and ephemeral ones.

use serde_json::{Value, json};

use super::check::Check;
use super::{environment, probe, resources, security, volume};
use crate::field::Path;
use crate::json::{int, list, text};
use crate::{FieldError, names};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const ONLY_SIDECARS: &str = "may not be set for init containers without restartPolicy=Always";

/// What the containers of a pod refer to.
pub(super) struct Pod<'a> {
    spec: &'a Value,
    volumes: &'a [Value],
    /// Termination grace period, seconds.
    grace: Option<i64>,
}

impl<'a> Pod<'a> {
    pub fn of(spec: &'a Value) -> Self {
        Pod {
            spec,
            volumes: list(spec, "volumes"),
            grace: int(spec, "terminationGracePeriodSeconds"),
        }
    }
}

/// All containers of a pod spec.
pub(super) fn containers(check: &mut Check, pod: &Pod<'_>, path: &Path<'_>) {
    regular(check, pod, &path.child("containers"));
    init(check, pod, &path.child("initContainers"));
    ephemeral(check, pod, &path.child("ephemeralContainers"));
}

fn regular(check: &mut Check, pod: &Pod<'_>, path: &Path<'_>) {
    let containers = list(pod.spec, "containers");
    if containers.is_empty() {
        check.required(path, "");
    }
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        common(check, container, pod, &path);
        unique_name(check, container, containers[..index].iter(), &path);
        probe::lifecycle(check, container, pod.grace, &path);
        probe::probes(check, container, pod.grace, &path);
        restart_policy(check, container, &["Always", "Never", "OnFailure"], &path);
    }
    host_port_conflicts(check, containers, path);
}

fn init(check: &mut Check, pod: &Pod<'_>, path: &Path<'_>) {
    let (containers, regular) = (
        list(pod.spec, "initContainers"),
        list(pod.spec, "containers"),
    );
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        common(check, container, pod, &path);
        restart_policy(check, container, &["Always", "Never", "OnFailure"], &path);
        unique_name(
            check,
            container,
            regular.iter().chain(&containers[..index]),
            &path,
        );
        if text(container, "restartPolicy") == "Always" {
            probe::lifecycle(check, container, pod.grace, &path);
            probe::probes(check, container, pod.grace, &path);
            continue;
        }
        for field in [
            "lifecycle",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
        ] {
            if container[field].is_object() {
                check.forbidden(&path.child(field), ONLY_SIDECARS);
            }
        }
    }
}

fn restart_policy(check: &mut Check, container: &Value, supported: &[&str], path: &Path<'_>) {
    let policy = text(container, "restartPolicy");
    check.optional_one_of(&path.child("restartPolicy"), policy, supported);
}

fn ephemeral(check: &mut Check, pod: &Pod<'_>, path: &Path<'_>) {
    const FORBIDDEN: [&str; 6] = [
        "lifecycle",
        "livenessProbe",
        "ports",
        "readinessProbe",
        "resources",
        "startupProbe",
    ];
    let containers = list(pod.spec, "ephemeralContainers");
    let others = || {
        list(pod.spec, "containers")
            .iter()
            .chain(list(pod.spec, "initContainers"))
    };
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        common(check, container, pod, &path);
        unique_name(
            check,
            container,
            others().chain(&containers[..index]),
            &path,
        );
        let target = text(container, "targetContainerName");
        if !target.is_empty() && !others().any(|other| text(other, "name") == target) {
            let path = path.child("targetContainerName");
            check.add(FieldError::not_found(&path, &json!(target)));
        }
        for field in FORBIDDEN {
            if !crate::equality::equal(container.get(field), None) {
                check.forbidden(
                    &path.child(field),
                    "cannot be set for an Ephemeral Container",
                );
            }
        }
    }
}

fn unique_name<'a>(
    check: &mut Check,
    container: &Value,
    mut others: impl Iterator<Item = &'a Value>,
    path: &Path<'_>,
) {
    let name = text(container, "name");
    if !name.is_empty() && others.any(|other| text(other, "name") == name) {
        check.duplicate(&path.child("name"), &json!(name));
    }
}

fn common(check: &mut Check, container: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    check.required_syntax(
        &path.child("name"),
        text(container, "name"),
        names::dns_label,
    );
    check.required_text(path, container, "image");
    check.one_of(
        &path.child("terminationMessagePolicy"),
        text(container, "terminationMessagePolicy"),
        &["File", "FallbackToLogsOnError"],
    );
    ports(check, list(container, "ports"), &path.child("ports"));
    environment::variables(check, container, path);
    volume::mounts(check, container, pod.volumes, path);
    check.one_of(
        &path.child("imagePullPolicy"),
        text(container, "imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
    );
    let claims = list(pod.spec, "resourceClaims");
    resources::requirements(
        check,
        &container["resources"],
        claims,
        &path.child("resources"),
    );
    security::container(
        check,
        &container["securityContext"],
        &path.child("securityContext"),
    );
}

fn ports(check: &mut Check, ports: &[Value], path: &Path<'_>) {
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(port, "name");
        if !name.is_empty() {
            check.syntax(&path.child("name"), name, names::port_name(name));
            if ports[..index]
                .iter()
                .any(|other| text(other, "name") == name)
            {
                check.duplicate(&path.child("name"), &json!(name));
            }
        }
        match int(port, "containerPort").unwrap_or_default() {
            0 => check.required(&path.child("containerPort"), ""),
            number => check.number(&path.child("containerPort"), number, names::port(number)),
        }
        if let Some(number) = int(port, "hostPort").filter(|number| *number != 0) {
            check.number(&path.child("hostPort"), number, names::port(number));
        }
        check.one_of(&path.child("protocol"), text(port, "protocol"), PROTOCOLS);
    }
}

/// Two containers of a pod can't have the same port of the host.
fn host_port_conflicts(check: &mut Check, containers: &[Value], path: &Path<'_>) {
    let mut seen: Vec<String> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let path = path.index(index);
        let ports_path = path.child("ports");
        for (index, port) in list(container, "ports").iter().enumerate() {
            let number = int(port, "hostPort").unwrap_or_default();
            if number == 0 {
                continue;
            }
            let key = format!(
                "{}/{}/{number}",
                text(port, "protocol"),
                text(port, "hostIP")
            );
            if seen.contains(&key) {
                check.duplicate(&ports_path.index(index).child("hostPort"), &json!(key));
            }
            seen.push(key);
        }
    }
}
