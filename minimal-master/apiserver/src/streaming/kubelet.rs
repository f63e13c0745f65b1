//! Connections to kubelets: HTTP/1.1 over TLS, with the API server's own certificate, one per request.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::{HOST, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use sluice_api::ApiError;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::locate::Location;

const CONNECT: Duration = Duration::from_secs(5);

/// Opens connections to kubelets.
pub(crate) struct Kubelets {
    tls: Arc<ClientConfig>,
}

impl Kubelets {
    pub(crate) fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls }
    }

    /// Sends a request whose URI is a path and query. The connection lasts as long as the answer or its upgrade.
    pub(super) async fn send(
        &self,
        to: &Location,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, ApiError> {
        let authority = authority(to);
        let host = HeaderValue::from_str(&authority).map_err(ApiError::internal)?;
        request.headers_mut().insert(HOST, host);
        let attempt = self.exchange(to, request);
        attempt.await.map_err(|error| {
            ApiError::service_unavailable(format!(
                "cannot reach the kubelet of node {} at {authority}: {error}",
                to.node
            ))
        })
    }

    async fn exchange(
        &self,
        to: &Location,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Box<dyn std::error::Error + Send + Sync>> {
        let connect = async {
            let stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(to.host.clone()).map_err(std::io::Error::other)?;
            TlsConnector::from(self.tls.clone())
                .connect(name, stream)
                .await
        };
        let stream = tokio::time::timeout(CONNECT, connect).await??;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender.send_request(request).await?)
    }
}

fn authority(to: &Location) -> String {
    match to.host.contains(':') {
        true => format!("[{}]:{}", to.host, to.port),
        false => format!("{}:{}", to.host, to.port),
    }
}
