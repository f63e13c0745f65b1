//! What a write may not touch: status through the object, the object through its status, generation.
//!
//! The counterpart of upstream's registry strategies (`PrepareForCreate`, `PrepareForUpdate`).

mod qos;
mod service;

use serde_json::{Value, json};

use crate::defaults;
use crate::json::{default, default_text, int_at, object_mut, set};
use crate::{Kind, equality};

pub use qos::qos_class;

/// Before a create is validated: drops what only the server sets (status where it is a subresource), sets
/// `metadata.generation` to 1 where the kind counts it, and the first phase of pods and namespaces.
///
/// Names, uid, creationTimestamp and resourceVersion are the server's business.
pub fn for_create(kind: &Kind, object: &mut Value) {
    if object_mut(object, "metadata").is_none() {
        return;
    }
    let metadata = &mut object["metadata"];
    for field in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
    ] {
        set(metadata, field, None);
    }
    set(
        metadata,
        "generation",
        counts_generation(kind).then(|| json!(1)),
    );
    match (kind.group, kind.kind) {
        ("", "Pod") => create_pod(object),
        ("", "Namespace") => create_namespace(object),
        ("", "Service") => {
            set(object, "status", Some(json!({"loadBalancer": {}})));
            service::normalize_cluster_ips(object, None);
        }
        ("apps", _) => set(object, "status", Some(empty_status(kind))),
        _ => {}
    }
}

fn create_pod(pod: &mut Value) {
    if let Some(spec) = pod.get_mut("spec") {
        defaults::mirror_service_account(spec);
        default(spec, "priority", 0);
        default_text(spec, "preemptionPolicy", "PreemptLowerPriority");
    }
    let class = qos_class(&pod["spec"]);
    set(
        pod,
        "status",
        Some(json!({"phase": "Pending", "qosClass": class})),
    );
}

/// A namespace goes away only after the finalizer `kubernetes` is taken off, when it is empty.
fn create_namespace(namespace: &mut Value) {
    set(namespace, "status", Some(json!({"phase": "Active"})));
    defaults::namespace(namespace);
    if object_mut(namespace, "spec").is_none() {
        return;
    }
    let spec = &mut namespace["spec"];
    let finalizers = crate::json::list(spec, "finalizers");
    if !finalizers.iter().any(|f| f == "kubernetes") {
        let mut finalizers = finalizers.to_vec();
        finalizers.push(json!("kubernetes"));
        set(spec, "finalizers", Some(json!(finalizers)));
    }
}

/// The status of workloads before their controller has seen them: `replicas` is always written.
fn empty_status(kind: &Kind) -> Value {
    match kind.kind {
        "ReplicaSet" => json!({"replicas": 0}),
        _ => json!({}),
    }
}

/// Kinds whose `metadata.generation` counts changes of what the user wants.
fn counts_generation(kind: &Kind) -> bool {
    matches!(
        (kind.group, kind.kind),
        ("", "Pod") | ("apps", _) | ("discovery.k8s.io", "EndpointSlice")
    )
}

/// Before an update is validated: keeps the status and system metadata of `old`, and raises the generation when
/// the spec changed.
pub fn for_update(kind: &Kind, new: &mut Value, old: &Value) {
    keep_system_metadata(new, old);
    if kind.has_status() {
        set(new, "status", old.get("status").cloned());
    }
    match (kind.group, kind.kind) {
        ("", "Pod") => {
            if let Some(spec) = new.get_mut("spec") {
                defaults::mirror_service_account(spec);
            }
        }
        ("", "Namespace") => keep(new, old, "spec", "finalizers"),
        ("", "Service") => service::for_update(new, old),
        _ => {}
    }
    let generation = int_at(old, "/metadata/generation");
    if counts_generation(kind) {
        let raised = generation + i64::from(wants_something_else(kind, new, old));
        set(&mut new["metadata"], "generation", Some(json!(raised)));
    } else {
        set(
            &mut new["metadata"],
            "generation",
            (generation > 0).then(|| json!(generation)),
        );
    }
}

/// Whether an update changes what the user wants.
fn wants_something_else(kind: &Kind, new: &Value, old: &Value) -> bool {
    let differs = |pointer: &str| !equality::equal(new.pointer(pointer), old.pointer(pointer));
    match kind.kind {
        "Deployment" => differs("/spec") || differs("/metadata/annotations"),
        "EndpointSlice" => {
            differs("/endpoints")
                || differs("/ports")
                || differs("/addressType")
                || differs("/metadata/labels")
        }
        _ => differs("/spec"),
    }
}

/// Fields of the metadata that stay as they were when the client leaves them out.
fn keep_system_metadata(new: &mut Value, old: &Value) {
    if object_mut(new, "metadata").is_none() {
        return;
    }
    set(&mut new["metadata"], "managedFields", None);
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        let missing = matches!(&new["metadata"][field], Value::Null)
            || new["metadata"][field].as_str() == Some("");
        if missing {
            set(
                &mut new["metadata"],
                field,
                old["metadata"].get(field).cloned(),
            );
        }
    }
}

/// Sets `outer.inner` of `new` to what it is in `old`.
fn keep(new: &mut Value, old: &Value, outer: &str, inner: &str) {
    let value = old.get(outer).and_then(|v| v.get(inner)).cloned();
    if object_mut(new, outer).is_some() {
        set(&mut new[outer], inner, value);
    }
}

/// Before a write to the `status` subresource is validated: keeps everything but status, annotations and (besides
/// workloads) labels of `old`.
pub fn for_status_update(kind: &Kind, new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    set(&mut kept, "status", new.get("status").cloned());
    let mut metadata = vec!["annotations", "resourceVersion", "uid", "finalizers"];
    if kind.group != "apps" {
        metadata.push("labels");
    }
    if kind.kind != "Pod" {
        metadata.push("ownerReferences");
    }
    for field in metadata {
        if let Some(kept_metadata) = kept.get_mut("metadata") {
            set(kept_metadata, field, new["metadata"].get(field).cloned());
        }
    }
    *new = kept;
    keep_system_metadata(new, old);
    if kind.kind == "Pod" && new["status"]["qosClass"].is_null() {
        keep(new, old, "status", "qosClass");
    }
}

/// Before a write to `namespaces/NAME/finalize`: only `spec.finalizers` (and metadata) change.
pub fn for_finalize(new: &mut Value, old: &Value) {
    set(new, "status", old.get("status").cloned());
    keep_system_metadata(new, old);
}
