//! Discovery and OpenAPI documents, and the small subresources: what clients rely on, wherever they run.

use serde_json::{Value, json};
use sluice_api::{binding, discovery, kinds, openapi, scale};

fn document(path: &str) -> Value {
    serde_json::from_slice(&openapi::document(path).expect(path).json).expect("JSON")
}

#[test]
fn every_group_version_has_a_document_in_the_index() {
    let index: Value = serde_json::from_slice(&openapi::index().json).expect("JSON");
    let paths = index["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), kinds::group_versions().len());
    for (path, entry) in paths {
        let hash = &openapi::document(path).expect(path).hash;
        assert_eq!(
            entry["serverRelativeURL"],
            format!("/openapi/v3/{path}?hash={hash}")
        );
    }
    assert!(openapi::document("apis/batch/v1").is_none());
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    for (group, version) in kinds::group_versions() {
        let path = match group {
            "" => format!("api/{version}"),
            group => format!("apis/{group}/{version}"),
        };
        let document = document(&path);
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            let pointer = reference.trim_start_matches('#');
            assert!(document.pointer(pointer).is_some(), "{path}: {reference}");
        }
    }
}

/// kubectl asks the server to validate only when the PATCH of a kind has this parameter, and takes merge keys and the
/// schema of a kind from the extensions.
#[test]
fn kubectl_finds_what_it_looks_for() {
    let apps = document("apis/apps/v1");
    let patch = &apps["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    let parameters: Vec<&str> = patch["parameters"]
        .as_array()
        .expect("parameters")
        .iter()
        .filter_map(|parameter| parameter["name"].as_str())
        .collect();
    assert_eq!(
        parameters,
        ["dryRun", "fieldManager", "fieldValidation", "pretty"]
    );
    let schemas = &apps["components"]["schemas"];
    assert_eq!(
        schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert!(!containers["description"].as_str().expect("text").is_empty());
}

#[test]
fn discovery_lists_resources_and_their_parts() {
    let core = discovery::resources("", "v1").expect("served");
    let names: Vec<&str> = core["resources"]
        .as_array()
        .expect("list")
        .iter()
        .filter_map(|resource| resource["name"].as_str())
        .collect();
    for name in ["pods", "pods/log", "services/status", "namespaces/finalize"] {
        assert!(names.contains(&name), "{name}");
    }
    assert!(discovery::resources("batch", "v1").is_none());
    assert!(discovery::group("batch").is_none());
    let address = &discovery::core_versions("198.18.0.2:6443")["serverAddressByClientCIDRs"];
    assert_eq!(address[0]["serverAddress"], "198.18.0.2:6443");
    assert_eq!(
        discovery::aggregated_core()["items"][0]["metadata"],
        json!({})
    );
    let groups = discovery::aggregated_groups();
    assert_eq!(groups["items"].as_array().expect("groups").len(), 4);
}

fn bound(pod: &mut Value, binding: Value) -> Result<(), String> {
    let now = "2026-01-02T03:04:05Z".parse().expect("a time");
    binding::bind(pod, &binding, now).map_err(|error| format!("{} {error}", error.code))
}

#[test]
fn a_pod_is_bound_once() {
    let to =
        |node: &str| json!({"metadata": {"name": "web"}, "target": {"kind": "Node", "name": node}});
    let mut pod = json!({"metadata": {"name": "web"}, "spec": {}, "status": {"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"},
    ]}});
    bound(&mut pod, to("node1")).expect("bound");
    assert_eq!(pod["spec"]["nodeName"], "node1");
    assert_eq!(
        pod["status"]["conditions"],
        json!([{"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-02T03:04:05Z"}])
    );
    assert_eq!(
        bound(&mut pod, to("node2")).expect_err("bound already"),
        "409 Operation cannot be fulfilled on pods \"web\": pod web is already assigned to node \"node1\""
    );
}

#[test]
fn some_pods_are_not_bound() {
    let mut going = json!({"metadata": {"name": "web", "deletionTimestamp": "2026-01-02T03:04:05Z"}, "spec": {}});
    let to_node = json!({"target": {"name": "node1"}});
    assert!(
        bound(&mut going, to_node)
            .expect_err("going")
            .contains("is being deleted")
    );
    let mut pod = json!({"metadata": {"name": "web"}, "spec": {}});
    let error = bound(
        &mut pod,
        json!({"metadata": {"name": "web"}, "target": {"kind": "Pod"}}),
    );
    assert_eq!(
        error.expect_err("no node"),
        "422 Binding \"web\" is invalid: [target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\", target.name: Required value]"
    );
    assert!(pod["spec"].get("nodeName").is_none());
}

#[test]
fn a_scale_shows_and_sets_replicas() {
    let mut deployment = json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}},
        "status": {"replicas": 2},
    });
    let mut wanted = scale::get(&deployment);
    assert_eq!(
        wanted,
        json!({
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7"},
            "spec": {"replicas": 3},
            "status": {"replicas": 2, "selector": "app=web"},
        })
    );
    wanted["spec"]["replicas"] = json!(5);
    scale::set(&kinds::DEPLOYMENT, &mut deployment, &wanted).expect("set");
    assert_eq!(deployment["spec"]["replicas"], 5);

    wanted["spec"]["replicas"] = json!(-1);
    let error = scale::set(&kinds::DEPLOYMENT, &mut deployment, &wanted).expect_err("negative");
    assert_eq!(
        error.message,
        "Scale.autoscaling \"web\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
    );
    wanted["metadata"]["resourceVersion"] = json!("6");
    assert_eq!(
        scale::set(&kinds::DEPLOYMENT, &mut deployment, &wanted)
            .expect_err("old")
            .code,
        409
    );
    wanted["metadata"]["name"] = json!("other");
    assert_eq!(
        scale::set(&kinds::DEPLOYMENT, &mut deployment, &wanted)
            .expect_err("other")
            .code,
        400
    );
    assert_eq!(deployment["spec"]["replicas"], 5);
}

#[test]
fn version_2_describes_nothing_and_says_so() {
    let json: Value = serde_json::from_str(openapi::V2_JSON).expect("JSON");
    assert_eq!(json["paths"], json!({}));
    // Fields 1 (swagger) and 2 (info), each with its length.
    let message = openapi::V2_PROTOBUF;
    assert_eq!(&message[..5], b"\x0a\x032.0");
    assert_eq!(
        (message[5], usize::from(message[6])),
        (0x12, message.len() - 7)
    );
}
