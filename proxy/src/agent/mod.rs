//! The running agent: one loop from watch events through the planner and the reconciler to the maps.
//!
//! Whatever has come in while the last batch was written makes the next batch, so a burst of events is
//! written once and a single one at once. Nothing is written before everything has been listed: until
//! then the maps of the agent before serve on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use jiff::Timestamp;
use sluice_common::names;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::maps::Tables;
use crate::planner::{Change, Node, ObjectName, Planner, Problem, ServicePlan};
use crate::reconciler::{GoneBackend, Reconciler, Report, purge};
use crate::servers::health::Health;
use crate::servers::metrics::Metrics;
use crate::servers::node_port_health::NodePortHealth;
use crate::servers::scrape::Observer;
use crate::servers::status::{self, Status};
use crate::watch::{Event, Feed};

mod node_config;

pub use node_config::NodeConfig;

/// Events taken in before the maps are written.
const BATCH: usize = 8192;
/// Between attempts to write what is no Service's: the node's configuration, a prune.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// What the agent shares with its servers.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// Whether it keeps up.
    pub health: Arc<Health>,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// What is not as it should be.
    pub status: Arc<Status>,
}

/// The agent's state. Owned by one task.
pub struct Agent<T> {
    planner: Planner,
    feed: Feed,
    reconciler: Reconciler<T>,
    node: NodeConfig,
    shared: Shared,
    flows: Observer,
    node_port_health: NodePortHealth,
    /// Problems found while planning, and ports without a local endpoint, by Service.
    planned: BTreeMap<ObjectName, Planned>,
    no_local: (usize, usize),
    pruned: bool,
    node_written: bool,
    retry_at: Option<Instant>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Planned {
    problems: Vec<Problem>,
    no_local: (usize, usize),
}

impl<T: Tables> Agent<T> {
    /// An agent over tables that may hold what an earlier one wrote.
    pub fn new(
        feed: Feed,
        planner: Planner,
        reconciler: Reconciler<T>,
        node: NodeConfig,
        shared: Shared,
        flows: Observer,
    ) -> Self {
        Self {
            planner,
            feed,
            reconciler,
            node,
            node_port_health: NodePortHealth::new(shared.health.clone()),
            shared,
            flows,
            planned: BTreeMap::new(),
            no_local: (0, 0),
            pruned: false,
            node_written: false,
            retry_at: None,
        }
    }

    /// Runs until cancelled. The maps are left as they are.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut addresses: mpsc::Receiver<Vec<(String, IpAddr)>>,
        cancel: CancellationToken,
    ) {
        let mut batch = Vec::with_capacity(256);
        loop {
            let wake = [self.reconciler.next_wake(), self.retry_at]
                .into_iter()
                .flatten()
                .min();
            tokio::select! {
                () = cancel.cancelled() => return,
                count = events.recv_many(&mut batch, BATCH) => if count == 0 { return },
                Some(found) = addresses.recv() => self.addresses(found),
                () = sleep_until(wake) => {}
            }
            for event in batch.drain(..) {
                self.take(event);
            }
            if self.feed.synced() {
                self.sync();
            }
        }
    }

    fn take(&mut self, event: Event) {
        let at = seconds(Timestamp::now());
        match &event {
            Event::Service(_) => self.shared.metrics.queued(false, at),
            Event::Slice(_) => self.shared.metrics.queued(true, at),
            Event::Node(_) => {}
        }
        let about_node = matches!(event, Event::Node(_));
        self.feed.take(&mut self.planner, event);
        for problem in self.planner.take_new_problems() {
            self.tell(&problem);
        }
        if about_node {
            self.shared.health.set_leaving(self.planner.node().leaving);
            self.node_changed();
        } else if self.planner.pending() > 0 {
            self.shared.health.queued(Instant::now());
        }
    }

    fn addresses(&mut self, found: Vec<(String, IpAddr)>) {
        self.node.set_local(found);
        self.node_changed();
    }

    fn node_changed(&mut self) {
        let node: &Node = self.planner.node();
        let selected = self.node.node_port_addresses(node);
        self.node_written &= !self.node.set_node(node);
        self.planner.set_node_port_addresses(selected);
    }

    /// Writes what has changed, and what failed before and is due.
    fn sync(&mut self) {
        let start = Instant::now();
        // Once a batch: a list of all Nodes is one change.
        if let Some(peers) = self.feed.moved_peers() {
            self.node_written &= !self.node.set_peers(peers);
        }
        self.write_node(start);
        let changes = self.planner.drain();
        let retried: Vec<_> = self
            .reconciler
            .due(start)
            .iter()
            .map(|name| self.planner.plan(name))
            .collect();
        let triggers: Vec<i64> = changes
            .iter()
            .flat_map(|change| &change.triggered_ms)
            .copied()
            .collect();
        let changed = changes.len();
        let mut plans: Vec<ServicePlan> = changes
            .into_iter()
            .map(|Change { plan, .. }| plan)
            .collect();
        plans.extend(retried);
        for plan in &plans {
            self.note(plan);
        }
        let report = self.reconciler.apply(&plans, start);
        let first = !self.pruned;
        self.digest(report);
        self.prune(start);
        if changed > 0 || first {
            self.finish(start, &plans, &triggers, first);
        }
        self.shared.metrics.caught_up();
        self.publish();
    }

    fn finish(&mut self, start: Instant, plans: &[ServicePlan], triggers: &[i64], first: bool) {
        let now = Timestamp::now();
        let took = start.elapsed();
        self.shared.metrics.synced(took.as_secs_f64(), seconds(now));
        if self.reconciler.retries().is_empty() {
            self.shared.health.updated(now);
        }
        if first {
            info!(
                services = plans.len(),
                ?took,
                "first full sync is in the maps"
            );
            return;
        }
        debug!(services = plans.len(), ?took, "synced");
        for trigger in triggers {
            let millis = now.as_millisecond().saturating_sub(*trigger).max(0);
            self.shared.metrics.programmed(millis as f64 / 1000.0);
        }
    }

    /// What a plan says beside what the maps should hold.
    fn note(&mut self, plan: &ServicePlan) {
        self.node_port_health.set(&plan.service, plan.health_check);
        let count = |test: fn(&crate::planner::PortPlan) -> bool| {
            plan.ports.iter().filter(|port| test(port)).count()
        };
        let new = Planned {
            problems: plan.problems.clone(),
            no_local: (
                count(|port| port.internal_drop),
                count(|port| port.external_drop),
            ),
        };
        let old = self.planned.remove(&plan.service).unwrap_or_default();
        for problem in new
            .problems
            .iter()
            .filter(|problem| !old.problems.contains(problem))
        {
            self.tell(problem);
        }
        self.no_local.0 += new.no_local.0;
        self.no_local.0 -= old.no_local.0;
        self.no_local.1 += new.no_local.1;
        self.no_local.1 -= old.no_local.1;
        if new != Planned::default() {
            self.planned.insert(plan.service.clone(), new);
        }
    }

    fn tell(&self, problem: &Problem) {
        self.shared
            .metrics
            .problem(problem.kind, problem.fault.label());
        warn!(
            kind = problem.kind,
            object = %problem.object,
            field = problem.field,
            "{}; the rest of it is served", problem.fault
        );
    }

    fn digest(&mut self, report: Report) {
        self.shared.metrics.wrote(report.writes);
        for (service, error) in &report.failures {
            self.shared.metrics.write_failed(error.is_full());
            warn!(%service, error = crate::chain(error), "cannot write this Service to the maps; trying again");
        }
        if !report.ids.is_empty() {
            let mut services = self
                .shared
                .status
                .services
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            for (id, name) in report.ids {
                match name {
                    Some(name) => _ = services.insert(id, name),
                    None => _ = services.remove(&id),
                }
            }
        }
        self.purge(report.gone);
    }

    /// Reads the whole flow table, so it is kept off this loop.
    fn purge(&self, gone: Vec<GoneBackend>) {
        if gone.is_empty() {
            return;
        }
        let (flows, metrics) = (self.flows.clone(), self.shared.metrics.clone());
        tokio::task::spawn_blocking(move || match purge(flows.as_ref(), &gone) {
            Ok(count) => metrics.purged(count),
            Err(error) => warn!(
                error = crate::chain(&error),
                "cannot remove the flows of backends that left"
            ),
        });
    }

    fn prune(&mut self, now: Instant) {
        if self.pruned {
            return;
        }
        match self.reconciler.prune(now) {
            Ok(report) => {
                self.pruned = true;
                self.digest(report);
            }
            Err(error) => {
                self.retry_at = Some(now + RETRY);
                warn!(
                    error = crate::chain(&error),
                    "cannot remove what no Service claims; trying again"
                );
            }
        }
    }

    fn write_node(&mut self, now: Instant) {
        self.retry_at = None;
        if self.node_written {
            return;
        }
        match self.node.tables().apply(self.reconciler.tables_mut()) {
            Ok(()) => self.node_written = true,
            Err(error) => {
                self.retry_at = Some(now + RETRY);
                warn!(
                    error = crate::chain(&error),
                    "cannot write the node's configuration; trying again"
                );
            }
        }
    }

    /// Tells the servers what is not as it should be.
    fn publish(&self) {
        self.shared
            .metrics
            .no_local_endpoints(self.no_local.0, self.no_local.1);
        let planned = self.planned.values().flat_map(|planned| &planned.problems);
        let problems = self.planner.problems().chain(planned);
        let report = status::Report {
            synced: self.pruned,
            problems: problems.map(problem_report).collect(),
            failing: self
                .reconciler
                .retries()
                .iter()
                .map(failure_report)
                .collect(),
            maps: self
                .reconciler
                .usage()
                .into_iter()
                .map(|(name, used, capacity)| status::MapReport {
                    name: display_name(name),
                    used,
                    capacity,
                })
                .collect(),
        };
        *self
            .shared
            .status
            .report
            .write()
            .unwrap_or_else(PoisonError::into_inner) = report;
    }
}

/// The table of service ids has no map of its own.
fn display_name(name: &'static str) -> &'static str {
    if name == names::SERVICE_COUNTERS {
        "services"
    } else {
        name
    }
}

fn problem_report(problem: &Problem) -> status::ProblemReport {
    status::ProblemReport {
        kind: problem.kind,
        object: problem.object.to_string(),
        field: problem.field.clone(),
        fault: problem.fault.label(),
        message: problem.to_string(),
    }
}

fn failure_report(
    (service, failure): (&ObjectName, &crate::reconciler::Failure),
) -> status::FailureReport {
    status::FailureReport {
        service: service.to_string(),
        error: failure.error.clone(),
        full: failure.full,
        attempts: failure.attempts,
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}
