//! The front door: every request is authenticated, counted, logged, and answered even if its handler panics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures::FutureExt;
use http::header::CONNECTION;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use sluice_api::ApiError;

use crate::app::App;
use crate::authn::User;
use crate::metrics::{Counted, RequestLabels};
use crate::query::Query;
use crate::respond::{self, Answer};
use crate::rest::{self, Call};
use crate::target::Target;
use crate::{discovery, health, reviews, streaming};

/// Upstream's limit of a request's body.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// The user of a connection's client certificate.
#[derive(Clone)]
pub(crate) struct Peer(pub(crate) Option<Arc<User>>);

/// An error as an answer.
pub(crate) struct Failure(pub(crate) ApiError);

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        respond::error(&self.0)
    }
}

/// All paths.
pub(crate) fn router(app: Arc<App>) -> Router {
    let public = Router::new()
        .route("/healthz", get(health::live))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/version", get(health::version));
    let known = Router::new()
        .route("/", get(discovery::paths))
        .route("/metrics", get(metrics))
        .route("/api", get(discovery::core))
        .route("/api/{version}", get(discovery::core_resources))
        .route("/apis", get(discovery::groups))
        .route("/apis/{group}", get(discovery::group))
        .route("/apis/{group}/{version}", get(discovery::resources))
        .route("/openapi/v3", get(discovery::openapi_index))
        .route("/openapi/v3/{*path}", get(discovery::openapi))
        .route(
            "/apis/authorization.k8s.io/v1/{review}",
            post(reviews::authorization),
        )
        .route(
            "/apis/authentication.k8s.io/v1/{review}",
            post(reviews::authentication),
        )
        .fallback(resource)
        .method_not_allowed_fallback(async || Failure(ApiError::method_not_allowed()))
        .layer(middleware::from_fn_with_state(app.clone(), authenticate));
    public
        .merge(known)
        .layer(middleware::from_fn(survive))
        .with_state(app)
}

/// A panic is answered with 500 and closes nothing but this request.
async fn survive(request: Request<Body>, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(path, "a request's handler panicked");
            respond::error(&ApiError::internal("this request caused a defect to show"))
        }
    }
}

async fn authenticate(
    State(app): State<Arc<App>>,
    mut request: Request<Body>,
    next: Next,
) -> Response {
    let certificate = request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.0.clone());
    let identity = app
        .authenticator
        .authenticate(request.headers(), certificate.as_deref());
    let user = match identity {
        Some(identity) => reviews::still_valid(&app, identity).await,
        None => None,
    };
    match user {
        Some(user) => {
            request.extensions_mut().insert(user);
            next.run(request).await
        }
        None => respond::error(&ApiError::unauthorized()),
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    respond::plain(StatusCode::OK, app.metrics.render(app.cache.revision()))
}

async fn resource(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let user = request
        .extensions()
        .get::<User>()
        .map(|user| user.name.clone());
    let in_flight = Counted::new(&app.metrics.in_flight);
    let (labels, answer) = answer(&app, request).await;
    drop(in_flight);
    let answer = answer.unwrap_or_else(|error| respond::error(&error));
    let (code, elapsed) = (answer.status().as_u16(), started.elapsed());
    tracing::debug!(%method, path, user, code, ?elapsed, "request");
    if let Some(labels) = labels {
        app.metrics.observe(labels, code, elapsed);
    }
    answer
}

async fn answer(
    app: &Arc<App>,
    request: Request<Body>,
) -> (Option<RequestLabels>, Result<Answer, ApiError>) {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let target = match Target::parse(request.uri().path()) {
        Ok(target) => target,
        Err(error) => return (None, Err(error)),
    };
    let verb = match target.verb(request.method(), query.flag("watch")) {
        Ok(verb) => verb,
        Err(error) => return (None, Err(error)),
    };
    let labels = RequestLabels {
        verb,
        group: target.kind.group,
        version: target.kind.version,
        resource: target.kind.plural,
        subresource: target.subresource.clone(),
    };
    let headers = request.headers().clone();
    let call = Call {
        app: app.clone(),
        target,
        query,
        headers,
    };
    (Some(labels), dispatch(call, verb, request).await)
}

async fn dispatch(
    call: Call,
    verb: &'static str,
    request: Request<Body>,
) -> Result<Answer, ApiError> {
    if streaming::is_stream(&call.target) {
        return streaming::serve(call, request).await;
    }
    let method = request.method().clone();
    let body = read(request.into_body(), &method, verb).await?;
    rest::serve(call, verb, &method, body).await
}

async fn read(body: Body, method: &Method, verb: &str) -> Result<Bytes, ApiError> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(Bytes::new());
    }
    let collected = Limited::new(body, BODY_LIMIT)
        .collect()
        .await
        .map_err(
            |error| match error.downcast_ref::<http_body_util::LengthLimitError>() {
                Some(_) => ApiError::request_too_large(format!("limit is {BODY_LIMIT}")),
                None => {
                    ApiError::bad_request(format!("the body of the {verb} was cut off: {error}"))
                }
            },
        )?;
    Ok(collected.to_bytes())
}

/// Whether the client wants to switch to another protocol.
pub(crate) fn wants_upgrade(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// A path parameter.
pub(crate) type Param = Path<String>;
