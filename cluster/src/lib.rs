//! A whole cluster on one machine: a network namespace, a containerd and the node's processes for each node.
//!
//! Everything is derived from the cluster's name ([`layout`]), made in the order in which it is needed
//! ([`up`]), and found again by that name alone ([`down`]), so that a crash at any point leaves nothing
//! that the next `up` does not heal or the next `down` does not remove. The host's own network is not touched.

pub mod cli;

mod borrowed;
mod cgroups;
mod client;
mod containerd;
mod credentials;
mod demo;
mod down;
mod ethtool;
mod images;
mod kill;
mod layout;
mod links;
mod lock;
mod logs;
mod manifests;
mod mounts;
mod netns;
mod parts;
mod pidfile;
mod preflight;
mod progress;
mod readiness;
mod spawn;
mod status;
mod table;
mod up;
