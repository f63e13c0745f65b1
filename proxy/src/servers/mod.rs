//! What the agent answers over HTTP: its health, its metrics, and the health of Services for external
//! load balancers.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub mod health;
pub mod healthz;
pub mod metrics;
pub mod node_port_health;
pub mod scrape;
pub mod status;

/// A server that could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve {what} on {addr}")]
pub struct BindError {
    /// What it would have served.
    pub what: &'static str,
    /// Where.
    pub addr: SocketAddr,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

/// Binds an address for a server.
///
/// # Errors
/// When it is in use or not this machine's.
pub async fn bind(what: &'static str, addr: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(addr)
        .await
        .map_err(|source| BindError { what, addr, source })
}

/// Serves until cancelled.
pub async fn serve(listener: TcpListener, router: Router, cancel: CancellationToken) {
    let end = async move { cancel.cancelled().await };
    if let Err(error) = axum::serve(listener, router)
        .with_graceful_shutdown(end)
        .await
    {
        tracing::warn!(error = crate::chain(&error), "a server has ended");
    }
}
