//! The kubelet's HTTP servers: the authenticated one over TLS (10250), which the API server calls, and the
//! read-only one (10255).

mod auth;
mod logs;
mod pods;
mod streaming;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub use auth::Authorizer;

use crate::pods::manager::Manager;
use crate::pods::relist::Relisted;

/// A caller that takes longer than this over its TLS handshake is hung up on.
const HANDSHAKE: std::time::Duration = std::time::Duration::from_secs(10);

/// What handlers need.
pub struct State {
    /// The pods.
    pub manager: Arc<Manager>,
    /// Whether the runtime answers.
    pub relisted: Arc<Relisted>,
    /// Name of the node.
    pub node_name: String,
}

/// An error for the caller: a status and a line of text.
pub struct Refusal(StatusCode, String);

impl Refusal {
    fn not_found(message: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, message.into())
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, message.into())
    }

    fn internal(error: impl ToString) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, self.1 + "\n").into_response()
    }
}

fn read_only_routes(state: &Arc<State>) -> Router {
    Router::new()
        .route("/healthz", get(pods::healthz))
        .route("/pods", get(pods::pods))
        .route("/metrics", get(pods::metrics))
        .route("/stats/summary", get(pods::summary))
        .with_state(Arc::clone(state))
}

fn all_routes(state: &Arc<State>) -> Router {
    Router::new()
        .route(
            "/containerLogs/{namespace}/{pod}/{container}",
            get(logs::container_logs),
        )
        .route("/exec/{namespace}/{pod}/{container}", any(streaming::exec))
        .route(
            "/exec/{namespace}/{pod}/{uid}/{container}",
            any(streaming::exec_with_uid),
        )
        .route(
            "/attach/{namespace}/{pod}/{container}",
            any(streaming::attach),
        )
        .route(
            "/attach/{namespace}/{pod}/{uid}/{container}",
            any(streaming::attach_with_uid),
        )
        .route(
            "/portForward/{namespace}/{pod}",
            any(streaming::port_forward),
        )
        .route(
            "/portForward/{namespace}/{pod}/{uid}",
            any(streaming::port_forward_with_uid),
        )
        .with_state(Arc::clone(state))
        .merge(read_only_routes(state))
}

/// Serves the read-only endpoints without TLS until `stop`.
pub async fn serve_read_only(listener: TcpListener, state: Arc<State>, stop: CancellationToken) {
    let router = read_only_routes(&state);
    accept(listener, stop, move |stream, _| {
        let router = router.clone();
        async move { serve(stream, router, None).await }
    })
    .await;
}

/// Serves all endpoints over TLS to callers whom `authorizer` lets in, until `stop`.
pub async fn serve_tls(
    listener: TcpListener,
    tls: rustls::ServerConfig,
    authorizer: Arc<Authorizer>,
    state: Arc<State>,
    stop: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let router = all_routes(&state);
    accept(listener, stop, move |stream, _| {
        let (acceptor, router, authorizer) =
            (acceptor.clone(), router.clone(), Arc::clone(&authorizer));
        async move {
            let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
            let Ok(Ok(stream)) = handshake else {
                return;
            };
            let certificate = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| chain.first());
            let caller = certificate.and_then(|certificate| auth::identity(certificate));
            serve(stream, router, Some((authorizer, caller))).await;
        }
    })
    .await;
}

async fn accept<F, S>(listener: TcpListener, stop: CancellationToken, serve: S)
where
    F: Future<Output = ()> + Send + 'static,
    S: Fn(TcpStream, SocketAddr) -> F,
{
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, from)) => {
                let _ = stream.set_nodelay(true);
                let connection = serve(stream, from);
                let stop = stop.clone();
                tokio::spawn(async move { stop.run_until_cancelled(connection).await });
            }
            // Out of file descriptors: others must end first.
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

type Caller = (Arc<Authorizer>, Option<auth::Identity>);

async fn serve<S>(stream: S, router: Router, caller: Option<Caller>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let (router, caller) = (router.clone(), caller.clone());
        async move {
            Ok::<_, std::convert::Infallible>(answer(request.map(Body::new), router, caller).await)
        }
    });
    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()).http1_only();
    if let Err(error) = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await
    {
        tracing::debug!(error, "a connection ended early");
    }
}

async fn answer(request: Request<Body>, router: Router, caller: Option<Caller>) -> Response {
    let (parts, body) = request.into_parts();
    if let Some((authorizer, identity)) = caller
        && parts.uri.path() != "/healthz"
        && let Err(refusal) = authorizer.check(identity.as_ref(), &parts).await
    {
        return refusal.into_response();
    }
    match router.oneshot(Request::from_parts(parts, body)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
