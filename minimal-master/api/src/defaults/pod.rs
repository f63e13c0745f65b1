//! Defaults of pods, and of the pod specs in templates.

use serde_json::{Map, Value, json};

use crate::json::{default, default_text, flag, int, list_mut, map, object_mut, set, text};

/// `0644` in decimal, as JSON carries modes: the mode of files in volumes.
const FILE_MODE: u32 = 0o644;
const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

pub(super) fn pod(object: &mut Value) {
    if object_mut(object, "spec").is_none() {
        return;
    }
    let pod_spec = &mut object["spec"];
    spec(pod_spec);
    let host_network = flag(pod_spec, "hostNetwork");
    for list in ["containers", "initContainers"] {
        for container in list_mut(pod_spec, list) {
            request_what_is_limited(container);
            if host_network {
                host_ports(container);
            }
        }
    }
    default(pod_spec, "enableServiceLinks", true);
    if let Some(status) = object.get_mut("status") {
        mirror_pod_ips(status);
    }
}

/// What applies to the specs in templates too: less than for pods, so that templates stay as short as users wrote
/// them.
pub(super) fn spec(spec: &mut Value) {
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "restartPolicy", "Always");
    default_text(spec, "schedulerName", "default-scheduler");
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", 30);
    mirror_service_account(spec);
    for list in CONTAINER_LISTS {
        list_mut(spec, list).iter_mut().for_each(container);
    }
    list_mut(spec, "volumes").iter_mut().for_each(volume);
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always written.
pub(crate) fn mirror_service_account(spec: &mut Value) {
    let name = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount").to_owned(),
        name => name.to_owned(),
    };
    if !name.is_empty() {
        spec["serviceAccountName"] = json!(name);
        spec["serviceAccount"] = json!(name);
    }
}

/// `podIP` is the first of `podIPs`; clients may send either.
fn mirror_pod_ips(status: &mut Value) {
    let first = status
        .pointer("/podIPs/0/ip")
        .and_then(Value::as_str)
        .map(str::to_owned);
    match first {
        Some(first) => status["podIP"] = json!(first),
        None if !text(status, "podIP").is_empty() => {
            status["podIPs"] = json!([{"ip": text(status, "podIP")}]);
        }
        None => {}
    }
}

fn container(container: &mut Value) {
    let policy = pull_policy(text(container, "image"));
    default_text(container, "imagePullPolicy", policy);
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    for port in list_mut(container, "ports") {
        default_text(port, "protocol", "TCP");
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(value) = container.get_mut(name) {
            probe(value);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(value) = container.pointer_mut(&format!("/lifecycle/{hook}")) {
            http_get(value);
        }
    }
    for variable in list_mut(container, "env") {
        if let Some(source) = variable.get_mut("valueFrom") {
            downward_source(source);
        }
    }
}

fn pull_policy(image: &str) -> &'static str {
    if tag_is_latest(image) {
        "Always"
    } else {
        "IfNotPresent"
    }
}

/// Whether an image reference means the tag `latest`: by saying so, or by naming neither tag nor digest.
pub fn tag_is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => !last.is_empty(),
    }
}

fn probe(probe: &mut Value) {
    for (field, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if int(probe, field).unwrap_or_default() == 0 {
            set(probe, field, Some(json!(value)));
        }
    }
    http_get(probe);
    if let Some(grpc) = probe.get_mut("grpc") {
        default(grpc, "service", "");
    }
}

fn http_get(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet") {
        default_text(get, "path", "/");
        default_text(get, "scheme", "HTTP");
    }
}

fn downward_source(source: &mut Value) {
    if let Some(field) = source.get_mut("fieldRef") {
        default_text(field, "apiVersion", "v1");
    }
    if let Some(resource) = source.get_mut("resourceFieldRef") {
        default(resource, "divisor", "0");
    }
}

/// A volume without a source is an emptyDir.
fn volume(volume: &mut Value) {
    let has_source = volume
        .as_object()
        .is_some_and(|map| map.keys().any(|key| key != "name"));
    if !has_source {
        set(volume, "emptyDir", Some(json!({})));
    }
    for source in ["configMap", "downwardAPI", "projected", "secret"] {
        if let Some(value) = volume.get_mut(source) {
            default(value, "defaultMode", FILE_MODE);
        }
    }
    if let Some(host_path) = volume.get_mut("hostPath") {
        default(host_path, "type", "");
    }
    if let Some(image) = volume.get_mut("image") {
        let policy = pull_policy(text(image, "reference"));
        default_text(image, "pullPolicy", policy);
    }
    if let Some(downward) = volume.get_mut("downwardAPI") {
        list_mut(downward, "items")
            .iter_mut()
            .for_each(downward_source);
    }
    if let Some(projected) = volume.get_mut("projected") {
        list_mut(projected, "sources")
            .iter_mut()
            .for_each(projection);
    }
    if let Some(claim) = volume.pointer_mut("/ephemeral/volumeClaimTemplate/spec") {
        default(claim, "volumeMode", "Filesystem");
    }
}

fn projection(source: &mut Value) {
    if let Some(token) = source.get_mut("serviceAccountToken") {
        default(token, "expirationSeconds", 3600);
    }
    if let Some(downward) = source.get_mut("downwardAPI") {
        list_mut(downward, "items")
            .iter_mut()
            .for_each(downward_source);
    }
}

/// A limit without a request is a request of the same amount.
fn request_what_is_limited(container: &mut Value) {
    let Some(resources) = container.get_mut("resources") else {
        return;
    };
    let limits: Map<String, Value> = map(resources, "limits").clone();
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = object_mut(resources, "requests") {
        for (name, amount) in limits {
            requests.entry(name).or_insert(amount);
        }
    }
}

/// In the host's network a container port is the host's port.
fn host_ports(container: &mut Value) {
    for port in list_mut(container, "ports") {
        if int(port, "hostPort").unwrap_or_default() == 0
            && let Some(number) = port.get("containerPort").cloned()
        {
            port["hostPort"] = number;
        }
    }
}
