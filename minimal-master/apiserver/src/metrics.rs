//! Prometheus metrics of requests, watches and the store, under upstream's names where it has them.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Seconds; upstream's buckets, thinned.
const BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    pub(crate) verb: &'static str,
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) resource: &'static str,
    pub(crate) subresource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: String,
    code: u16,
}

pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    durations: Family<RequestLabels, Histogram>,
    requests: Family<CodeLabels, Counter>,
    pub(crate) streams: Gauge,
    pub(crate) in_flight: Gauge,
    revision: Gauge,
}

/// Adds one to a gauge while it lives.
pub(crate) struct Counted(Gauge);

impl Counted {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let durations =
            Family::<RequestLabels, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        let metrics = Self {
            registry: Mutex::default(),
            durations,
            requests: Family::default(),
            streams: Gauge::default(),
            in_flight: Gauge::default(),
            revision: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register(
            "apiserver_request_duration_seconds",
            "Time from a request's headers to its answer's headers",
            self.durations.clone(),
        );
        registry.register(
            "apiserver_request",
            "Requests by verb, resource and status code",
            self.requests.clone(),
        );
        registry.register(
            "apiserver_longrunning_requests",
            "Watches and other streams that are open",
            self.streams.clone(),
        );
        registry.register(
            "apiserver_current_inflight_requests",
            "Requests that are being answered",
            self.in_flight.clone(),
        );
        registry.register(
            "sluice_apiserver_cache_revision",
            "The store's revision that lists and watches are served at",
            self.revision.clone(),
        );
    }

    pub(crate) fn observe(&self, labels: RequestLabels, code: u16, duration: Duration) {
        let RequestLabels {
            verb,
            group,
            version,
            resource,
            subresource,
        } = labels.clone();
        let counted = CodeLabels {
            verb,
            group,
            version,
            resource,
            subresource,
            code,
        };
        self.requests.get_or_create(&counted).inc();
        self.durations
            .get_or_create(&labels)
            .observe(duration.as_secs_f64());
    }

    /// The text format of Prometheus.
    pub(crate) fn render(&self, revision: u64) -> String {
        self.revision.set(revision as i64);
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String can't fail.
        let _ = encode(&mut text, &registry);
        text
    }
}
