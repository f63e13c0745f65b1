//! Environment variables, and the fields of pods that they (and volumes) may show.

use serde_json::{Value, json};

use super::check::Check;
use crate::field::Path;
use crate::json::{list, text};
use crate::{FieldError, names};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const VOLUME_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn variables(check: &mut Check, container: &Value, path: &Path<'_>) {
    let env = path.child("env");
    for (index, variable) in list(container, "env").iter().enumerate() {
        let path = env.index(index);
        check.required_syntax(&path.child("name"), text(variable, "name"), names::env_name);
        if let Some(source) = variable.get("valueFrom") {
            value_from(check, variable, source, &path.child("valueFrom"));
        }
    }
    let from = path.child("envFrom");
    for (index, source) in list(container, "envFrom").iter().enumerate() {
        env_from(check, source, &from.index(index));
    }
}

fn value_from(check: &mut Check, variable: &Value, source: &Value, path: &Path<'_>) {
    let mut count = 0;
    let mut given = |name: &str| {
        let value = source.get(name).filter(|value| value.is_object());
        count += usize::from(value.is_some());
        value
    };
    let (field, resource) = (given("fieldRef"), given("resourceFieldRef"));
    let keys = ["configMapKeyRef", "secretKeyRef"].map(|name| (name, given(name)));
    given("fileKeyRef");
    if let Some(field) = field {
        field_ref(check, field, ENV_FIELDS, true, &path.child("fieldRef"));
    }
    if let Some(resource) = resource {
        resource_ref(check, resource, false, &path.child("resourceFieldRef"));
    }
    for (name, selector) in keys {
        if let Some(selector) = selector {
            let key = text(selector, "key");
            let path = path.child(name);
            check.required_text(&path, selector, "name");
            check.required_syntax(&path.child("key"), key, names::config_key);
        }
    }
    if count == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
        check.invalid(path, &json!(""), detail);
    } else if !text(variable, "value").is_empty() {
        check.invalid(
            path,
            &json!(""),
            "may not be specified when `value` is not empty",
        );
    } else if count > 1 {
        check.invalid(
            path,
            &json!(""),
            "may not have more than one field specified at a time",
        );
    }
}

fn env_from(check: &mut Check, source: &Value, path: &Path<'_>) {
    let prefix = text(source, "prefix");
    if !prefix.is_empty() {
        check.syntax(&path.child("prefix"), prefix, names::env_name(prefix));
    }
    let mut count = 0;
    for name in ["configMapRef", "secretRef"] {
        if let Some(reference) = source.get(name).filter(|value| value.is_object()) {
            count += 1;
            check.required_text(&path.child(name), reference, "name");
        }
    }
    match count {
        0 => check.invalid(
            path,
            &json!(""),
            "must specify one of: `configMapRef` or `secretRef`",
        ),
        1 => {}
        _ => {
            check.invalid(
                path,
                &json!(""),
                "may not have more than one field specified at a time",
            );
        }
    }
}

/// A file of a downward API volume: what it shows and what it is called.
pub(super) fn volume_source(check: &mut Check, item: &Value, path: &Path<'_>) {
    let field = item.get("fieldRef").filter(|value| value.is_object());
    let resource = item
        .get("resourceFieldRef")
        .filter(|value| value.is_object());
    match (field, resource) {
        (Some(_), Some(_)) => {
            let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
            check.invalid(path, &json!("resource"), detail);
        }
        (None, None) => check.required(path, "one of fieldRef and resourceFieldRef is required"),
        (Some(field), None) => {
            field_ref(check, field, VOLUME_FIELDS, false, &path.child("fieldRef"));
        }
        (None, Some(resource)) => {
            resource_ref(check, resource, true, &path.child("resourceFieldRef"));
        }
    }
}

/// `subscripts` allows only single labels and annotations, as in `metadata.labels['app']`.
fn field_ref(
    check: &mut Check,
    field: &Value,
    supported: &[&str],
    subscripts_only: bool,
    path: &Path<'_>,
) {
    check.required_text(path, field, "apiVersion");
    let name = text(field, "fieldPath");
    let path = path.child("fieldPath");
    if let Some((map, key)) = subscript(name) {
        match map {
            "metadata.annotations" => {
                check.syntax(&path, key, names::qualified_name(&key.to_lowercase()));
            }
            "metadata.labels" => check.syntax(&path, key, names::qualified_name(key)),
            map => check.invalid(&path, &json!(map), "does not support subscript"),
        }
    } else if name.is_empty() {
        check.required(&path, "");
    } else if !supported.contains(&name) {
        let mut supported = supported.to_vec();
        if subscripts_only {
            supported.sort_unstable();
        }
        check.add(FieldError::not_supported(&path, &json!(name), &supported));
    }
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

fn resource_ref(check: &mut Check, reference: &Value, in_volume: bool, path: &Path<'_>) {
    if in_volume {
        check.required_text(path, reference, "containerName");
    }
    let resource = text(reference, "resource");
    let known = RESOURCES.contains(&resource)
        || resource.starts_with("limits.hugepages-")
        || resource.starts_with("requests.hugepages-");
    if !known {
        check.one_of(&path.child("resource"), resource, RESOURCES);
    }
}
