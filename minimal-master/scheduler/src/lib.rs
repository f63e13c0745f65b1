//! Binds pending pods to nodes: filters, then scores.
//!
//! The core is pure and knows neither network nor clock: a [`cluster::Cluster`] with requested
//! resources kept incrementally, [`filter`]s that say why a node is no good, [`score`]s that say
//! how good it is, and a [`queue::Queue`] of pods that wait. [`engine::Engine`] joins them into one
//! state machine: changes of the cluster go in, decisions come out. [`run`] connects the engine to
//! an API server: it watches, binds through `pods/binding`, and tells users why a pod waits.
//!
//! One task owns the engine, so a decision always sees every earlier one: a pod that was decided
//! but whose binding is still under way counts as if it were on its node already ("assumed").
#![forbid(unsafe_code)]

pub mod cluster;
mod driver;
pub mod engine;
pub mod filter;
pub mod fit_error;
pub mod node;
pub mod node_affinity;
pub mod pod;
pub mod pod_affinity;
pub mod queue;
pub mod resources;
pub mod score;
pub mod select;
pub mod spread;

pub use driver::{Options, run};
