//! A kubelet: registers its machine as a Node, watches the pods that are bound to it, carries them out through a
//! CRI runtime and reports back. It works with any API server.
//!
//! The pod state machine ([`pods::plan`]) and the status ([`pods::status`]) are pure; everything that touches the
//! outside is behind a trait ([`cri::Runtime`], [`objects::Objects`], [`pods::api::PodApi`]).

pub mod cgroups;
pub mod cli;
pub mod config;
pub mod cri;
pub mod events;
pub mod images;
pub mod kubelet;
pub mod logs;
pub mod metrics;
pub mod node;
pub mod objects;
pub mod pods;
pub mod probes;
pub mod quantity;
pub mod server;
pub mod tls;
pub mod volumes;

#[cfg(test)]
mod testing;
