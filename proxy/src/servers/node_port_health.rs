//! Health check node ports: external load balancers ask them which nodes have endpoints of a Service
//! with `externalTrafficPolicy: Local`. Body, headers and codes are kube-proxy's.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::warn;

use super::health::Health;
use crate::planner::{HealthCheck, ObjectName};

static WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");
/// Between attempts to bind a port that somebody else has.
const REBIND: Duration = Duration::from_secs(5);

/// The servers, by port.
#[derive(Debug)]
pub struct NodePortHealth {
    health: Arc<Health>,
    services: BTreeMap<ObjectName, Server>,
}

#[derive(Debug)]
struct Server {
    port: u16,
    local_endpoints: Arc<Mutex<usize>>,
    /// Ends the server when dropped.
    _running: DropGuard,
}

#[derive(Clone)]
struct Shared {
    service: ObjectName,
    local_endpoints: Arc<Mutex<usize>>,
    health: Arc<Health>,
}

impl NodePortHealth {
    /// No servers yet; the agent's own health is part of every answer.
    pub const fn new(health: Arc<Health>) -> Self {
        Self {
            health,
            services: BTreeMap::new(),
        }
    }

    /// What a Service asks for now. Starts, stops or informs its server.
    pub fn set(&mut self, service: &ObjectName, check: Option<HealthCheck>) {
        let Some(check) = check else {
            self.services.remove(service);
            return;
        };
        if let Some(server) = self
            .services
            .get(service)
            .filter(|server| server.port == check.port)
        {
            *server
                .local_endpoints
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = check.local_endpoints;
            return;
        }
        let server = self.start(service, check);
        self.services.insert(service.clone(), server);
    }

    fn start(&self, service: &ObjectName, check: HealthCheck) -> Server {
        let local_endpoints = Arc::new(Mutex::new(check.local_endpoints));
        let shared = Shared {
            service: service.clone(),
            local_endpoints: local_endpoints.clone(),
            health: self.health.clone(),
        };
        let cancel = CancellationToken::new();
        tokio::spawn(run(check.port, shared, cancel.clone()));
        Server {
            port: check.port,
            local_endpoints,
            _running: cancel.drop_guard(),
        }
    }
}

async fn run(port: u16, shared: Shared, cancel: CancellationToken) {
    let service = shared.service.clone();
    let router = Router::new().fallback(get(answer)).with_state(shared);
    let listener = tokio::select! {
        listener = listen(port, &service) => listener,
        () = cancel.cancelled() => return,
    };
    super::serve(listener, router, cancel).await;
}

/// On all addresses of both families; IPv4 alone where IPv6 is switched off.
async fn listen(port: u16, service: &ObjectName) -> TcpListener {
    loop {
        let v6 = TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await;
        let bound = match v6 {
            Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
                TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
            }
            bound => bound,
        };
        match bound {
            Ok(listener) => return listener,
            Err(error) => {
                warn!(%service, port, %error, "cannot serve spec.healthCheckNodePort; trying again")
            }
        }
        tokio::time::sleep(REBIND).await;
    }
}

async fn answer(State(shared): State<Shared>) -> Response {
    let count = *shared
        .local_endpoints
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let healthy = shared
        .health
        .verdict(Instant::now(), Timestamp::now())
        .healthy;
    let status = if count > 0 && healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "service": {"namespace": shared.service.namespace(), "name": shared.service.name()},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    });
    let headers = [
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (WEIGHT.clone(), HeaderValue::from(count)),
    ];
    (status, headers, Json(body)).into_response()
}
