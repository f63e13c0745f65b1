//! The agent's metrics, under kube-proxy's names where it has them.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Every metric that the agent's loop keeps. What the maps count is read at each scrape (see
/// [`super::scrape`]).
#[derive(Debug)]
pub struct Metrics {
    sync_duration: Histogram,
    network_programming: Histogram,
    last_sync: Gauge<f64, AtomicU64>,
    last_queued: Gauge<f64, AtomicU64>,
    endpoint_changes: Counter,
    endpoint_pending: Gauge,
    service_changes: Counter,
    service_pending: Gauge,
    no_local_endpoints: Family<Policy, Gauge>,
    healthz: Family<Code, Counter>,
    livez: Family<Code, Counter>,
    map_writes: Counter,
    map_failures: Family<Cause, Counter>,
    purged_flows: Counter,
    problems: Family<Fault, Counter>,
}

/// A traffic policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Policy {
    traffic_policy: &'static str,
}

/// An HTTP status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

/// Why a write failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fault {
    kind: &'static str,
    fault: &'static str,
}

/// kube-proxy's buckets for a sync, and finer ones below: ours take microseconds.
const SYNC_BUCKETS: [f64; 20] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128,
    0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384, 32.768,
];

/// kube-proxy's buckets for programming latency, thinned out, and finer ones below.
const PROGRAMMING_BUCKETS: [f64; 20] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0,
    105.0, 150.0, 240.0, 300.0,
];

impl Default for Metrics {
    fn default() -> Self {
        Self {
            sync_duration: Histogram::new(SYNC_BUCKETS),
            network_programming: Histogram::new(PROGRAMMING_BUCKETS),
            last_sync: Gauge::default(),
            last_queued: Gauge::default(),
            endpoint_changes: Counter::default(),
            endpoint_pending: Gauge::default(),
            service_changes: Counter::default(),
            service_pending: Gauge::default(),
            no_local_endpoints: Family::default(),
            healthz: Family::default(),
            livez: Family::default(),
            map_writes: Counter::default(),
            map_failures: Family::default(),
            purged_flows: Counter::default(),
            problems: Family::default(),
        }
    }
}

impl Metrics {
    /// Names them.
    pub fn register(&self, registry: &mut Registry) {
        let kube_proxy = registry.sub_registry_with_prefix("kubeproxy");
        for (name, help, histogram) in [
            (
                "sync_proxy_rules_duration_seconds",
                "Duration of one sync of changed Services to the maps",
                &self.sync_duration,
            ),
            (
                "network_programming_duration_seconds",
                "Time from the change of endpoints to its being in the maps",
                &self.network_programming,
            ),
        ] {
            kube_proxy.register(name, help, histogram.clone());
        }
        for (name, help, gauge) in [
            (
                "sync_proxy_rules_last_timestamp_seconds",
                "When the last sync ended",
                &self.last_sync,
            ),
            (
                "sync_proxy_rules_last_queued_timestamp_seconds",
                "When the last change came in",
                &self.last_queued,
            ),
        ] {
            kube_proxy.register(name, help, gauge.clone());
        }
        for (name, help, counter) in [
            (
                "sync_proxy_rules_endpoint_changes",
                "Changes of EndpointSlices",
                &self.endpoint_changes,
            ),
            (
                "sync_proxy_rules_service_changes",
                "Changes of Services",
                &self.service_changes,
            ),
        ] {
            kube_proxy.register(name, help, counter.clone());
        }
        for (name, help, gauge) in [
            (
                "sync_proxy_rules_endpoint_changes_pending",
                "Changes of EndpointSlices not yet in the maps",
                &self.endpoint_pending,
            ),
            (
                "sync_proxy_rules_service_changes_pending",
                "Changes of Services not yet in the maps",
                &self.service_pending,
            ),
        ] {
            kube_proxy.register(name, help, gauge.clone());
        }
        kube_proxy.register(
            "sync_proxy_rules_no_local_endpoints",
            "Ports of Services with a Local traffic policy and no endpoint on this node",
            self.no_local_endpoints.clone(),
        );
        kube_proxy.register("proxy_healthz", "Answers of /healthz", self.healthz.clone());
        kube_proxy.register("proxy_livez", "Answers of /livez", self.livez.clone());
        self.register_own(registry.sub_registry_with_prefix("sluice_proxy"));
    }

    fn register_own(&self, registry: &mut Registry) {
        registry.register("map_writes", "Writes to the maps", self.map_writes.clone());
        registry.register(
            "map_write_failures",
            "Services whose write failed, by cause",
            self.map_failures.clone(),
        );
        registry.register(
            "purged_flows",
            "Flow entries removed because their backend left",
            self.purged_flows.clone(),
        );
        registry.register(
            "object_problems",
            "Fields of objects that could not be used",
            self.problems.clone(),
        );
    }

    /// A change has come in, at this time (seconds since 1970).
    pub fn queued(&self, endpoints: bool, at: f64) {
        let (changes, pending) = if endpoints {
            (&self.endpoint_changes, &self.endpoint_pending)
        } else {
            (&self.service_changes, &self.service_pending)
        };
        changes.inc();
        pending.inc();
        self.last_queued.set(at);
    }

    /// A sync took so long and ended at this time (seconds since 1970).
    pub fn synced(&self, seconds: f64, at: f64) {
        self.sync_duration.observe(seconds);
        self.last_sync.set(at);
    }

    /// No change is waiting.
    pub fn caught_up(&self) {
        self.endpoint_pending.set(0);
        self.service_pending.set(0);
    }

    /// A change of endpoints took so long to reach the maps.
    pub fn programmed(&self, seconds: f64) {
        self.network_programming.observe(seconds);
    }

    /// Ports without an endpoint here, by policy.
    pub fn no_local_endpoints(&self, internal: usize, external: usize) {
        for (traffic_policy, count) in [("internal", internal), ("external", external)] {
            let gauge = self
                .no_local_endpoints
                .get_or_create(&Policy { traffic_policy });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Writes to the maps.
    pub fn wrote(&self, writes: u64) {
        self.map_writes.inc_by(writes);
    }

    /// A Service's write failed.
    pub fn write_failed(&self, full: bool) {
        let cause = if full { "full" } else { "kernel" };
        self.map_failures.get_or_create(&Cause { cause }).inc();
    }

    /// Flow entries were removed.
    pub fn purged(&self, flows: usize) {
        self.purged_flows.inc_by(flows as u64);
    }

    /// A field of an object could not be used.
    pub fn problem(&self, kind: &'static str, fault: &'static str) {
        self.problems.get_or_create(&Fault { kind, fault }).inc();
    }

    /// An answer of `/healthz`.
    pub fn healthz(&self, code: u16) {
        self.healthz.get_or_create(&Code { code }).inc();
    }

    /// An answer of `/livez`.
    pub fn livez(&self, code: u16) {
        self.livez.get_or_create(&Code { code }).inc();
    }
}
