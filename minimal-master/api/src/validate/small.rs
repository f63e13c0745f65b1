//! Kinds with few rules: Namespaces and Leases.

use serde_json::{Value, json};

use super::check::Check;
use crate::field::Path;
use crate::json::{int_at, list_at, text_at};
use crate::names;

pub(super) fn namespace(check: &mut Check, object: &Value) {
    let spec = Path::root("spec");
    let path = spec.child("finalizers");
    for (index, finalizer) in list_at(object, "/spec/finalizers").iter().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        let path = path.index(index);
        check.syntax(&path, name, names::qualified_name(name));
        if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            check.invalid(&path, &json!(name), detail);
        }
    }
}

pub(super) fn namespace_status(check: &mut Check, object: &Value) {
    let status = Path::root("status");
    let path = status.child("phase");
    let deleted = !text_at(object, "/metadata/deletionTimestamp").is_empty();
    let (phase, detail) = match deleted {
        false => (
            "Active",
            "may only be 'Active' if `deletionTimestamp` is empty",
        ),
        true => (
            "Terminating",
            "may only be 'Terminating' if `deletionTimestamp` is not empty",
        ),
    };
    let found = text_at(object, "/status/phase");
    if found != phase {
        check.invalid(&path, &json!(found), detail);
    }
}

pub(super) fn lease(check: &mut Check, object: &Value) {
    let spec = Path::root("spec");
    if object.pointer("/spec/leaseDurationSeconds").is_some() {
        let seconds = int_at(object, "/spec/leaseDurationSeconds");
        if seconds <= 0 {
            let path = spec.child("leaseDurationSeconds");
            check.invalid(&path, &json!(seconds), "must be greater than 0");
        }
    }
    check.not_negative(&spec, &object["spec"], &["leaseTransitions"]);
}
