//! The schemas of a document: those of its kinds and all that they refer to.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::Kind;
use crate::kinds::{DELETE_OPTIONS, STATUS, all, of_part};
use crate::schema::extensions;
use crate::schema::types::DEFINITIONS;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const PREFIX: &str = "#/components/schemas/";

/// A reference to the schema called `name`.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("{PREFIX}{name}")})
}

/// The name of the schema of lists of `kind`.
pub(super) fn list_name(kind: &Kind) -> String {
    format!("{}List", kind.schema)
}

pub(super) fn of_kinds(kinds: &[&Kind]) -> Map<String, Value> {
    let mut schemas = Map::new();
    for name in reachable(kinds) {
        if let Some(definition) = DEFINITIONS.get(&name) {
            schemas.insert(name.clone(), schema(&name, definition));
        }
    }
    for kind in kinds {
        schemas.insert(list_name(kind), list(kind));
    }
    let patch = json!({
        "description": "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body.",
        "type": "object",
    });
    schemas.insert(format!("{META}.Patch"), patch);
    schemas
}

/// Names of the definitions that documents of `kinds` need.
fn reachable(kinds: &[&Kind]) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut waiting: Vec<String> = kinds.iter().map(|kind| kind.schema.to_owned()).collect();
    let parts = kinds.iter().flat_map(|kind| kind.subresources);
    waiting.extend(parts.filter_map(of_part).map(|kind| kind.schema.to_owned()));
    waiting.extend(["DeleteOptions", "ListMeta", "Status"].map(|name| format!("{META}.{name}")));
    while let Some(name) = waiting.pop() {
        if let Some(definition) = DEFINITIONS.get(&name)
            && seen.insert(name)
        {
            references(definition, &mut waiting);
        }
    }
    seen
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let reference = map.get("$ref").and_then(Value::as_str);
            found.extend(
                reference
                    .and_then(|r| r.strip_prefix(PREFIX))
                    .map(str::to_owned),
            );
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// A definition in the form that upstream publishes, with its extensions.
fn schema(name: &str, definition: &Value) -> Value {
    let mut schema = definition.clone();
    match name.rsplit('.').next() {
        Some("IntOrString") => {
            special(&mut schema, "int-or-string", &["integer", "string"]);
        }
        Some("Quantity") => special(&mut schema, "", &["string", "number"]),
        Some("FieldsV1" | "RawExtension") => schema["type"] = json!("object"),
        _ => {}
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for (field, property) in properties.iter_mut() {
            wrap_reference(property);
            if let Some(property) = property.as_object_mut() {
                extensions::of_field(name, field).describe(property);
            }
        }
    }
    if extensions::is_atomic_struct(name) {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    let kind = kind_of(name);
    correct_required(name, kind.is_some(), &mut schema);
    if let Some(kind) = kind {
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": kind.group, "version": kind.version, "kind": kind.kind}]);
    }
    schema
}

fn kind_of(name: &str) -> Option<&'static Kind> {
    let parts = all()
        .iter()
        .flat_map(|kind| kind.subresources)
        .filter_map(of_part);
    let mut kinds = all()
        .iter()
        .copied()
        .chain(parts)
        .chain([&DELETE_OPTIONS, &STATUS]);
    kinds.find(|kind| kind.schema == name)
}

/// Values of several types, which schemas of Rust's types mark by an extension.
fn special(schema: &mut Value, format: &str, types: &[&str]) {
    crate::json::set(schema, "x-kubernetes-int-or-string", None);
    if !format.is_empty() {
        schema["format"] = json!(format);
    }
    schema["oneOf"] = types.iter().map(|ty| json!({"type": ty})).collect();
}

/// In OpenAPI 3.0 a reference has no siblings: with a description it goes into `allOf`.
fn wrap_reference(property: &mut Value) {
    let Some(map) = property.as_object_mut() else {
        return;
    };
    if let Some(reference) = map.remove("$ref") {
        match map.is_empty() {
            true => *property = json!({"$ref": reference}),
            false => {
                map.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            }
        }
    }
}

/// Fields of which upstream and `k8s-openapi` disagree whether clients must give them.
const REQUIRED: &[(&str, &str, bool)] = &[
    ("core.v1.ConfigMapEnvSource", "name", false),
    ("core.v1.ConfigMapKeySelector", "name", false),
    ("core.v1.ConfigMapProjection", "name", false),
    ("core.v1.ConfigMapVolumeSource", "name", false),
    ("core.v1.Event", "metadata", true),
    ("core.v1.LocalObjectReference", "name", false),
    ("core.v1.SecretEnvSource", "name", false),
    ("core.v1.SecretKeySelector", "name", false),
    ("core.v1.SecretProjection", "name", false),
    ("events.v1.Event", "eventTime", true),
];

/// Corrects which fields are required. Metadata of objects is not: it is the server that complains about it.
fn correct_required(name: &str, is_object: bool, schema: &mut Value) {
    let mut required: BTreeSet<String> = crate::json::list(schema, "required")
        .iter()
        .filter_map(|field| field.as_str().map(str::to_owned))
        .collect();
    if is_object {
        required.remove("metadata");
    }
    for (owner, field, is_required) in REQUIRED {
        if name.strip_prefix("io.k8s.api.") == Some(owner) {
            match is_required {
                true => required.insert((*field).to_owned()),
                false => required.remove(*field),
            };
        }
    }
    let list = (!required.is_empty()).then(|| json!(required));
    crate::json::set(schema, "required", list);
}

fn list(kind: &Kind) -> Value {
    let own = |field: &str| DEFINITIONS[kind.schema]["properties"][field].clone();
    json!({
        "description": format!("{} is a list of {}.", kind.list_kind(), kind.plural),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": own("apiVersion"),
            "kind": own("kind"),
            "items": {
                "description": format!("Items is the list of {}.", kind.plural),
                "type": "array",
                "items": reference(kind.schema),
            },
            "metadata": {
                "description": "Standard list metadata.",
                "allOf": [reference(&format!("{META}.ListMeta"))],
            },
        },
        "x-kubernetes-group-version-kind":
            [{"group": kind.group, "version": kind.version, "kind": kind.list_kind()}],
    })
}
