//! The service load balancer: planner, maps, reconciler, health and metrics servers, Kubernetes watch.
