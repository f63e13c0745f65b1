//! Which paths, groups, versions and resources there are, and their schemas.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use sluice_api::{ApiError, discovery, openapi};

use crate::accept;
use crate::app::App;
use crate::front::{Failure, Param};
use crate::respond;

type Result<T> = std::result::Result<T, Failure>;

pub(crate) async fn paths() -> Response {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for (group, version) in sluice_api::kinds::group_versions() {
        if !group.is_empty() {
            paths.push(format!("/apis/{group}"));
            paths.push(format!("/apis/{group}/{version}"));
        }
    }
    for path in [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v3",
        "/readyz",
        "/version",
    ] {
        paths.push(path.to_owned());
    }
    respond::json_value(StatusCode::OK, &json!({"paths": paths}))
}

pub(crate) async fn core(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    match accept::aggregated_discovery(&headers) {
        true => aggregated(&discovery::aggregated_core()),
        false => respond::json_value(StatusCode::OK, &discovery::core_versions(&app.address)),
    }
}

pub(crate) async fn groups(headers: HeaderMap) -> Response {
    match accept::aggregated_discovery(&headers) {
        true => aggregated(&discovery::aggregated_groups()),
        false => respond::json_value(StatusCode::OK, &discovery::groups()),
    }
}

fn aggregated(document: &Value) -> Response {
    let mut answer = respond::json_value(StatusCode::OK, document);
    if let Ok(kind) = HeaderValue::from_str(discovery::AGGREGATED) {
        answer.headers_mut().insert(CONTENT_TYPE, kind);
    }
    answer
        .headers_mut()
        .insert(VARY, HeaderValue::from_static("Accept"));
    answer
}

pub(crate) async fn core_resources(version: Param) -> Result<Response> {
    found(discovery::resources("", &version.0))
}

pub(crate) async fn group(group: Param) -> Result<Response> {
    found(discovery::group(&group.0))
}

pub(crate) async fn resources(
    axum::extract::Path((group, version)): axum::extract::Path<(String, String)>,
) -> Result<Response> {
    found(discovery::resources(&group, &version))
}

fn found(document: Option<Value>) -> Result<Response> {
    let document = document.ok_or_else(ApiError::no_such_path)?;
    Ok(respond::json_value(StatusCode::OK, &document))
}

pub(crate) async fn openapi_index(headers: HeaderMap) -> Response {
    document(openapi::index(), &headers)
}

pub(crate) async fn openapi(path: Param, headers: HeaderMap) -> Result<Response> {
    let found = openapi::document(path.0.trim_end_matches('/'));
    Ok(document(
        found.ok_or_else(ApiError::no_such_path)?,
        &headers,
    ))
}

/// A document never changes while the server runs; its hash tells clients that theirs is the same.
fn document(document: &'static openapi::Document, headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", document.hash);
    if headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes())
    {
        return respond::plain(StatusCode::NOT_MODIFIED, "");
    }
    let mut answer = respond::json_text(StatusCode::OK, document.json.as_slice());
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    answer
}
