//! The health port (10256): `/healthz`, `/livez`, `/readyz`.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::json;

use super::health::{Health, Verdict};
use super::metrics::Metrics;

#[derive(Clone)]
struct Shared {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// `/healthz` fails while changes are not written in time or the node is about to go; `/livez` only
/// for the former (both with kube-proxy's body); `/readyz` until everything has been written once.
pub fn router(health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(Shared { health, metrics })
}

async fn healthz(State(shared): State<Shared>) -> Response {
    let verdict = shared.health.verdict(Instant::now(), Timestamp::now());
    let status = code(verdict.healthy && verdict.eligible);
    shared.metrics.healthz(status.as_u16());
    answer(status, &verdict)
}

async fn livez(State(shared): State<Shared>) -> Response {
    let verdict = shared.health.verdict(Instant::now(), Timestamp::now());
    let status = code(verdict.healthy);
    shared.metrics.livez(status.as_u16());
    answer(status, &verdict)
}

async fn readyz(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    if shared
        .health
        .verdict(Instant::now(), Timestamp::now())
        .synced
    {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "waiting for the first full sync with the API server\n",
        )
    }
}

const fn code(good: bool) -> StatusCode {
    if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn answer(status: StatusCode, verdict: &Verdict) -> Response {
    let body = json!({
        "lastUpdated": verdict.last_updated.to_string(),
        "currentTime": verdict.current_time.to_string(),
        "nodeEligible": verdict.eligible,
    });
    (
        status,
        [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")],
        Json(body),
    )
        .into_response()
}
