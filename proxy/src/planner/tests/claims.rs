//! An address and port that two Services name.

use serde_json::{Value, json};

use super::dump_of;
use crate::planner::ObjectName;
use crate::testing::{Event, happen, planner, service};

fn external(name: &str, cluster_ip: &str, external_ip: &str, created: &str) -> Value {
    let spec = json!({
        "clusterIP": cluster_ip,
        "externalIPs": [external_ip],
        "ports": [{"name": "http", "port": 80}],
    });
    let mut service = service(name, &spec);
    service["metadata"]["creationTimestamp"] = json!(created);
    service
}

fn owner_of(objects: &[Value], addr: &str) -> String {
    let dump = dump_of(objects);
    let mut head = "";
    for line in dump.lines() {
        if line.trim_start().starts_with(addr) {
            return head.split(':').next().unwrap().to_owned();
        }
        if !line.starts_with(' ') {
            head = line;
        }
    }
    panic!("nobody has {addr} in\n{dump}");
}

#[test]
fn the_older_service_has_it_whatever_the_order() {
    let old = external("z-old", "10.96.0.1", "192.0.2.1", "2026-01-01T00:00:00Z");
    let new = external("a-new", "10.96.0.2", "192.0.2.1", "2026-01-02T00:00:00Z");
    for objects in [[old.clone(), new.clone()], [new, old]] {
        assert_eq!(owner_of(&objects, "192.0.2.1:80"), "default/z-old");
        assert!(dump_of(&objects).contains(
            "problem Service default/a-new: spec.externalIPs: 192.0.2.1:80/TCP belongs to Service default/z-old"
        ));
    }
}

#[test]
fn a_cluster_ip_cannot_be_taken_over_by_an_older_external_ip() {
    let thief = external("thief", "10.96.0.2", "10.96.0.1", "2020-01-01T00:00:00Z");
    let owner = external("owner", "10.96.0.1", "192.0.2.1", "2026-01-01T00:00:00Z");
    for objects in [[thief.clone(), owner.clone()], [owner, thief]] {
        assert_eq!(owner_of(&objects, "10.96.0.1:80"), "default/owner");
    }
}

#[test]
fn the_loser_takes_over_when_the_owner_goes_and_both_are_planned() {
    let mut planner = planner();
    let old = external("old", "10.96.0.1", "192.0.2.1", "2026-01-01T00:00:00Z");
    let new = external("new", "10.96.0.2", "192.0.2.1", "2026-01-02T00:00:00Z");
    happen(&mut planner, &Event::Set(new));
    happen(&mut planner, &Event::Set(old.clone()));
    planner.drain();
    happen(&mut planner, &Event::Delete(old));
    let names: Vec<_> = planner
        .drain()
        .into_iter()
        .map(|change| change.plan.service)
        .collect();
    assert_eq!(
        names,
        [
            ObjectName::new("default", "new"),
            ObjectName::new("default", "old")
        ]
    );
    let plan = planner.plan(&names[0]);
    assert!(plan.problems.is_empty());
    assert!(
        plan.ports[0]
            .frontends
            .iter()
            .any(|f| f.key.addr.to_string() == "192.0.2.1")
    );
}
