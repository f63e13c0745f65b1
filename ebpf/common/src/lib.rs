//! The map ABI shared by the eBPF programs and the agent.
//!
//! Every type here is the key or the value of a pinned map, so its bytes are read by programs and
//! agents of other builds. The rules that make this safe: `repr(C)`, no implicit padding, no `bool`,
//! every bit pattern valid, sizes asserted. [`ABI_VERSION`] is part of the pin path; it changes when
//! the layout or the meaning of any type changes, and the loader then migrates.
//!
//! Byte order: what travels in packets (addresses, ports) is kept in network order, in words whose
//! in-memory bytes are the wire's bytes ([`Ipv4`], [`Ipv6`], [`Be16`]), so that programs compare and
//! copy without swapping. Everything else is in the machine's order.
#![no_std]
#![forbid(unsafe_op_in_unsafe_fn)]

mod addr;
mod config;
mod counters;
mod flow;
mod plain;
mod service;
mod socket;
mod time;

pub mod names;

pub use addr::{Be16, Ipv4, Ipv6};
pub use config::{Cidr, Config, SourceRange, Timeouts, cidr_flags, config_flags};
pub use counters::{Counter, DropReason, ServiceCounter};
pub use flow::{Flow, FlowState, Tuple, flow_flags};
pub use plain::Plain;
pub use service::{
    AffinityClient, AffinityKey, AffinityValue, Backend, Frontend, FrontendKey, Range,
    backend_flags, frontend_flags,
};
pub use socket::{SOCKET_PEERS, SocketPeer, SocketPeers};
pub use time::{TICK_SHIFT, Ticks, millis_from_ticks, ticks_from_millis, ticks_from_nanos};

/// The version of the whole map layout; a directory name under the agent's bpf root.
pub const ABI_VERSION: u32 = 1;

/// IANA protocol numbers that the datapath knows.
pub mod proto {
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// ICMP for IPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
}
