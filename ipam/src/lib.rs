//! Pod addresses and pod networking: the allocator, the CNI plugin, the node's daemon, and the links and
//! routes that make an address work.

pub mod allocator;
pub mod links;
