//! The service load balancer: planner, maps, reconciler, health and metrics servers, Kubernetes watch.

pub mod maglev;
pub mod maps;
pub mod planner;
pub mod reconciler;

#[cfg(test)]
mod testing;
