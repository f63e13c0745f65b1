//! The daemon and the plugin as processes, in network namespaces that stand for nodes and pods.

mod api;
mod cni;
mod disk;
mod load;
mod repair;
mod support;
mod traffic;
mod unwind;
