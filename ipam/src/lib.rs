//! Pod addresses and pod networking: the allocator, the CNI plugin, the node's daemon, and the links and
//! routes that make an address work.
//!
//! [`allocator`] knows only addresses, [`links`] only the kernel; [`plugin`] and [`daemon`] join them and
//! talk by [`protocol`].

pub mod allocator;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod links;
pub mod plugin;
pub mod protocol;

mod report;
