//! Any history of events, with writes that fail and agents that restart, ends exactly where it should.

use std::time::Instant;

use proptest::prelude::*;

use super::model::{assert_nothing_leaks, seen, wanted};
use super::{empty, plans, settle, small};
use crate::maps::fake::FakeMaps;
use crate::maps::faulty::Faulty;
use crate::planner::{Planner, ServicePlan};
use crate::reconciler::Reconciler;
use crate::testing::{Event, events, happen, planner};

fn all_plans(planner: &Planner) -> Vec<ServicePlan> {
    planner
        .service_names()
        .iter()
        .map(|name| planner.plan(name))
        .collect()
}

fn assert_exact(maps: &FakeMaps, planner: &Planner) {
    assert_eq!(maps.violations(), Vec::<String>::new());
    assert_eq!(seen(maps), wanted(&all_plans(planner)));
    assert_nothing_leaks(maps);
}

fn retry_all<T: crate::maps::Tables>(reconciler: &mut Reconciler<T>, mut now: Instant) -> Instant {
    for _ in 0..10_000 {
        match reconciler.prune(now) {
            Ok(_) => return now,
            Err(_) => now += std::time::Duration::from_millis(1),
        }
    }
    panic!("prune never succeeds");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_maps_follow_the_events(history in events(), batch in 1..5usize) {
        let (mut planner, mut reconciler) = (planner(), empty());
        let mut now = Instant::now();
        for some in history.chunks(batch) {
            some.iter().for_each(|event| happen(&mut planner, event));
            let report = reconciler.apply(&plans(&mut planner), now);
            prop_assert!(report.failures.is_empty(), "{:?}", report.failures);
            prop_assert_eq!(seen(reconciler.tables()), wanted(&all_plans(&planner)));
            now += std::time::Duration::from_millis(300);
        }
        settle(&mut reconciler, &planner, now);
        assert_exact(reconciler.tables(), &planner);
    }

    #[test]
    fn one_write_in_ten_fails_and_the_end_is_exact(history in events(), seed in any::<u64>(), batch in 1..5usize) {
        let mut planner = planner();
        let mut reconciler = Reconciler::restore(Faulty::new(FakeMaps::new(small()), 0.1, seed)).unwrap();
        let mut now = Instant::now();
        for some in history.chunks(batch) {
            some.iter().for_each(|event| happen(&mut planner, event));
            reconciler.apply(&plans(&mut planner), now);
            prop_assert_eq!(reconciler.tables().inner().violations(), Vec::<String>::new());
            now += std::time::Duration::from_millis(50);
        }
        settle(&mut reconciler, &planner, now);
        assert_exact(reconciler.tables().inner(), &planner);
    }

    #[test]
    fn agents_that_die_at_any_write_leave_maps_that_the_next_one_mends(
        histories in prop::collection::vec((events(), any::<u64>()), 1..4),
    ) {
        let mut maps = FakeMaps::new(small());
        let mut past: Vec<Event> = Vec::new();
        let mut now = Instant::now();
        for (history, seed) in histories {
            // A writer whose every fifth write fails and who never tries again dies half-way.
            let mut planner = planner();
            past.iter().for_each(|event| happen(&mut planner, event));
            let mut doomed = Reconciler::restore(Faulty::new(maps, 0.2, seed)).unwrap();
            for event in &history {
                happen(&mut planner, event);
                doomed.apply(&plans(&mut planner), now);
            }
            past.extend(history);
            maps = doomed.tables().inner().clone();

            now = super::later(now);
            let mut planner = crate::testing::planner();
            past.iter().for_each(|event| happen(&mut planner, event));
            let mut heir = Reconciler::restore(Faulty::new(maps, 0.1, seed)).unwrap();
            heir.apply(&plans(&mut planner), now);
            now = retry_all(&mut heir, now);
            now = settle(&mut heir, &planner, now);
            assert_exact(heir.tables().inner(), &planner);
            maps = heir.tables().inner().clone();
        }
    }

    #[test]
    fn nothing_is_written_twice(history in events()) {
        let (mut planner, mut reconciler) = (planner(), empty());
        let now = Instant::now();
        history.iter().for_each(|event| happen(&mut planner, event));
        reconciler.apply(&plans(&mut planner), now);
        settle(&mut reconciler, &planner, now);
        let writes = reconciler.tables().writes();
        reconciler.apply(&all_plans(&planner), now);
        prop_assert_eq!(reconciler.tables().writes(), writes);
    }
}
