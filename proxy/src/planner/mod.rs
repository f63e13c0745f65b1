//! From Kubernetes objects to what the maps should hold. Pure: no kernel, no clock, no I/O.
//!
//! The [`Planner`] keeps a compact copy of every Service and EndpointSlice and of the own Node, and
//! remembers which Services an event touched. [`Planner::drain`] plans those again, each one alone,
//! so an event costs what it changed and not what the cluster holds. The rules are kube-proxy's; each
//! is named where it is kept ([`policy`] above all).

mod claims;
mod draft;
pub mod dump;
mod endpoints;
mod frontends;
mod names;
mod node;
mod plan;
pub mod policy;
mod problem;
mod service;
mod slice;
mod state;

pub use claims::Rank;
pub use names::{Family, ObjectName, PortId, Scope};
pub use node::Node;
pub use plan::{FrontendKind, HealthCheck, PlannedBackend, PlannedFrontend, PortPlan, ServicePlan};
pub use problem::{Fault, Problem};
pub use service::{HEADLESS_LABEL, PROXY_NAME_LABEL, Service, ServicePort};
pub use slice::{Endpoint, EndpointSlice, SERVICE_NAME_LABEL, SlicePort};
pub use state::{Change, Options, Planner};

#[cfg(test)]
mod tests;
