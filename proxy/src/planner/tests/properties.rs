//! What holds for any history of events.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{all_plans, dump};
use crate::planner::Planner;
use crate::testing::{Event, events, happen, name_of, planner};

/// The last event about each object, in the objects' order: where a history leads.
fn outcome(history: &[Event]) -> Vec<Event> {
    let mut last = BTreeMap::new();
    for event in history {
        let about = match event {
            Event::Set(object) | Event::Delete(object) => {
                format!("{} {}", object["kind"], name_of(object))
            }
            Event::Addresses(_) => "addresses".to_owned(),
        };
        last.insert(about, event.clone());
    }
    last.into_values().collect()
}

fn replay(events: &[Event]) -> Planner {
    let mut planner = planner();
    events.iter().for_each(|event| happen(&mut planner, event));
    planner
}

proptest! {
    #[test]
    fn only_where_a_history_ends_matters(history in events()) {
        let lived = dump(&all_plans(&replay(&history)));
        prop_assert_eq!(lived, dump(&all_plans(&replay(&outcome(&history)))));
    }

    #[test]
    fn repeated_events_touch_nothing(history in events()) {
        let end = outcome(&history);
        let mut planner = replay(&history);
        planner.drain();
        end.iter().for_each(|event| happen(&mut planner, event));
        prop_assert_eq!(planner.pending(), 0);
    }

    #[test]
    fn what_drains_adds_up_to_the_whole(history in events()) {
        let mut planner = planner();
        let mut held = BTreeMap::new();
        for event in &history {
            happen(&mut planner, event);
            for change in planner.drain() {
                held.insert(change.plan.service.clone(), change.plan);
            }
        }
        prop_assert_eq!(dump(held.values()), dump(&all_plans(&planner)));
    }

    #[test]
    fn no_key_is_planned_twice(history in events()) {
        let plans = all_plans(&replay(&history));
        let mut keys: Vec<_> = plans.iter().flat_map(|plan| &plan.ports).flat_map(|port| &port.frontends).map(|f| f.key).collect();
        let all = keys.len();
        keys.sort_unstable();
        keys.dedup();
        prop_assert_eq!(keys.len(), all);
    }

    #[test]
    fn one_slice_replans_one_service(history in events(), change in events()) {
        let mut planner = replay(&history);
        planner.drain();
        for event in &change {
            let Event::Set(object) = event else { continue };
            if object["kind"] != "EndpointSlice" { continue }
            happen(&mut planner, event);
            // Its Service, and the one that it belonged to before.
            prop_assert!(planner.drain().len() <= 2);
        }
    }
}
