//! Golden dumps: the objects of `golden/NAME.yaml`, in every order, give `golden/NAME.txt`.
//! `UPDATE_GOLDEN=1` rewrites the latter.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{dump, plan_all};

fn objects(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

/// Heap's algorithm: every order of `items`.
fn each_order(items: &mut Vec<Value>, n: usize, visit: &mut impl FnMut(&[Value])) {
    if n <= 1 {
        return visit(items);
    }
    for i in 0..n {
        each_order(items, n - 1, visit);
        items.swap(if n.is_multiple_of(2) { i } else { 0 }, n - 1);
    }
}

fn check(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/planner/tests/golden");
    let mut objects = objects(&folder.join(format!("{name}.yaml")));
    let golden = folder.join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, dump(&plan_all(&objects))).unwrap();
    }
    let expected = std::fs::read_to_string(&golden).unwrap();
    let n = objects.len();
    each_order(&mut objects, n, &mut |order| {
        let found = dump(&plan_all(order));
        assert!(
            found == expected,
            "{name}: expected\n{expected}\nfound\n{found}\nfor {order:#?}"
        );
    });
}

#[test]
fn a_dual_stack_service_with_a_node_port() {
    check("dual-stack");
}

#[test]
fn a_load_balancer_with_local_policies_and_affinity() {
    check("load-balancer");
}

#[test]
fn several_slices_named_ports_and_duplicates() {
    check("slices");
}
