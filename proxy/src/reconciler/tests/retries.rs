//! What cannot be written is named, waits, and is tried again.

use std::time::{Duration, Instant};

use serde_json::json;

use super::model::seen;
use super::{plans, settle, small};
use crate::maps::Capacity;
use crate::maps::fake::FakeMaps;
use crate::maps::faulty::Faulty;
use crate::planner::{ObjectName, Planner};
use crate::reconciler::Reconciler;
use crate::testing::{Event, happen, planner, service, slice};

fn add(planner: &mut Planner, i: u8) {
    let spec =
        json!({"clusterIP": format!("10.96.0.{i}"), "ports": [{"name": "http", "port": 80}]});
    happen(planner, &Event::Set(service(&format!("s{i}"), &spec)));
    let endpoints = json!([{"addresses": [format!("10.244.0.{i}")]}]);
    happen(
        planner,
        &Event::Set(slice(&format!("s{i}-1"), &format!("s{i}"), &endpoints)),
    );
}

#[test]
fn a_full_map_is_named_with_its_object_and_mends_when_there_is_room() {
    // A cluster IP takes two frontends: its port and the address as a whole.
    let capacity = Capacity {
        frontends: 4,
        ..small()
    };
    let mut reconciler = Reconciler::restore(FakeMaps::new(capacity)).unwrap();
    let mut planner = planner();
    (1..=3).for_each(|i| add(&mut planner, i));
    let now = Instant::now();
    let report = reconciler.apply(&plans(&mut planner), now);
    assert_eq!(report.failures.len(), 1);
    assert_eq!(report.failures[0].0, ObjectName::new("default", "s3"));
    assert!(report.failures[0].1.is_full());
    let (name, failure) = reconciler.retries().iter().next().unwrap();
    assert!(
        failure.full && failure.error.contains("frontends_v4 is full"),
        "{name}: {failure:?}"
    );

    let spec = json!({"clusterIP": "10.96.0.1", "ports": []});
    happen(&mut planner, &Event::Delete(service("s1", &spec)));
    reconciler.apply(&plans(&mut planner), now);
    settle(&mut reconciler, &planner, now);
    assert!(reconciler.retries().is_empty());
    assert_eq!(seen(reconciler.tables()).len(), 4);
}

#[test]
fn the_wait_doubles_and_the_others_do_not_wait() {
    let mut reconciler = Reconciler::restore(Faulty::new(FakeMaps::new(small()), 1.0, 1)).unwrap();
    let mut planner = planner();
    add(&mut planner, 1);
    let mut now = Instant::now();
    reconciler.apply(&plans(&mut planner), now);
    let mut waits = Vec::new();
    for _ in 0..12 {
        let wake = reconciler.next_wake().unwrap();
        waits.push(wake - now);
        now = wake;
        let due: Vec<_> = reconciler
            .due(now)
            .iter()
            .map(|name| planner.plan(name))
            .collect();
        assert_eq!(due.len(), 1);
        reconciler.apply(&due, now);
    }
    let expected = [
        100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000,
    ];
    assert_eq!(waits, expected.map(Duration::from_millis));
    assert!(reconciler.due(now).is_empty());
}
