//! Metadata: names, labels, annotations, owners and finalizers.

use serde_json::{Map, Value, json};

use super::check::{Check, NOT_NEGATIVE, Rule};
use crate::field::Path;
use crate::json::{flag, int, list, map, text};
use crate::{FieldError, Kind, names};

/// Bytes that all annotations of an object may have together.
const MAX_ANNOTATIONS: usize = 256 << 10;

pub(super) fn create(check: &mut Check, kind: &Kind, object: &Value) {
    let path = Path::root("metadata");
    let metadata = &object["metadata"];
    name(check, kind, metadata, &path);
    namespace(check, kind, metadata, &path);
    common(check, metadata, &path);
}

/// The rule for names of a kind.
fn rule(kind: &Kind) -> Rule {
    match (kind.group, kind.kind) {
        ("", "Namespace") => names::dns_label,
        ("", "Service") => names::dns_1035_label,
        _ => names::dns_subdomain,
    }
}

fn name(check: &mut Check, kind: &Kind, metadata: &Value, path: &Path<'_>) {
    let generate = text(metadata, "generateName");
    if !generate.is_empty() {
        // What is generated replaces the end of the prefix, so that a trailing dash is no mistake.
        let stem = format!("{}a", generate.trim_end_matches('-'));
        check.syntax(&path.child("generateName"), generate, rule(kind)(&stem));
    }
    match text(metadata, "name") {
        "" => check.required(&path.child("name"), "name or generateName is required"),
        name => check.syntax(&path.child("name"), name, rule(kind)(name)),
    }
}

fn namespace(check: &mut Check, kind: &Kind, metadata: &Value, path: &Path<'_>) {
    let path = path.child("namespace");
    match (kind.namespaced, text(metadata, "namespace")) {
        (true, namespace) => check.required_syntax(&path, namespace, names::dns_label),
        (false, "") => {}
        (false, _) => check.forbidden(&path, "not allowed on this type"),
    }
}

fn common(check: &mut Check, metadata: &Value, path: &Path<'_>) {
    if let Some(generation) = int(metadata, "generation").filter(|g| *g < 0) {
        check.invalid(&path.child("generation"), &json!(generation), NOT_NEGATIVE);
    }
    check.labels(&path.child("labels"), map(metadata, "labels"));
    annotations(
        check,
        map(metadata, "annotations"),
        &path.child("annotations"),
    );
    owners(check, metadata, &path.child("ownerReferences"));
    finalizers(
        check,
        list(metadata, "finalizers"),
        &path.child("finalizers"),
    );
}

/// The keys of annotations (in which case does not matter) and the size of all together.
pub(super) fn annotations(check: &mut Check, annotations: &Map<String, Value>, path: &Path<'_>) {
    let mut size = 0;
    for (key, value) in annotations {
        check.syntax(path, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS {
        check.add(FieldError::too_long(path, MAX_ANNOTATIONS));
    }
}

fn owners(check: &mut Check, metadata: &Value, path: &Path<'_>) {
    let mut controller: Option<String> = None;
    for (index, owner) in list(metadata, "ownerReferences").iter().enumerate() {
        let path = path.index(index);
        if text(owner, "apiVersion").is_empty() {
            check.invalid(
                &path.child("apiVersion"),
                &json!(""),
                "version must not be empty",
            );
        }
        for field in ["kind", "name", "uid"] {
            if text(owner, field).is_empty() {
                check.invalid(&path.child(field), &json!(""), "must not be empty");
            }
        }
        if !flag(owner, "controller") {
            continue;
        }
        let this = format!("{}/{}", text(owner, "kind"), text(owner, "name"));
        if let Some(first) = &controller {
            let detail = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
            );
            check.invalid(
                &Path::root("metadata").child("ownerReferences"),
                &metadata["ownerReferences"],
                detail,
            );
        }
        controller.get_or_insert(this);
    }
}

fn finalizers(check: &mut Check, finalizers: &[Value], path: &Path<'_>) {
    for finalizer in finalizers.iter().filter_map(Value::as_str) {
        check.syntax(path, finalizer, names::qualified_name(finalizer));
    }
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        check.invalid(path, &json!(finalizers), detail);
    }
}

pub(super) fn update(check: &mut Check, kind: &Kind, new: &Value, old: &Value) {
    let path = Path::root("metadata");
    let (new, old) = (&new["metadata"], &old["metadata"]);
    if !text(old, "deletionTimestamp").is_empty() {
        no_new_finalizers(check, new, old, &path.child("finalizers"));
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        check.immutable(&path.child(field), new.get(field), old.get(field));
    }
    if new.get("name") == old.get("name") && text(new, "name").is_empty() {
        name(check, kind, new, &path);
    }
    common(check, new, &path);
}

fn no_new_finalizers(check: &mut Check, new: &Value, old: &Value, path: &Path<'_>) {
    let known = list(old, "finalizers");
    let added: Vec<&str> = list(new, "finalizers")
        .iter()
        .filter(|finalizer| !known.contains(finalizer))
        .filter_map(Value::as_str)
        .collect();
    if !added.is_empty() {
        check.forbidden(
            path,
            format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            ),
        );
    }
}
