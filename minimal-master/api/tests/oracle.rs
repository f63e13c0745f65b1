//! Comparison with the documents that upstream publishes. They are not part of the repository: the tests are ignored
//! unless asked for, and then `SLUICE_KUBERNETES_API` must name the folder with `discovery/` and `openapi-v3/`:
//! `SLUICE_KUBERNETES_API=... cargo test -p sluice-api --test oracle -- --ignored`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Map, Value};
use sluice_api::{discovery, kinds, openapi};

fn oracle(file: &str) -> Value {
    let folder = std::env::var_os("SLUICE_KUBERNETES_API")
        .expect("SLUICE_KUBERNETES_API names the folder with upstream's documents");
    let path = PathBuf::from(folder).join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

fn file_name(group: &str, version: &str) -> String {
    match group {
        "" => format!("api__{version}"),
        group => format!("apis__{group}__{version}"),
    }
}

fn by<'a>(list: &'a Value, key: &str, name: &Value) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| item[key] == *name)
}

#[test]
#[ignore = "needs upstream's documents"]
fn resources_are_upstreams() {
    for (group, version) in kinds::group_versions() {
        let theirs = oracle(&format!("discovery/{}.json", file_name(group, version)));
        let ours = discovery::resources(group, version).expect("served");
        assert_eq!(ours["groupVersion"], theirs["groupVersion"]);
        for resource in ours["resources"].as_array().expect("list") {
            let name = &resource["name"];
            let expected = by(&theirs["resources"], "name", name);
            assert_eq!(Some(resource), expected, "{name}");
        }
    }
}

#[test]
#[ignore = "needs upstream's documents"]
fn aggregated_discovery_is_upstreams() {
    let theirs = oracle("discovery/aggregated_v2.json");
    for group in discovery::aggregated_groups()["items"]
        .as_array()
        .expect("groups")
    {
        let name = &group["metadata"]["name"];
        let expected = theirs["items"]
            .as_array()
            .and_then(|groups| groups.iter().find(|g| g["metadata"]["name"] == *name))
            .unwrap_or_else(|| panic!("upstream has no group {name}"));
        for resource in group["versions"][0]["resources"]
            .as_array()
            .expect("resources")
        {
            let expected = by(
                &expected["versions"][0]["resources"],
                "resource",
                &resource["resource"],
            );
            assert_eq!(Some(resource), expected, "{name}");
        }
    }
}

#[test]
#[ignore = "needs upstream's documents"]
fn groups_are_upstreams() {
    let theirs = oracle("discovery/apis.json");
    let ours = discovery::groups();
    for group in ours["groups"].as_array().expect("groups") {
        let expected = by(&theirs["groups"], "name", &group["name"]).expect("known upstream");
        assert_eq!(group["preferredVersion"], expected["preferredVersion"]);
        for version in group["versions"].as_array().expect("versions") {
            assert!(
                expected["versions"]
                    .as_array()
                    .expect("list")
                    .contains(version)
            );
        }
        let name = group["name"].as_str().expect("name");
        let theirs = oracle(&format!("discovery/apis__{name}.json"));
        let ours = discovery::group(name).expect("served");
        assert_eq!(ours["preferredVersion"], theirs["preferredVersion"]);
        assert_eq!(ours["kind"], theirs["kind"]);
    }
}

fn documents(group: &str, version: &str) -> (Value, Value) {
    let name = file_name(group, version);
    let theirs = oracle(&format!("openapi-v3/{name}_openapi.json"));
    let ours = openapi::document(&name.replace("__", "/")).expect("a document");
    (serde_json::from_slice(&ours.json).expect("JSON"), theirs)
}

/// The type part of a property: what decoding needs.
fn shape(property: &Value) -> Value {
    let mut shape = Map::new();
    for key in ["type", "format", "items", "additionalProperties", "oneOf"] {
        if let Some(value) = property.get(key) {
            shape.insert(key.to_owned(), strip(value));
        }
    }
    let reference = property
        .pointer("/allOf/0/$ref")
        .or_else(|| property.get("$ref"));
    if let Some(reference) = reference {
        shape.insert("$ref".to_owned(), reference.clone());
    }
    Value::Object(shape)
}

/// Without defaults, which the schemas of Rust's types do not carry.
fn strip(value: &Value) -> Value {
    match value {
        Value::Object(map) if map.contains_key("allOf") => shape(value),
        Value::Object(map) => map
            .iter()
            .filter(|(key, _)| key.as_str() != "default")
            .map(|(key, value)| (key.clone(), strip(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn extensions(schema: &Value) -> Map<String, Value> {
    let unions = "x-kubernetes-unions";
    let map = schema.as_object().expect("object");
    map.iter()
        .filter(|(key, _)| key.starts_with("x-") && key.as_str() != unions)
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[test]
#[ignore = "needs upstream's documents"]
fn schemas_are_upstreams() {
    let mut wrong = BTreeSet::new();
    for (group, version) in kinds::group_versions() {
        let (ours, theirs) = documents(group, version);
        for (name, schema) in ours["components"]["schemas"].as_object().expect("schemas") {
            let Some(expected) = theirs["components"]["schemas"].get(name) else {
                wrong.insert(format!("{name}: unknown upstream"));
                continue;
            };
            compare_schema(name, schema, expected, &mut wrong);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn compare_schema(name: &str, ours: &Value, theirs: &Value, wrong: &mut BTreeSet<String>) {
    // Options are registered in every group upstream; here only in the core group.
    let everywhere = name.ends_with("DeleteOptions");
    if !everywhere && extensions(ours) != extensions(theirs) {
        wrong.insert(format!(
            "{name}: {:?} for {:?}",
            extensions(ours),
            extensions(theirs)
        ));
    }
    let required = |schema: &Value| -> BTreeSet<String> {
        let fields = schema["required"].as_array().into_iter().flatten();
        fields
            .filter_map(|f| f.as_str().map(str::to_owned))
            .collect()
    };
    if required(ours) != required(theirs) {
        wrong.insert(format!(
            "{name}: requires {} for {}",
            ours["required"], theirs["required"]
        ));
    }
    let empty = Map::new();
    let fields = |schema: &Value| schema["properties"].as_object().unwrap_or(&empty).clone();
    let (ours, theirs) = (fields(ours), fields(theirs));
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    for field in names {
        match (ours.get(field), theirs.get(field)) {
            (Some(a), Some(b)) => {
                if extensions(a) != extensions(b) {
                    wrong.insert(format!(
                        "{name}.{field}: {:?} for {:?}",
                        extensions(a),
                        extensions(b)
                    ));
                }
                if shape(a) != shape(b) {
                    wrong.insert(format!("{name}.{field}: {} for {}", shape(a), shape(b)));
                }
            }
            (None, _) => drop(wrong.insert(format!("{name}.{field} is missing"))),
            (_, None) => drop(wrong.insert(format!("{name}.{field} is unknown upstream"))),
        }
    }
}

#[test]
#[ignore = "needs upstream's documents"]
fn paths_are_upstreams() {
    for (group, version) in kinds::group_versions() {
        let (ours, theirs) = documents(group, version);
        for (path, item) in ours["paths"].as_object().expect("paths") {
            let expected = theirs["paths"]
                .get(path)
                .unwrap_or_else(|| panic!("{path} is unknown upstream"));
            for (method, operation) in item.as_object().expect("item") {
                if method == "parameters" {
                    continue;
                }
                for key in [
                    "operationId",
                    "x-kubernetes-action",
                    "x-kubernetes-group-version-kind",
                    "tags",
                    "description",
                ] {
                    assert_eq!(operation[key], expected[method][key], "{method} {path}");
                }
                for parameter in operation["parameters"].as_array().into_iter().flatten() {
                    let lists = [&expected[method]["parameters"], &expected["parameters"]];
                    let known = lists
                        .iter()
                        .any(|list| by(list, "name", &parameter["name"]).is_some());
                    assert!(known, "{method} {path}: {}", parameter["name"]);
                }
            }
        }
    }
}
