//! A new agent takes over what the last one left.

use std::time::Instant;

use serde_json::json;

use super::model::{assert_nothing_leaks, seen};
use super::{empty, later, plans, settle};
use crate::maps::Tables;
use crate::maps::fake::FakeMaps;
use crate::planner::Planner;
use crate::reconciler::Reconciler;
use crate::testing::{Event, happen, planner, service, slice};

fn world(services: &[(&str, &str, &[&str])]) -> Planner {
    let mut planner = planner();
    for (name, ip, addrs) in services {
        let endpoints: Vec<_> = addrs
            .iter()
            .map(|addr| json!({"addresses": [addr]}))
            .collect();
        let spec = json!({
            "clusterIP": ip,
            "loadBalancerSourceRanges": ["203.0.113.0/24"],
            "ports": [{"name": "http", "port": 80, "nodePort": 30_080}],
        });
        happen(&mut planner, &Event::Set(service(name, &spec)));
        happen(
            &mut planner,
            &Event::Set(slice(&format!("{name}-1"), name, &json!(endpoints))),
        );
    }
    planner
}

fn written(services: &[(&str, &str, &[&str])]) -> FakeMaps {
    let (mut planner, mut reconciler) = (world(services), empty());
    let now = Instant::now();
    reconciler.apply(&plans(&mut planner), now);
    settle(&mut reconciler, &planner, now);
    reconciler.tables().clone()
}

#[test]
fn nothing_changed_so_nothing_is_written() {
    let services: &[(&str, &str, &[&str])] = &[("web", "10.96.0.1", &["10.244.0.1", "10.244.0.2"])];
    let maps = written(services);
    let writes = maps.writes();
    let mut planner = world(services);
    let mut reconciler = Reconciler::restore(maps).unwrap();
    reconciler.apply(&plans(&mut planner), Instant::now());
    reconciler.prune(Instant::now()).unwrap();
    assert_eq!(reconciler.tables().writes(), writes);
}

#[test]
fn ids_stay_so_that_flows_and_affinity_go_on() {
    let maps = written(&[("web", "10.96.0.1", &["10.244.0.1", "10.244.0.2"])]);
    let (before, backends) = (maps.frontends().unwrap(), maps.backends().unwrap());
    let mut planner = world(&[("web", "10.96.0.1", &["10.244.0.2", "10.244.0.3"])]);
    let mut reconciler = Reconciler::restore(maps).unwrap();
    reconciler.apply(&plans(&mut planner), Instant::now());
    let after = reconciler.tables();
    assert_eq!(
        after.frontends().unwrap()[1].1.service_id,
        before[1].1.service_id
    );
    let kept = backends
        .iter()
        .find(|(_, b)| b.addr.to_ip().to_string() == "10.244.0.2")
        .unwrap();
    let now_there = after.backends().unwrap();
    let found = now_there
        .iter()
        .find(|(_, b)| b.addr == kept.1.addr)
        .unwrap();
    assert_eq!(found.0, kept.0);
}

#[test]
fn what_went_while_no_agent_ran_stays_until_pruned_and_then_goes_entirely() {
    let maps = written(&[
        ("web", "10.96.0.1", &["10.244.0.1"]),
        ("gone", "10.96.0.2", &["10.244.0.9"]),
    ]);
    let frontends = maps.frontends().unwrap().len();
    let mut planner = world(&[("web", "10.96.0.1", &["10.244.0.1"])]);
    let mut reconciler = Reconciler::restore(maps).unwrap();
    let now = Instant::now();
    reconciler.apply(&plans(&mut planner), now);
    assert_eq!(reconciler.tables().frontends().unwrap().len(), frontends);
    reconciler.prune(now).unwrap();
    settle(&mut reconciler, &planner, later(now));
    let fresh = written(&[("web", "10.96.0.1", &["10.244.0.1"])]);
    assert_eq!(seen(reconciler.tables()), seen(&fresh));
    assert_nothing_leaks(reconciler.tables());
}

#[test]
fn ranges_that_overlap_are_sorted_out() {
    let services: &[(&str, &str, &[&str])] = &[
        ("web", "10.96.0.1", &["10.244.0.1"]),
        ("api", "10.96.0.2", &["10.244.0.2"]),
    ];
    let mut maps = written(services);
    // As if a broken agent had pointed one service at the other's slots.
    let frontends = maps.frontends().unwrap();
    let with_slots: Vec<_> = frontends
        .iter()
        .filter(|(_, value)| value.internal.len > 0)
        .collect();
    let (key, mut value) = *with_slots[0];
    let other = with_slots
        .iter()
        .find(|(_, v)| v.service_id != value.service_id)
        .unwrap();
    value.internal = other.1.internal;
    maps.put_frontend(&key, &value).unwrap();
    let mut planner = world(services);
    let mut reconciler = Reconciler::restore(maps).unwrap();
    let now = Instant::now();
    reconciler.apply(&plans(&mut planner), now);
    reconciler.prune(now).unwrap();
    settle(&mut reconciler, &planner, now);
    assert_eq!(seen(reconciler.tables()), seen(&written(services)));
    assert_nothing_leaks(reconciler.tables());
}
