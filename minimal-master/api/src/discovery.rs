//! Discovery documents: which groups, versions and resources are served.

use serde_json::{Map, Value, json};

use crate::kinds::{self, Kind, Subresource, group_version};

/// Media type of the aggregated documents, as `Accept` names it.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/api`: the core group's versions. `server_address` is HOST:PORT.
pub fn core_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [
            {"clientCIDR": "0.0.0.0/0", "serverAddress": server_address},
        ],
    })
}

/// `/apis`: the other groups.
pub fn groups() -> Value {
    let groups: Vec<Value> = named_groups()
        .map(|(group, version)| group_json(group, version))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub fn group(name: &str) -> Option<Value> {
    let (group, version) = named_groups().find(|(group, _)| *group == name)?;
    let mut json = group_json(group, version);
    json["kind"] = json!("APIGroup");
    json["apiVersion"] = json!("v1");
    Some(json)
}

/// Groups besides the core group. Each is served in one version.
fn named_groups() -> impl Iterator<Item = (&'static str, &'static str)> {
    kinds::group_versions()
        .into_iter()
        .filter(|(group, _)| !group.is_empty())
}

fn group_json(group: &str, version: &str) -> Value {
    let version = json!({"groupVersion": group_version(group, version), "version": version});
    json!({"name": group, "versions": [version], "preferredVersion": version})
}

fn kinds_of(group: &str, version: &str) -> Vec<&'static Kind> {
    let mut kinds: Vec<&Kind> = kinds::all()
        .iter()
        .copied()
        .filter(|k| (k.group, k.version) == (group, version))
        .collect();
    kinds.sort_by_key(|k| k.plural);
    kinds
}

/// `/api/v1` (group empty) or `/apis/GROUP/VERSION`: the resources.
pub fn resources(group: &str, version: &str) -> Option<Value> {
    let kinds = kinds_of(group, version);
    if kinds.is_empty() {
        return None;
    }
    let resources: Vec<Value> = kinds
        .into_iter()
        .flat_map(|kind| {
            let parts = kind
                .subresources
                .iter()
                .map(move |part| part_json(kind, part));
            std::iter::once(resource_json(kind)).chain(parts)
        })
        .collect();
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(group, version),
        "resources": resources,
    }))
}

fn resource_json(kind: &Kind) -> Value {
    let mut json = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": kind.verbs,
        "storageVersionHash": kind.storage_version_hash,
    });
    insert_names(&mut json, kind);
    json
}

fn insert_names(json: &mut Value, kind: &Kind) {
    if !kind.short_names.is_empty() {
        json["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        json["categories"] = json!(kind.categories);
    }
}

fn part_json(kind: &Kind, part: &Subresource) -> Value {
    let mut json = json!({
        "name": format!("{}/{}", kind.plural, part.name),
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": part.kind,
        "verbs": part.verbs,
    });
    if (part.group, part.version) != (kind.group, kind.version) {
        json["group"] = json!(part.group);
        json["version"] = json!(part.version);
    }
    json
}

/// `/api` in the aggregated form (apidiscovery.k8s.io/v2).
pub fn aggregated_core() -> Value {
    aggregated(vec![aggregated_group("", "v1")])
}

/// `/apis` in the aggregated form (apidiscovery.k8s.io/v2).
pub fn aggregated_groups() -> Value {
    aggregated(
        named_groups()
            .map(|(group, version)| aggregated_group(group, version))
            .collect(),
    )
}

fn aggregated(items: Vec<Value>) -> Value {
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_group(group: &str, version: &str) -> Value {
    let resources: Vec<Value> = kinds_of(group, version)
        .into_iter()
        .map(aggregated_resource)
        .collect();
    let mut metadata = Map::new();
    if !group.is_empty() {
        metadata.insert("name".to_owned(), json!(group));
    }
    json!({
        "metadata": metadata,
        "versions": [{"version": version, "freshness": "Current", "resources": resources}],
    })
}

fn aggregated_resource(kind: &'static Kind) -> Value {
    let mut json = json!({
        "resource": kind.plural,
        "responseKind": {"group": "", "version": "", "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": kind.verbs,
    });
    insert_names(&mut json, kind);
    if !kind.subresources.is_empty() {
        json["subresources"] = kind
            .subresources
            .iter()
            .map(|part| aggregated_part(kind, part))
            .collect();
    }
    json
}

fn aggregated_part(kind: &Kind, part: &Subresource) -> Value {
    let own = (part.group, part.version) == (kind.group, kind.version);
    let (group, version) = if own {
        ("", "")
    } else {
        (part.group, part.version)
    };
    json!({
        "subresource": part.name,
        "responseKind": {"group": group, "version": version, "kind": part.kind},
        "verbs": part.verbs,
    })
}
