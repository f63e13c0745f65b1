//! Patches: what upstream's documentation describes, and round trips of random documents.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use sluice_api::{kinds, patch};

fn deployment(containers: Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 2,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
            "template": {"spec": {"containers": containers, "tolerations": [{"key": "a"}]}},
        },
    })
}

fn strategic(current: &Value, change: Value) -> Value {
    patch::strategic(&kinds::DEPLOYMENT, current, &change).expect("the patch applies")
}

fn containers(object: &Value) -> &Value {
    &object["spec"]["template"]["spec"]["containers"]
}

fn in_template(pod_spec: Value) -> Value {
    json!({"spec": {"template": {"spec": pod_spec}}})
}

#[test]
fn containers_merge_by_name() {
    let current = deployment(json!([{"name": "app", "image": "app:1"}]));
    let patched = strategic(
        &current,
        in_template(json!({"containers": [{"name": "side", "image": "s:1"}]})),
    );
    assert_eq!(
        *containers(&patched),
        json!([{"name": "side", "image": "s:1"}, {"name": "app", "image": "app:1"}])
    );
    let patched = strategic(
        &patched,
        in_template(json!({"containers": [{"name": "app", "image": "app:2"}]})),
    );
    assert_eq!(
        *containers(&patched),
        json!([{"name": "side", "image": "s:1"}, {"name": "app", "image": "app:2"}])
    );
}

#[test]
fn lists_without_merge_keys_are_replaced() {
    let current = deployment(json!([]));
    let patched = strategic(
        &current,
        in_template(json!({"tolerations": [{"key": "b"}]})),
    );
    assert_eq!(
        patched["spec"]["template"]["spec"]["tolerations"],
        json!([{"key": "b"}])
    );
}

#[test]
fn nulls_delete_fields_and_nothing_else() {
    let current = deployment(json!([{"name": "app", "env": [{"name": "A", "value": "1"}]}]));
    let patched = strategic(
        &current,
        json!({"spec": {"replicas": null, "paused": null, "template": {"metadata": {"labels": {"a": null, "b": "c"}}}}}),
    );
    assert!(patched["spec"].get("replicas").is_none());
    assert!(patched["spec"].get("paused").is_none());
    assert_eq!(
        patched["spec"]["template"]["metadata"]["labels"],
        json!({"b": "c"})
    );
}

#[test]
fn an_element_is_deleted_by_its_key() {
    let current = deployment(json!([
        {"name": "app", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"name": "side"},
    ]));
    let patched = strategic(
        &current,
        in_template(json!({"containers": [
            {"name": "side", "$patch": "delete"},
            {"name": "app", "env": [{"name": "A", "$patch": "delete"}]},
        ]})),
    );
    assert_eq!(
        *containers(&patched),
        json!([{"name": "app", "env": [{"name": "B", "value": "2"}]}])
    );
}

#[test]
fn a_list_is_replaced_on_demand() {
    let current = deployment(json!([{"name": "app"}, {"name": "side"}]));
    let patched = strategic(
        &current,
        in_template(json!({"containers": [{"name": "new"}, {"$patch": "replace"}]})),
    );
    assert_eq!(*containers(&patched), json!([{"name": "new"}]));
}

#[test]
fn a_map_is_replaced_or_emptied_on_demand() {
    let current = deployment(json!([]));
    let patched = strategic(
        &current,
        json!({"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}}),
    );
    assert_eq!(patched["spec"]["strategy"], json!({"type": "Recreate"}));
    let patched = strategic(
        &current,
        json!({"spec": {"strategy": {"$patch": "delete"}}}),
    );
    assert_eq!(patched["spec"]["strategy"], json!({}));
}

#[test]
fn retain_keys_drops_the_others() {
    let current = deployment(json!([]));
    let patched = strategic(
        &current,
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
    );
    assert_eq!(patched["spec"]["strategy"], json!({"type": "Recreate"}));
    let bad = json!({"spec": {"strategy": {"$retainKeys": ["x"], "type": "Recreate"}}});
    assert_eq!(
        patch::strategic(&kinds::DEPLOYMENT, &current, &bad)
            .expect_err("bad")
            .code,
        400
    );
}

#[test]
fn values_are_deleted_from_plain_lists() {
    let current = json!({"metadata": {"name": "a", "finalizers": ["a/x", "b/y", "c/z"]}});
    let change = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b/y"]}});
    assert_eq!(
        strategic(&current, change)["metadata"]["finalizers"],
        json!(["a/x", "c/z"])
    );
    let change = json!({"metadata": {"finalizers": ["c/z", "d/w"]}});
    assert_eq!(
        strategic(&current, change)["metadata"]["finalizers"],
        json!(["a/x", "b/y", "c/z", "d/w"])
    );
}

#[test]
fn set_element_order_orders() {
    let current = deployment(json!([{"name": "a"}, {"name": "b"}, {"name": "server"}]));
    let change = in_template(json!({
        "$setElementOrder/containers": [{"name": "new"}, {"name": "b"}, {"name": "a"}],
        "containers": [{"name": "new", "image": "n"}],
    }));
    let patched = strategic(&current, change);
    let names: Vec<&str> = containers(&patched)
        .as_array()
        .expect("list")
        .iter()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert_eq!(names, ["new", "b", "a", "server"]);

    let missing = in_template(json!({
        "$setElementOrder/containers": [{"name": "a"}],
        "containers": [{"name": "new"}],
    }));
    assert_eq!(
        patch::strategic(&kinds::DEPLOYMENT, &current, &missing)
            .expect_err("bad")
            .code,
        400
    );
}

#[test]
fn an_order_alone_reorders_and_a_deletion_may_be_ordered() {
    let current = deployment(json!([{"name": "a"}, {"name": "b"}]));
    let change =
        in_template(json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}));
    assert_eq!(
        *containers(&strategic(&current, change)),
        json!([{"name": "b"}, {"name": "a"}])
    );
    let change = in_template(json!({
        "$setElementOrder/containers": [{"name": "b"}],
        "containers": [{"name": "a", "$patch": "delete"}],
    }));
    assert_eq!(
        *containers(&strategic(&current, change)),
        json!([{"name": "b"}])
    );
}

#[test]
fn a_missing_merge_key_is_unprocessable() {
    let current = deployment(json!([{"name": "a"}]));
    let change = in_template(json!({"containers": [{"image": "x"}]}));
    let error = patch::strategic(&kinds::DEPLOYMENT, &current, &change).expect_err("no key");
    assert_eq!(error.code, 422);
}

#[test]
fn ports_of_services_merge_by_port() {
    let current = json!({"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 443}]}});
    let change = json!({"spec": {"ports": [{"port": 443, "name": "https"}]}});
    let patched = patch::strategic(&kinds::SERVICE, &current, &change).expect("applies");
    assert_eq!(
        patched["spec"]["ports"],
        json!([{"port": 80, "name": "http"}, {"port": 443, "name": "https"}])
    );
}

#[test]
fn json_patch_operations_apply_in_order() {
    let current = json!({"metadata": {"labels": {"a/b": "1"}}, "list": [1, 2]});
    let change = json!([
        {"op": "test", "path": "/metadata/labels/a~1b", "value": "1"},
        {"op": "replace", "path": "/metadata/labels/a~1b", "value": "2"},
        {"op": "add", "path": "/list/-", "value": 3},
        {"op": "remove", "path": "/list/0"},
    ]);
    let patched = patch::json(&kinds::POD, &current, &change).expect("applies");
    assert_eq!(
        patched,
        json!({"metadata": {"labels": {"a/b": "2"}}, "list": [2, 3]})
    );
}

#[test]
fn json_patch_errors_are_told_apart() {
    let code = |change: Value| {
        patch::json(&kinds::POD, &json!({"a": 1}), &change)
            .expect_err("bad")
            .code
    };
    assert_eq!(code(json!([{"op": "test", "path": "/a", "value": 2}])), 422);
    assert_eq!(code(json!([{"op": "remove", "path": "/b"}])), 422);
    assert_eq!(code(json!([{"op": "leap", "path": "/a"}])), 400);
    assert_eq!(code(json!({"op": "add"})), 400);
    assert_eq!(
        code(json!([{"op": "replace", "path": "", "value": 3}])),
        400
    );
    let many: Vec<Value> = (0..10_001)
        .map(|_| json!({"op": "test", "path": "/a", "value": 1}))
        .collect();
    assert_eq!(code(Value::Array(many)), 413);
}

fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,4}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::btree_map("[a-d]", value, 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

/// The merge patch that turns `from` into `to`.
fn difference(from: &Map<String, Value>, to: &Map<String, Value>) -> Value {
    let mut patch = Map::new();
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, new) in to {
        match (from.get(key), new) {
            (Some(old), new) if old == new => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                patch.insert(key.clone(), difference(old, new));
            }
            (_, new) => {
                patch.insert(key.clone(), new.clone());
            }
        }
    }
    Value::Object(patch)
}

proptest! {
    #[test]
    fn a_merge_patch_of_the_difference_makes_the_other_document(from in documents(), to in documents()) {
        let change = difference(from.as_object().expect("object"), to.as_object().expect("object"));
        prop_assert_eq!(patch::merge(&kinds::POD, &from, &change).expect("applies"), to.clone());
        // Without merge keys a strategic merge patch is a merge patch.
        prop_assert_eq!(patch::strategic(&kinds::POD, &from, &change).expect("applies"), to);
    }

    #[test]
    fn merging_containers_keeps_every_name_once(
        old in prop::collection::btree_set("[a-f]", 0..6),
        new in prop::collection::btree_set("[a-f]", 0..6),
    ) {
        let list = |names: &std::collections::BTreeSet<String>| -> Value {
            names.iter().map(|name| json!({"name": name})).collect()
        };
        let patched = strategic(&deployment(list(&old)), in_template(json!({"containers": list(&new)})));
        let mut names: Vec<String> = containers(&patched).as_array().expect("list").iter()
            .map(|c| c["name"].as_str().expect("name").to_owned()).collect();
        names.sort();
        let union: Vec<String> = old.union(&new).cloned().collect();
        prop_assert_eq!(names, union);
    }
}
