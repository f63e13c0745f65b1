//! The reconciler's behaviour over maps in memory, with and without failing writes.

mod convergence;
mod model;
mod order;
mod purge;
mod restart;
mod retries;

use std::time::{Duration, Instant};

use super::Reconciler;
use crate::maps::Tables;
use crate::maps::fake::FakeMaps;
use crate::maps::{Capacity, GRACE};
use crate::planner::{Planner, ServicePlan};

/// Small tables: the fake's checks look at all of them after each write.
fn small() -> Capacity {
    Capacity {
        frontends: 512,
        services: 128,
        backends: 512,
        slots: 2048,
        maglev: 1 << 16,
        ..Capacity::default()
    }
}

fn empty() -> Reconciler<FakeMaps> {
    Reconciler::restore(FakeMaps::new(small())).unwrap()
}

fn plans(planner: &mut Planner) -> Vec<ServicePlan> {
    planner
        .drain()
        .into_iter()
        .map(|change| change.plan)
        .collect()
}

/// Lets time pass until nothing is left to do; returns the time then.
fn settle<T: Tables>(
    reconciler: &mut Reconciler<T>,
    planner: &Planner,
    mut now: Instant,
) -> Instant {
    for _ in 0..10_000 {
        let Some(wake) = reconciler.next_wake() else {
            return now;
        };
        now = now.max(wake) + Duration::from_millis(1);
        let due: Vec<_> = reconciler
            .due(now)
            .iter()
            .map(|name| planner.plan(name))
            .collect();
        reconciler.apply(&due, now);
    }
    panic!("does not settle: {:?}", reconciler.retries());
}

fn later(now: Instant) -> Instant {
    now + 2 * GRACE
}
