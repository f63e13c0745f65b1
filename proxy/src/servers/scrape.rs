//! The metrics port (10249): `/metrics`, `/status`, `/healthz`.

use std::fmt;
use std::sync::{Arc, PoisonError};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::metrics::Metrics;
use super::status::Status;
use crate::maps::{Observe, ServiceCounter};
use crate::planner::PortId;

/// A look at the maps that several threads may take.
pub type Observer = Arc<dyn Observe + Send + Sync>;

#[derive(Clone)]
struct Shared {
    registry: Arc<Registry>,
    status: Arc<Status>,
}

/// Metrics of the agent and of the maps, and the agent's status.
pub fn router(metrics: &Metrics, status: Arc<Status>, maps: Observer) -> Router {
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    registry.register_collector(Box::new(Counters {
        maps,
        status: status.clone(),
    }));
    Router::new()
        .route("/metrics", get(scrape))
        .route("/status", get(report))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(Shared {
            registry: Arc::new(registry),
            status,
        })
}

/// Reads every service's counters, so it is kept off the threads that handle events.
async fn scrape(State(shared): State<Shared>) -> Response {
    let encode = move || {
        let mut body = String::new();
        text::encode(&mut body, &shared.registry).map(|()| body)
    };
    match tokio::task::spawn_blocking(encode).await {
        Ok(Ok(body)) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn report(State(shared): State<Shared>) -> Response {
    let report = shared
        .status
        .report
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    Json(report).into_response()
}

/// What the programs have counted, read when somebody asks.
struct Counters {
    maps: Observer,
    status: Arc<Status>,
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counters")
    }
}

/// A counter of a service: name, help, and where it is.
type ServiceMetric = (&'static str, &'static str, fn(&ServiceCounter) -> u64);

const SERVICE_METRICS: [ServiceMetric; 4] = [
    (
        "sluice_service_connections",
        "New flows, and connections made by sockets",
        |c| c.connections,
    ),
    ("sluice_service_packets", "Translated packets", |c| {
        c.packets
    }),
    ("sluice_service_bytes", "Bytes of translated packets", |c| {
        c.bytes
    }),
    (
        "sluice_service_refused",
        "Connections and packets refused or dropped",
        |c| c.refused,
    ),
];

impl Collector for Counters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_services(&mut encoder)?;
        self.encode_drops(&mut encoder)?;
        self.encode_usage(&mut encoder)
    }
}

impl Counters {
    fn encode_services(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let services = self
            .status
            .services
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let read = |(id, name)| Some((name, self.maps.service_counter(id).ok()?));
        let counters: Vec<(PortId, ServiceCounter)> =
            services.into_iter().filter_map(read).collect();
        for (name, help, value) in SERVICE_METRICS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (id, counter) in &counters {
                let labels = [
                    ("namespace", id.service.namespace().to_owned()),
                    ("service", id.service.name().to_owned()),
                    ("port", id.port.to_string()),
                    ("protocol", id.protocol.to_string()),
                    ("family", id.family.to_string()),
                ];
                ConstCounter::new(value(counter)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }

    fn encode_drops(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Ok(drops) = self.maps.drops() else {
            return Ok(());
        };
        let mut family = encoder.encode_descriptor(
            "sluice_drops",
            "Packets and system calls dropped or refused, by reason",
            None,
            MetricType::Counter,
        )?;
        for (reason, counter) in drops {
            let labels = [("reason", reason.label())];
            ConstCounter::new(counter.packets).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn encode_usage(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let maps = self
            .status
            .report
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .maps
            .clone();
        for (name, help, capacity) in [
            ("sluice_map_entries", "Entries in use", false),
            (
                "sluice_map_capacity",
                "Entries that there is room for",
                true,
            ),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for map in &maps {
                let value = if capacity { map.capacity } else { map.used };
                let labels = [("map", map.name)];
                ConstGauge::new(i64::from(value)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
