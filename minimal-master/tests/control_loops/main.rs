//! Scheduler and controllers against the real API server, over real TLS on loopback.
//!
//! Only the kubelets are played: they register nodes, send heartbeats, and say that pods run.

mod harness;
mod kubelet;

mod deployments;
mod election;
mod garbage;
mod nodes;
mod scheduling;
mod services;
