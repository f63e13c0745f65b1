//! Flows: what is translated, and to what.
//!
//! A translated flow has two entries in the LRU table of its family: the forward one under the tuple
//! that the client sends, the reverse one under the tuple that the other end answers with. Each holds
//! the tuple that such a packet leaves with, so that a known flow costs one lookup.

use crate::plain::plain;
use crate::{Be16, Ipv4, Ipv6, Ticks};

/// The key of `flows_v4` and `flows_v6`: a packet's addresses and ports as it arrives.
///
/// ICMP echo has its identifier as the source port of a request and the destination port of a reply;
/// the other port is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Tuple<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// IANA protocol number; a word, so that the key is a whole number of words for the kernel's hash.
    pub protocol: u32,
}

impl<A: Copy> Tuple<A> {
    /// The tuple of the answer.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            protocol: self.protocol,
        }
    }
}

/// The value of `flows_v4` and `flows_v6`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow<A> {
    /// Source address that the packet leaves with.
    pub src: A,
    /// Destination address that the packet leaves with.
    pub dst: A,
    /// Source port that the packet leaves with.
    pub sport: Be16,
    /// Destination port that the packet leaves with.
    pub dport: Be16,
    /// [`flow_flags`].
    pub flags: u16,
    /// [`FlowState`], as its number.
    pub state: u16,
    /// When a packet of this direction was last seen.
    pub last_seen: Ticks,
    /// How long it may be idle; from the node's [`crate::Timeouts`] when its state last changed.
    pub lifetime: Ticks,
    /// When the flow began.
    pub created: Ticks,
    /// The backend, 0 for masqueraded flows.
    pub backend_id: u32,
    /// The service, 0 for masqueraded flows.
    pub service_id: u32,
}

impl<A: Copy> Flow<A> {
    /// The tuple that a packet of this flow leaves with.
    #[inline(always)]
    pub const fn translated(&self, protocol: u32) -> Tuple<A> {
        Tuple {
            src: self.src,
            dst: self.dst,
            sport: self.sport,
            dport: self.dport,
            protocol,
        }
    }

    /// The state, unknown numbers being [`FlowState::New`].
    #[inline(always)]
    pub const fn state(&self) -> FlowState {
        match self.state {
            1 => FlowState::Established,
            2 => FlowState::ClientClosing,
            3 => FlowState::ServerClosing,
            4 => FlowState::Closed,
            5 => FlowState::TimeWait,
            _ => FlowState::New,
        }
    }
}

/// Bits of [`Flow::flags`].
pub mod flow_flags {
    /// This entry is the one for the answers.
    pub const REVERSE: u16 = 1 << 0;
    /// The source is translated too (port from the agent's range), so both directions pass this node.
    pub const SNAT: u16 = 1 << 1;
    /// A pod's flow that leaves the cluster.
    pub const MASQUERADE: u16 = 1 << 2;
    /// Handed to the stack after translation (both directions): for this node or a pod on it. Unset: it
    /// leaves again by the route to its new destination.
    pub const TO_STACK: u16 = 1 << 3;
}

/// How far a flow has come; decides its lifetime. "Client" is who began it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u16)]
pub enum FlowState {
    /// Only the client has been heard.
    #[default]
    New = 0,
    /// Both ends have been heard.
    Established = 1,
    /// TCP: the client has sent FIN, the server not yet.
    ClientClosing = 2,
    /// TCP: the server has sent FIN, the client not yet.
    ServerClosing = 3,
    /// TCP: both have sent FIN, the client first, or one has sent RST. The server's kernel has
    /// forgotten the connection, so its tuple can serve another.
    Closed = 4,
    /// TCP: both have sent FIN, the server first. Its kernel keeps the tuple for a minute (TIME-WAIT,
    /// RFC 9293 section 3.6.1) and may take a new connection on it for the old one.
    TimeWait = 5,
}

impl FlowState {
    /// A short name for tables.
    pub const fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::ClientClosing | Self::ServerClosing => "closing",
            Self::Closed => "closed",
            Self::TimeWait => "time-wait",
        }
    }
}

plain! {
    Tuple<Ipv4> = 16,
    Tuple<Ipv6> = 40,
    Flow<Ipv4> = 36,
    Flow<Ipv6> = 60,
}
