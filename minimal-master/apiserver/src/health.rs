//! `/livez`, `/readyz`, `/healthz` and `/version`: for everybody, without authentication.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::json;

use crate::app::App;
use crate::query::Query;
use crate::respond;

/// The Kubernetes version whose API is served.
const MAJOR: &str = "1";
const MINOR: &str = "36";

pub(crate) async fn live(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    answer(
        "livez",
        &[
            ("ping", true),
            ("store", app.store.revision().await.is_ok()),
        ],
        query,
    )
}

pub(crate) async fn ready(State(app): State<Arc<App>>, RawQuery(query): RawQuery) -> Response {
    let checks = [
        ("ping", true),
        ("store", app.store.revision().await.is_ok()),
        ("bootstrap", app.is_bootstrapped()),
        ("shutdown", !app.stopping.is_cancelled()),
    ];
    answer("readyz", &checks, query)
}

fn answer(name: &str, checks: &[(&str, bool)], query: Option<String>) -> Response {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    let healthy = checks.iter().all(|(_, passed)| *passed);
    if healthy && !query.flag("verbose") {
        return respond::plain(StatusCode::OK, "ok");
    }
    let mut text = String::new();
    for (check, passed) in checks {
        let (sign, word) = if *passed {
            ('+', "ok")
        } else {
            ('-', "failed")
        };
        text.push_str(&format!("[{sign}]{check} {word}\n"));
    }
    text.push_str(&format!(
        "{name} check {}\n",
        if healthy { "passed" } else { "failed" }
    ));
    let code = if healthy {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    respond::plain(code, text)
}

pub(crate) async fn version() -> Response {
    let version = json!({
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": format!("v{MAJOR}.{MINOR}.0+sluice-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, platform()),
    });
    respond::json_value(StatusCode::OK, &version)
}

/// The architecture as Go names it.
fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
