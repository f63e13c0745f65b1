//! The service load balancer: planner, maps, reconciler, health and metrics servers, Kubernetes watch.

pub mod agent;
mod chain;
pub mod cli;
pub mod config;
pub mod inspect;
pub mod interfaces;
pub mod loader;
pub mod maglev;
pub mod maps;
pub mod planner;
pub mod preflight;
pub mod reconciler;
pub mod servers;
pub mod watch;

pub(crate) use chain::chain;

#[cfg(test)]
mod testing;
