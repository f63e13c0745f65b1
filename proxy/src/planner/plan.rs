//! What the planner asks for: one [`ServicePlan`] per Service.

use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;

use super::{ObjectName, PortId, Problem};
use crate::maps::FrontendKey;

/// All that the maps should hold for one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// The Service.
    pub service: ObjectName,
    /// Its ports, by id.
    pub ports: Vec<PortPlan>,
    /// Addresses that belong to the Service alone: a port of them that no Service has is rejected.
    pub addresses: Vec<IpAddr>,
    /// Its health check for external load balancers.
    pub health_check: Option<HealthCheck>,
    /// What could not be planned (see [`super::Planner::problems`] for what could not be read).
    pub problems: Vec<Problem>,
}

/// A port's frontends and the backends behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortPlan {
    /// Which port of which Service.
    pub id: PortId,
    /// ClientIP affinity.
    pub affinity: Option<Duration>,
    /// Who may reach the frontends that ask for it; empty with none that ask.
    pub source_ranges: Vec<IpNetwork>,
    /// Eligible backends, by address and port; each is internal, external or both.
    pub backends: Vec<PlannedBackend>,
    /// No internal backend is eligible but endpoints exist elsewhere: drop instead of reject.
    pub internal_drop: bool,
    /// The same for external backends.
    pub external_drop: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// Frontends, by key.
    pub frontends: Vec<PlannedFrontend>,
}

/// A backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlannedBackend {
    /// Address.
    pub addr: IpAddr,
    /// Port.
    pub port: u16,
    /// On this node.
    pub local: bool,
    /// Takes traffic from the cluster itself.
    pub internal: bool,
    /// Takes traffic from outside.
    pub external: bool,
}

/// A frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlannedFrontend {
    /// Where clients send.
    pub key: FrontendKey,
    /// What it is.
    pub kind: FrontendKind,
    /// Clients from outside must be in the port's source ranges.
    pub source_ranges: bool,
}

/// What a frontend is; the order is that in which claims to one key are settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrontendKind {
    /// A cluster IP: for the cluster only.
    ClusterIp,
    /// A load balancer's VIP.
    LoadBalancer,
    /// One of `spec.externalIPs`.
    ExternalIp,
    /// A node port on an address of the node.
    NodePort,
    /// A node port on loopback: for the node's own processes only.
    LoopbackNodePort,
}

impl FrontendKind {
    /// Whether traffic from outside of the cluster may come in.
    pub const fn external(self) -> bool {
        matches!(self, Self::LoadBalancer | Self::ExternalIp | Self::NodePort)
    }
}

/// What a health check port answers about a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// `spec.healthCheckNodePort`.
    pub port: u16,
    /// Ready endpoints on this node.
    pub local_endpoints: usize,
}
